"""The sub-commands of `distill`, a file for those that belong together."""
