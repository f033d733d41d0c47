"""ExecuTorch: written and run."""
