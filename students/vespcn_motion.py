"""VESPCN's motion compensation (Caballero et al., CVPR 2017, Sec. 3.3): coarse flow, fine flow, bilinear warping.

Both public implementations have the same two estimators and differ in how far a flow reaches and in what order the
tensors stand, which trained weights depend on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from distill.layers import warp

__all__ = ["MotionCompensation", "SubpixelMotion", "WideMotion", "compensated"]


class MotionCompensation(nn.Module, ABC):
    """Moves a neighbour onto the centre frame: the layers; a subclass says what the estimators' numbers mean.

    Args:
        planes: channels of a frame.
        width: channels of the estimators.
    """

    def __init__(self, planes: int, width: int = 24) -> None:
        super().__init__()
        self.coarse = _estimator(2 * planes, width, strides=(2, 1, 2, 1), kernels=(5, 3, 5, 3))
        self.fine = _estimator(3 * planes + 2, width, strides=(2, 1, 1, 1), kernels=(5, 3, 3, 3))

    @abstractmethod
    def forward(self, neighbour: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (N, planes, h, w), h and w multiples of 4 -> the neighbour warped onto the centre, and by what.

        Returns:
            (N, planes, h, w), and the flow (N, 2, h, w) in pixels to the right and down, as `warp` takes it.
        """


class SubpixelMotion(MotionCompensation):
    """As in JuheonYi/VESPCN-PyTorch: each estimator moves a pixel by less than a half."""

    def forward(self, neighbour: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        # tanh over the frame's size, in units of half the frame, and subtracted from where the pixel stands
        size = _width_height(centre)
        to_pixels = -(size - 1) / 2
        coarse = self.coarse(torch.cat((centre, neighbour), 1)) / size
        moved = warp(neighbour, coarse * to_pixels, "border")
        fine = self.fine(torch.cat((centre, neighbour, moved, coarse), 1)) / size
        flow = (coarse + fine) * to_pixels
        return warp(neighbour, flow, "border"), flow


class WideMotion(MotionCompensation):
    """As in LoSealL/VideoSuperResolution: up to 64 pixels, of which the coarse step by itself moves one.

    A flow of zero leaves a frame as it is, as grid_sample had it when that code was written (`align_corners=True`).
    """

    gain = 32

    def forward(self, neighbour: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        size = _width_height(centre)
        to_pixels = (size - 1) / size
        coarse = self.coarse(torch.cat((neighbour, centre), 1))
        moved = warp(neighbour, coarse * to_pixels, "border")
        fine = self.fine(torch.cat((neighbour, centre, coarse, moved), 1))
        flow = (coarse + fine) * self.gain * to_pixels
        return warp(neighbour, flow, "border"), flow


def compensated(motion: MotionCompensation, window: Tensor) -> list[Tensor]:
    """The frames of a window (N, T, C, h, w) in order, each (N, C, h, w), all but the middle one moved onto it."""
    frames = list(window.unbind(1))
    middle = len(frames) // 2
    return [frame if place == middle else motion(frame, frames[middle])[0] for place, frame in enumerate(frames)]


def _estimator(in_channels: int, width: int, strides: tuple[int, ...], kernels: tuple[int, ...]) -> nn.Sequential:
    """Four convolutions at a quarter or a half of the size, a fifth with tanh, and a pixel shuffle back to the size."""
    layers: list[nn.Module] = []
    shrink = 1
    for stride, kernel in zip(strides, kernels, strict=True):
        conv = nn.Conv2d(in_channels, width, kernel, stride, kernel // 2)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        layers += [conv, nn.ReLU(inplace=True)]
        in_channels, shrink = width, shrink * stride
    last = nn.Conv2d(width, 2 * shrink**2, 3, padding=1)
    # Nothing moves at the start: random flows would tear the frames before anything has learnt to read them.
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, last, nn.Tanh(), nn.PixelShuffle(shrink))


def _width_height(frame: Tensor) -> Tensor:
    """(2, 1, 1): width and height, against a flow's two channels."""
    height, width = frame.shape[-2:]
    return torch.stack((frame.new_full((1, 1), width), frame.new_full((1, 1), height)))
