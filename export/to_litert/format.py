"""LiteRT as a format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.interfaces import Format, Order

if TYPE_CHECKING:
    from export.program import Program

__all__ = ["LitertFormat"]


class LitertFormat(Format):
    """One .tflite file of one size, tensors channels-last inside."""

    name, suffix, extra = "litert", ".tflite", "litert"
    precisions, calibrated = ("fp32", "fp16", "int8"), ("int8",)
    needs, runtime = "litert_torch", "ai_edge_litert"
    sizes = "one"
    opener = "export.to_litert.program:LiteRTProgram"

    def _write(self, order: Order, target: Path) -> None:
        from export.to_litert.conversion import write

        write(order, target)

    def _open(self, path: Path, threads: int | None) -> Program:
        from export.to_litert.program import LiteRTProgram

        return LiteRTProgram(path, threads)
