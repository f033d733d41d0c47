"""LiteRT: written and run."""
