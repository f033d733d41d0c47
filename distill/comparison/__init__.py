"""Did distillation help: the same runs with and without it, and what they say together."""
