"""Real frames that exports are calibrated and proven on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data import Clip, degrade

__all__ = ["low_resolution_clips"]

_FRAMES = 7  # of each clip, from its start


def low_resolution_clips(
    clips: Sequence[Clip], degradation: str, scale: int, size: tuple[int, int] | None, count: int = 2
) -> list[Tensor]:
    """Degraded frames of the first clips.

    Args:
        clips: high-resolution clips.
        degradation: a name that `distill.data.degrade` knows.
        scale: how many times smaller the low resolution is.
        size: (height, width) to crop to, the picture being tiled where it is smaller; None leaves it as it is.
        count: of clips at most.

    Returns:
        For each clip (T, 3, h, w) in [0, 1], T at most 7.
    """
    low = []
    for clip in clips[:count]:
        frames = torch.stack([torch.from_numpy(frame) for frame in clip.frames(0, _FRAMES)]).permute(0, 3, 1, 2)
        height, width = (side // scale * scale for side in frames.shape[-2:])
        small = degrade(frames[..., :height, :width].float() / 255, degradation, scale)
        low.append(small if size is None else _tiled(small, size))
    return low


def _tiled(frames: Tensor, size: tuple[int, int]) -> Tensor:
    down, across = (-(-wanted // side) for wanted, side in zip(size, frames.shape[-2:], strict=True))
    return frames.repeat(1, 1, down, across)[..., : size[0], : size[1]].contiguous()
