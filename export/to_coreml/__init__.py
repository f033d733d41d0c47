"""Core ML: written, read back, and computed where there is no Mac."""
