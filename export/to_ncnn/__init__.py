"""ncnn: written and run."""
