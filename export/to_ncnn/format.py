"""ncnn as a format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.interfaces import Format, Order

if TYPE_CHECKING:
    from export.program import Program

__all__ = ["NcnnFormat"]


class NcnnFormat(Format):
    """A folder of one size, with model.param, model.bin and metadata.json."""

    name, suffix, is_folder, extra = "ncnn", ".ncnn", True, "ncnn"
    precisions = ("fp32", "fp16")
    needs, runtime = "pnnx", "ncnn"
    sizes = "one"
    opener = "export.to_ncnn.program:NcnnProgram"

    def _write(self, order: Order, target: Path) -> None:
        from export.to_ncnn.conversion import write

        write(order, target)

    def _open(self, path: Path, threads: int | None) -> Program:
        from export.to_ncnn.program import NcnnProgram

        return NcnnProgram(path, threads)
