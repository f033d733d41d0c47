"""From a trained network to the file that is deployed: export, proof that it computes the same, and its cost."""
