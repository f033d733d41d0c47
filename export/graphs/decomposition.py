"""Operators rewritten as others that more delegates take."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional

from export.quiet import quiet

__all__ = ["in_common_operators"]


def in_common_operators(program: ExportedProgram) -> ExportedProgram:
    """The same with splits and repeated edges as slices and concatenations.

    Delegates take these, where the others would be computed beside them; a split into one part even stops a converter.
    """
    aten = torch.ops.aten
    table = {
        aten.pad.default: _padded,
        aten.split.Tensor: _split,
        aten.split_with_sizes.default: _split_with_sizes,
    }
    with quiet():
        same: ExportedProgram = program.run_decompositions(table)
    return same


def _padded(tensor: Tensor, padding: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
    if mode != "replicate" or len(padding) != 4:
        return functional.pad(tensor, padding, mode, value)
    for axis, (before, after) in ((3, padding[:2]), (2, padding[2:])):
        first, last = tensor.narrow(axis, 0, 1), tensor.narrow(axis, tensor.shape[axis] - 1, 1)
        tensor = torch.cat([first] * before + [tensor] + [last] * after, axis)
    return tensor


def _split(tensor: Tensor, size: int, axis: int = 0) -> list[Tensor]:
    length = tensor.shape[axis]
    return _split_with_sizes(tensor, [min(size, length - start) for start in range(0, length, size)], axis)


def _split_with_sizes(tensor: Tensor, sizes: list[int], axis: int = 0) -> list[Tensor]:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        torch.ops.aten.slice.Tensor(tensor, axis, start, start + size)
        for start, size in zip(starts, sizes, strict=True)
    ]
