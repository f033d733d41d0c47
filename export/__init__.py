"""From a trained network to a file that a phone's runtime reads, with the proof that both compute the same."""
