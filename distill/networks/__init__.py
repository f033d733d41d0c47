"""A network by its name or its file, and what it costs."""
