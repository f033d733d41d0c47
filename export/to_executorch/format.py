"""ExecuTorch as a format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.interfaces import Format, Order

if TYPE_CHECKING:
    from export.program import Program

__all__ = ["ExecutorchFormat"]


class ExecutorchFormat(Format):
    """One .pte file of one size, computed by XNNPACK as far as it can."""

    name, suffix, extra = "executorch", ".pte", "executorch"
    precisions = ("fp32", "fp16")
    needs = runtime = "executorch"
    sizes = "one"
    opener = "export.to_executorch.program:ExecuTorchProgram"

    def _write(self, order: Order, target: Path) -> None:
        from export.to_executorch.conversion import write

        write(order, target)

    def _open(self, path: Path, threads: int | None) -> Program:
        from export.to_executorch.program import ExecuTorchProgram

        return ExecuTorchProgram(path, threads)
