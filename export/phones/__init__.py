"""An exported file on a phone that a cable reaches."""
