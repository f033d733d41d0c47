"""Proof that an exported file computes what the PyTorch network computes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from distill.errors import CheckFailed
from distill.interfaces import SlidingNetwork, windows
from distill.layers import BicubicUpsample, crop_to
from export.exported import ExportedNetwork

__all__ = ["ABOVE_ERROR", "FLOORS", "Parity", "check_parity", "floor_of"]

ABOVE_ERROR = {"fp32": 50.0, "fp16": 20.0, "int8": 10.0, "w8": 10.0, "p6": 6.0, "p4": 0.0}
"""What the network adds to the bicubic frame must be so many dB above the error, unless the user sets a floor.

A student's correction is small, and a file without it, or with the frames of its window in another order, would pass
for a good one by PSNR alone.
"""

FLOORS = {"fp32": 90.0, "fp16": 50.0, "int8": 40.0, "w8": 45.0, "p6": 40.0, "p4": 30.0}
"""PSNR against PyTorch, in dB, under which an export of that precision fails unless the user says otherwise.

Far under what sound exports reach (about 120, 70, 60, 65, 58 and 49). What a precision costs in quality is told
against truth, see `export.delivery.quality`.
"""


@dataclass(frozen=True)
class Parity:
    """How far a file is from its network.

    Attributes:
        max_abs: largest difference of any value, in units of the colour range [0, 1].
        psnr_db: of the file's frames against the network's, RGB, nothing cropped, not clamped; infinite when equal.
        signal_db: power of what the network adds to the bicubic frame over the difference's; infinite when equal.
        frames: how many were compared.
        sizes: (height, width) of the low-resolution frames compared.
    """

    max_abs: float
    psnr_db: float
    signal_db: float
    frames: int
    sizes: tuple[tuple[int, int], ...]

    def document(self) -> dict[str, Any]:
        """What json.dumps can write; decibels are null where all is equal."""
        decibels = {"psnr_db": self.psnr_db, "signal_db": self.signal_db}
        finite = {name: value if math.isfinite(value) else None for name, value in decibels.items()}
        return {"max_abs": self.max_abs, **finite, "frames": self.frames, "sizes": list(map(list, self.sizes))}


def floor_of(exported: ExportedNetwork, floors: Mapping[str, float] = FLOORS) -> float:
    """The floor in dB where the user gives none: that of the file's precision, or of its memories' where it is less."""
    facts = exported.program.metadata
    floor = floors[facts["precision"]]
    return min(floor, floors["fp16"]) if facts["memory_type"] == "float16" else floor


def check_parity(
    network: SlidingNetwork, exported: ExportedNetwork, clips: Iterable[Tensor], *, floor: float | None = None
) -> Parity:
    """Compare a file with its network on real frames.

    Every frame of each clip is restored by a streaming file, the middle one by a windowed file, and by the network from
    the window of frames around it; where the frame rate is doubled, so are the frames half-way before them. The first
    clip is also compared with every other frame mirrored, since in a still scene it would not matter which neighbour is
    which; and, where the file leaves the size free, cropped to odd sides, so that padding is compared too.

    Args:
        network: what was exported, on any device, in any mode; it is not changed.
        exported: the file.
        clips: low-resolution clips (T, 3, h, w), RGB in [0, 1], of a size that the file takes.
        floor: PSNR in dB that is demanded; None for `floor_of(exported)`, and `ABOVE_ERROR` with it.

    Raises:
        InputError: the file does not take a clip's size.
        CheckFailed: the file is further off, or gives no numbers.
    """
    reference = copy.deepcopy(network).cpu().eval()
    # images are rounded to 8 bits and clamped, which is more than a small correction allows for
    images = exported.program.metadata.get("frame_type") == "image"
    signal_floor = floor_of(exported, ABOVE_ERROR) if floor is None and not images else -math.inf
    floor = (FLOORS["int8"] if images else floor_of(exported)) if floor is None else floor
    bicubic = BicubicUpsample(network.scale)
    differences, signals, sizes = [], [], []
    for clip in _variants(clips, free=not exported.sizes):
        for ours, theirs, frame in _pairs(reference, exported, clip.cpu().float()):
            differences.append((theirs - ours).flatten())
            signals.append((ours - bicubic(frame[None])[0]).flatten())
        sizes.append((clip.shape[-2], clip.shape[-1]))
    if not differences:
        raise ValueError("parity needs at least one clip")
    difference = torch.cat(differences).double()
    error = difference.square().mean().item()
    psnr = math.inf if error == 0 else -10 * math.log10(error)
    signal = torch.cat(signals).double().square().mean().item()
    above = math.inf if error == 0 else 10 * math.log10(signal / error) if signal else -math.inf
    result = Parity(difference.abs().max().item(), psnr, above, len(differences), tuple(dict.fromkeys(sizes)))
    if not above >= signal_floor and signal:
        raise CheckFailed(
            f"{exported.path.name} differs from the PyTorch network: what that adds to the bicubic frame is only "
            f"{above:.1f} dB above the difference, under the {signal_floor:g} dB that are expected: do not ship it."
        )
    if not psnr >= floor:  # also when it is not a number
        raise CheckFailed(
            f"{exported.path.name} differs from the PyTorch network: {psnr:.1f} dB (max |difference| "
            f"{result.max_abs:.1e}), under the floor of {floor:g} dB: do not ship it; --floor sets another floor."
        )
    return result


def _variants(clips: Iterable[Tensor], *, free: bool) -> Iterator[Tensor]:
    for place, clip in enumerate(clips):
        yield clip
        if place == 0:
            mirrored = clip.clone()
            mirrored[::2] = clip[::2].flip(-1)
            yield mirrored
        if free and place == 0:
            height, width = clip.shape[-2:]
            yield crop_to(clip, height * 2 // 3 | 1, width // 2 | 1)  # odd, so it must be padded


def _pairs(network: SlidingNetwork, exported: ExportedNetwork, clip: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Frames (3, H, W) by the network and by the file, and the low-resolution one."""
    middle, before = clip.shape[0] // 2, network.time_scale - 1
    wanted = windows(clip[None], network.window, before)[0]
    restored: Iterable[Tensor]
    expected: Iterable[tuple[Tensor, Tensor]]
    if exported.streaming:
        restored = exported.stream(clip)
        expected = islice(_expected(network, wanted), before, None)  # nothing is half-way before the first frame
    else:
        # what comes of repeated edges is no matter of the file, and one run is enough of a proof
        restored = exported.run(wanted[middle])
        expected = _expected(network, wanted[middle : middle + 1])
    with torch.inference_mode():
        for (ours, frame), theirs in zip(expected, restored, strict=True):
            yield ours, theirs, frame


def _expected(network: SlidingNetwork, runs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The network's pictures for run after run (N, taken, 3, h, w), each with a frame (3, h, w) to enlarge."""
    for frames in runs:
        last = frames[network.taken - 1 - network.window // 2]
        low = [last] if network.time_scale == 1 else [(frames[network.window // 2] + last) / 2, last]
        for picture, frame in zip(network.run(frames[None]), low, strict=True):
            yield picture[0], frame
