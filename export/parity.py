"""Proof that an exported file computes what the PyTorch network computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.errors import CheckFailed
from distill.interfaces import WindowNetwork, windows
from distill.layers import crop_to
from export.exported import ExportedNetwork

__all__ = ["FLOORS", "Parity", "floor_of", "parity"]

FLOORS = {"fp32": 90.0, "fp16": 50.0, "int8": 40.0, "w8": 45.0, "p6": 40.0, "p4": 30.0}
"""PSNR against PyTorch, in dB, under which an export of that precision fails unless the user says otherwise.

Far under what sound exports reach (about 120, 70, 50, 60, 55 and 43), so that what fails is broken. What a precision
costs in quality is told against truth, see `export.quality`.
"""


@dataclass(frozen=True)
class Parity:
    """How far a file is from its network.

    Attributes:
        max_abs: largest difference of any value, in units of the colour range [0, 1].
        psnr_db: of the file's frames against the network's, RGB, nothing cropped, not clamped; infinite when equal.
        frames: how many were compared.
        sizes: (height, width) of the low-resolution frames compared.
    """

    max_abs: float
    psnr_db: float
    frames: int
    sizes: tuple[tuple[int, int], ...]

    def document(self) -> dict[str, Any]:
        """What json.dumps can write; `psnr_db` is null where all is equal."""
        psnr = self.psnr_db if math.isfinite(self.psnr_db) else None
        return {"max_abs": self.max_abs, "psnr_db": psnr, "frames": self.frames, "sizes": list(map(list, self.sizes))}


def floor_of(exported: ExportedNetwork) -> float:
    """The floor in dB where the user gives none: that of the file's precision, or of its memories' where it is less."""
    facts = exported.program.metadata
    floor = FLOORS[facts["precision"]]
    return min(floor, FLOORS["fp16"]) if facts["memory_type"] == "float16" else floor


def parity(
    network: WindowNetwork, exported: ExportedNetwork, clips: Iterable[Tensor], *, floor: float | None = None
) -> Parity:
    """Compare a file with its network on real frames.

    Every frame of each clip is restored by a streaming file, the middle one by a windowed file, and by the network from
    the window of frames around it. Where the file leaves the size free, the first clip is also compared cropped to odd
    sides, so that padding is too.

    Args:
        network: what was exported, on any device, in any mode; it is not changed.
        exported: the file.
        clips: low-resolution clips (T, 3, h, w), RGB in [0, 1], of a size that the file takes.
        floor: PSNR in dB that is demanded; None for `floor_of(exported)`.

    Raises:
        InputError: the file does not take a clip's size.
        CheckFailed: the file is further off, or gives no numbers.
    """
    reference = copy.deepcopy(network).cpu().eval()
    floor = floor_of(exported) if floor is None else floor
    differences, sizes = [], []
    for clip in _variants(clips, free=not exported.sizes):
        for ours, theirs in _pairs(reference, exported, clip.cpu().float()):
            differences.append((theirs - ours).flatten())
        sizes.append((clip.shape[-2], clip.shape[-1]))
    if not differences:
        raise ValueError("parity needs at least one clip")
    difference = torch.cat(differences).double()
    error = difference.square().mean().item()
    psnr = math.inf if error == 0 else -10 * math.log10(error)
    result = Parity(difference.abs().max().item(), psnr, len(differences), tuple(dict.fromkeys(sizes)))
    if not psnr >= floor:  # also when it is not a number
        raise CheckFailed(
            f"{exported.path.name} differs from the PyTorch network: {psnr:.1f} dB (max |difference| "
            f"{result.max_abs:.1e}), under the floor of {floor:g} dB: do not ship it; --floor sets another floor."
        )
    return result


def _variants(clips: Iterable[Tensor], *, free: bool) -> Iterator[Tensor]:
    for place, clip in enumerate(clips):
        yield clip
        if free and place == 0:
            height, width = clip.shape[-2:]
            yield crop_to(clip, height * 2 // 3 | 1, width // 2 | 1)  # odd, so it must be padded


def _pairs(network: WindowNetwork, exported: ExportedNetwork, clip: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames (3, H, W) by the network and by the file."""
    middle = clip.shape[0] // 2
    wanted = windows(clip[None], network.window)[0]
    if exported.streaming:
        restored: Iterable[Tensor] = exported.stream(clip)
    else:
        # what comes of repeated edges is no matter of the file, and one run is enough of a proof
        wanted = wanted[middle : middle + 1]
        restored = map(exported.restore_window, wanted)
    with torch.inference_mode():
        for window, theirs in zip(wanted, restored, strict=True):
            yield network.reconstruct(window[None]).frames[0], theirs
