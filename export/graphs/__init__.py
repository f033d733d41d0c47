"""Networks as graphs that can be exported, and what such a graph computes."""
