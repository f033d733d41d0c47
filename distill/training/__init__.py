"""A student, trained: the recipe, the loop, and what a run leaves behind."""
