"""SPyNet (Ranjan and Black, CVPR 2017): optical flow, coarse to fine over a pyramid of pictures."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.layers import full_precision, warp

__all__ = ["SPyNet"]

_LEVELS = 6


class SPyNet(nn.Module):
    """Flow of one frame to another; six levels, so the pictures are worked on at multiples of 32 pixels.

    Submodules carry BasicSR's names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(_Level() for _ in range(_LEVELS))
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two pictures (N, 3, h, w), RGB in [0, 1] -> flow (N, 2, h, w) with first(p) ~ second(p + flow(p)).

        The flow is in pixels, to the right and down, and in float32.
        """
        height, width = first.shape[-2:]
        multiple = 2 ** (_LEVELS - 1)
        size = (height + -height % multiple, width + -width % multiple)
        # a flow of ten pixels rounds by several hundredths in half precision, and every level adds to it
        with full_precision(first.device.type):
            first, second = (
                functional.interpolate((frame.float() - self.mean) / self.std, size, mode="bilinear")
                for frame in (first, second)
            )
            flow = functional.interpolate(self._flow(first, second), (height, width), mode="bilinear")
        return torch.stack((flow[:, 0] * (width / size[1]), flow[:, 1] * (height / size[0])), 1)

    def _flow(self, first: Tensor, second: Tensor) -> Tensor:
        """The same for normalised pictures whose sides are multiples of 32."""
        pyramid = [(first, second)]
        for _ in range(_LEVELS - 1):
            first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
            pyramid.append((first, second))
        flow = first.new_zeros(first.shape[0], 2, *first.shape[-2:])
        for level, (module, (first, second)) in enumerate(zip(self.basic_module, reversed(pyramid), strict=True)):
            if level:
                flow = 2 * functional.interpolate(flow, first.shape[-2:], mode="bilinear", align_corners=True)
            seen = torch.cat((first, warp(second, flow, padding="border"), flow), 1)
            flow = flow + module(seen)
        return flow


class _Level(nn.Module):
    """What one level adds to the flow: five 7x7 convolutions, (N, 8, h, w) -> (N, 2, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 32, 64, 32, 16, 2)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            conv = nn.Conv2d(before, after, 7, padding=3)
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU()]
        nn.init.zeros_(conv.weight)  # an untrained network sees no motion
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, seen: Tensor) -> Tensor:
        return self.basic_module(seen)  # type: ignore[no-any-return]
