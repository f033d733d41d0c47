"""A file written, proven and judged before it takes its place."""
