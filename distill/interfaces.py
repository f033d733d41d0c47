"""What a network must be to teach or to learn.

A *clip* is a float tensor (B, T, 3, h, w): B clips of T consecutive low-resolution frames, RGB in [0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Upsampled", "VideoNetwork", "WindowNetwork", "windows"]


class Upsampled(NamedTuple):
    """What a network makes of a clip, with the two features that distillation uses.

    Shapes for a clip of T frames, T' = time_scale * (T - 1) + 1; one middle frame (no T' axis) for a window.

    Attributes:
        frames: (B, T', 3, scale*h, scale*w), RGB, nominally in [0, 1] but not clamped.
        hr_features: F^SR, (B, T', C, scale*h, scale*w), what the last convolution turns into a picture.
        lr_features: F^LR, (B, T', C', h, w), aligned and fused, before the reconstruction backbone.
    """

    frames: Tensor
    hr_features: Tensor
    lr_features: Tensor


class VideoNetwork(nn.Module, ABC):
    """A network that turns a low-resolution clip into a high-resolution one.

    Attributes:
        scale: spatial factor.
        time_scale: 1, or 2 when a frame is also inserted between neighbours.
        hr_channels: channels of F^SR.
        lr_channels: channels of F^LR.
    """

    scale: int = 4
    time_scale: int = 1
    hr_channels: int
    lr_channels: int

    @abstractmethod
    def forward(self, clip: Tensor) -> Upsampled:
        """Restore every frame of a clip (B, T, 3, h, w) in [0, 1]."""

    @abstractmethod
    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Restore frames (3, h, w) one by one, in order, as `forward` would, yielding (3, scale*h, scale*w).

        Never holds more than the network's temporal reach, so a video of any length fits.
        """


class WindowNetwork(VideoNetwork):
    """A network that sees an odd `window` of frames and restores the middle one.

    Only `reconstruct` must be written; sliding over a clip, edge frames repeated, is inherited. A subclass may
    override `forward` by an equal path that does once what neighbouring windows share.
    """

    window: int

    @abstractmethod
    def reconstruct(self, window: Tensor) -> Upsampled:
        """Restore the middle frame of a window (B, window, 3, h, w): the fields have no T' axis.

        Sizes that are no multiple of 4 are padded by repeating the last row and column, and cropped again.
        """

    def forward(self, clip: Tensor) -> Upsampled:
        batch, length = clip.shape[:2]
        stacked = windows(clip, self.window).flatten(0, 1)
        restored = self.reconstruct(stacked)
        return Upsampled(*(field.unflatten(0, (batch, length)) for field in restored))

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        ring: deque[Tensor] = deque(maxlen=self.window)
        for frame in _repeat_edges(frames, self.window // 2):
            ring.append(frame)
            if len(ring) == self.window:
                yield self.reconstruct(torch.stack(tuple(ring)).unsqueeze(0)).frames[0]


def windows(clip: Tensor, window: int) -> Tensor:
    """Every frame's window, the edge frames repeated ("duplicating these frames", STD Sec. 3.1).

    Args:
        clip: (B, T, ...).
        window: odd number of frames.

    Returns:
        (B, T, window, ...).
    """
    reach, length = window // 2, clip.shape[1]
    offsets = torch.arange(-reach, reach + 1, device=clip.device)
    index = (torch.arange(length, device=clip.device)[:, None] + offsets).clamp(0, length - 1)
    return clip[:, index]


def _repeat_edges(frames: Iterable[Tensor], times: int) -> Iterator[Tensor]:
    """The frames, the first and the last of them `times` times more."""
    last = None
    for frame in frames:
        if last is None:
            yield from [frame] * times
        yield frame
        last = frame
    if last is not None:
        yield from [last] * times
