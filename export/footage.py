"""Real frames that exports are calibrated and proven on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.data import Clip, degrade

__all__ = ["FRAMES", "low_resolution_clips", "of_size"]

_FRAMES = 7  # of each clip, from its start


def low_resolution_clips(clips: Sequence[Clip], degradation: str, scale: int, count: int = 2) -> list[Tensor]:
    """Degraded frames of the first clips.

    Args:
        clips: high-resolution clips.
        degradation: a name that `distill.data.degrade` knows.
        scale: how many times smaller the low resolution is.
        count: of clips at most.

    Returns:
        For each clip (T, 3, h, w) in [0, 1], T at most 7.
    """
    low = []
    for clip in clips[:count]:
        frames = torch.stack([torch.from_numpy(frame) for frame in clip.frames(0, _FRAMES)]).permute(0, 3, 1, 2)
        height, width = (side // scale * scale for side in frames.shape[-2:])
        low.append(degrade(frames[..., :height, :width].float() / 255, degradation, scale))
    return low


def of_size(clip: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, 3, h, w) cropped to (height, width), and mirrored where it is smaller: tiles would have hard edges."""
    missing = [(0, max(wanted - side, 0)) for wanted, side in zip(size, clip.shape[-2:], strict=True)]
    mirrored = np.pad(clip.cpu().numpy(), [(0, 0), (0, 0), *missing], mode="symmetric")
    return torch.from_numpy(np.ascontiguousarray(mirrored[..., : size[0], : size[1]]))


FRAMES = 16
"""Of each clip that are measured, at most, unless told otherwise."""
