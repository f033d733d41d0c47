"""What a student is trained on, one idea a file."""
