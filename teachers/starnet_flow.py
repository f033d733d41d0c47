"""STARnet's networks beside its main path: flow refinement and the pyramid that interpolates at high resolution."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.layers import crop_to
from teachers.back_projection import ConvBlock, DeconvBlock, ResidualUnit

__all__ = ["FlowRefinement", "PyramidModule"]

_SMALLEST = 32


class PyramidModule(nn.Module):
    """Three resolutions that meet after every residual unit; (N, C, H, W) in and out, H and W multiples of 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for level, units in ((1, 5), (2, 4), (3, 3)):
            for unit in range(1, units + 1):
                self.add_module(f"l{level}_{unit}", ResidualUnit(channels * 2 ** (level - 1), "lrelu"))
        self.down1 = ConvBlock(channels, channels * 2, 4, 2, 1, "lrelu")
        self.down2 = ConvBlock(channels * 2, channels * 4, 4, 2, 1, "lrelu")
        self.up1 = DeconvBlock(channels * 2, channels, 4, 2, 1, "lrelu")
        self.up2 = DeconvBlock(channels * 4, channels * 2, 4, 2, 1, "lrelu")
        self.final = ConvBlock(channels, channels, activation="lrelu")

    def forward(self, features: Tensor) -> Tensor:
        unit = self.get_submodule
        full = unit("l1_1")(features)
        half = unit("l2_1")(self.down1(full))
        quarter = unit("l3_1")(self.down2(half))
        for place in (2, 3, 4):
            full = unit(f"l1_{place}")(full + self.up1(half))
            half = unit(f"l2_{place}")(half + self.down1(full) + self.up2(quarter))
            if place < 4:
                quarter = unit(f"l3_{place}")(quarter + self.down2(half))
        return self.final(unit("l1_5")(full + self.up1(half)))  # type: ignore[no-any-return]


class FlowRefinement(nn.Module):
    """A U-Net that corrects scaled optical flow from the flow and both its frames.

    Args:
        width: channels of its first level; 64 in the published networks.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.inc = _Wrapped("conv", _DoubleConv(8, width))
        widths = [width, width * 2, width * 4, width * 8, width * 16, width * 16]
        for level, (before, after) in enumerate(pairwise(widths), 1):
            block = nn.Sequential(nn.MaxPool2d(2), _DoubleConv(before, after))
            self.add_module(f"down{level}", _Wrapped("mpconv", block))
        self.up1 = _Up(width * 32, width * 8)
        self.up2 = _Up(width * 16, width * 4)
        self.up3 = _Up(width * 8, width * 2)
        self.up4 = _Up(width * 4, width)
        self.up5 = _Up(width * 2, width)
        self.outc = _Wrapped("conv", nn.Conv2d(width, 2, 1))

    def forward(self, flow: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Flow (N, 2, h, w) between two frames (N, 3, h, w) -> the better flow, of any size."""
        height, width = flow.shape[-2:]
        stacked = torch.cat((flow, first, second), 1)
        # five halvings leave nothing of less than 32; larger sizes stay as they are, because padding changes results
        below, right = max(_SMALLEST - height, 0), max(_SMALLEST - width, 0)
        if below or right:
            stacked = functional.pad(stacked, (0, right, 0, below), mode="replicate")
        levels = [self.inc(stacked)]
        for level in range(1, 6):
            levels.append(self.get_submodule(f"down{level}")(levels[-1]))
        features = levels.pop()
        for level in range(1, 6):
            features = self.get_submodule(f"up{level}")(features, levels.pop())
        change: Tensor = self.outc(features).sigmoid()
        return flow + crop_to(change, height, width)


class _DoubleConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features)  # type: ignore[no-any-return]


class _Up(nn.Module):
    """The coarser level doubled, zeros around it where the finer one is odd, and both convolved."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _DoubleConv(in_channels, out_channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        coarse = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=True)
        below, right = (larger - side for larger, side in zip(fine.shape[-2:], coarse.shape[-2:], strict=True))
        coarse = functional.pad(coarse, (right // 2, right - right // 2, below // 2, below - below // 2))
        return self.conv(torch.cat((fine, coarse), 1))  # type: ignore[no-any-return]


class _Wrapped(nn.Module):
    """One module under one more name, as the published files have it."""

    def __init__(self, name: str, inside: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inside)
        self.inside = name

    def forward(self, features: Tensor) -> Tensor:
        return self.get_submodule(self.inside)(features)  # type: ignore[no-any-return]
