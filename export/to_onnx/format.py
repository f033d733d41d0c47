"""ONNX as a format."""

from __future__ import annotations

from pathlib import Path

from export.interfaces import Order
from export.to_onnx.model import onnx_model

__all__ = ["write"]


def write(order: Order, target: Path) -> None:
    """Write an .onnx file, see `export.interfaces.Format.write`.

    The same network and metadata give the same bytes.

    Raises:
        ConfigError: int8 is asked for without clips.
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    if order.precision == "int8":
        from export.to_onnx.quantize import int8_model  # which exports what it quantises by this module

        model = int8_model(order)
    else:
        model = onnx_model(order)
    target.write_bytes(model.SerializeToString(deterministic=True))
