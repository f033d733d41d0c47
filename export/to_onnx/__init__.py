"""ONNX: written, looked at the way phones do, and run."""
