"""VESPCN (Caballero et al., CVPR 2017): neighbours warped onto the centre frame, then an ESPCN over all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.interfaces import Published, Upsampled, WindowNetwork
from distill.layers import Colour, pad_to_multiple
from students.planes import Planes
from students.vespcn_motion import SubpixelMotion, WideMotion, compensated
from students.vespcn_names import recognise_loseall, recognise_vespcn

__all__ = ["VESPCN", "VESPCNLoSealL"]


class _PlanesVESPCN(WindowNetwork):
    """What the two public forms share: the planes they work on, and sizes that are no multiple of 4."""

    def __init__(self, colour: Colour, window: int, scale: int) -> None:
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"VESPCN needs an odd window, not {window}")
        self.window, self.scale = window, scale
        self.planes = Planes(colour, scale)

    @abstractmethod
    def restore(self, window: Tensor) -> Upsampled:
        """As `reconstruct`, on planes (B, window, C, h, w), h and w multiples of 4; C is 1 (Y) or 3 (RGB)."""

    def reconstruct(self, window: Tensor) -> Upsampled:
        restored = self.restore(self.planes.seen(pad_to_multiple(window, 4)))
        return self.planes.finished(restored, window[:, self.window // 2])


class VESPCN(_PlanesVESPCN):
    """VESPCN as JuheonYi/VESPCN-PyTorch published it: motion of less than a pixel, convolutions at low resolution.

    Nothing is added to what it makes, so a fresh network learns the whole picture.

    Args:
        colour: "y" restores luminance and upsamples the chroma of the middle frame; "rgb" has the same layers on
            three channels, in and out.
        window: odd number of frames seen.
        widths: channels of the 3x3 convolutions in front of the one that the pixel shuffle needs.
        motion_width: channels of the flow estimators.
        scale: spatial factor.

    F^LR is the first convolution's output, (B, widths[0], h, w), where the frames meet. There is no F^SR: the pixel
    shuffle yields the picture, but for a 1x1 convolution.
    """

    hr_channels = None

    width_multiples: ClassVar[Mapping[str, int]] = {"widths": 4, "motion_width": 8}

    def __init__(
        self,
        colour: Colour = "y",
        window: int = 3,
        widths: tuple[int, ...] = (64, 64, 64, 32, 32, 32, 20),
        motion_width: int = 24,
        scale: int = 4,
    ) -> None:
        super().__init__(colour, window, scale)
        self.lr_channels = widths[0]
        planes = self.planes.count
        self.motion = SubpixelMotion(planes, motion_width)
        layers: list[nn.Module] = []
        for before, after in pairwise((planes * window, *widths, planes * scale**2)):
            layers += [_conv(before, after), nn.ReLU(inplace=True)]
        last = nn.Conv2d(planes, planes, 1)
        nn.init.dirac_(last.weight)  # with a negative weight a ReLU before it could never make a bright picture
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.espcn = _ESPCN(*layers, nn.PixelShuffle(scale), last)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return recognise_vespcn(state)

    def restore(self, window: Tensor) -> Upsampled:
        frames, fused = self.espcn(torch.cat(compensated(self.motion, window), 1))
        return Upsampled(frames, None, fused)


class VESPCNLoSealL(_PlanesVESPCN):
    """VESPCN as LoSealL/VideoSuperResolution published it: residual blocks, and a last convolution at full size.

    Nothing is added to what it makes, so a fresh network learns the whole picture.

    Args:
        colour: "rgb", or "y" with the same layers on luminance.
        window: odd number of frames seen.
        channels: of every layer.
        blocks: residual blocks.
        motion_width: channels of the flow estimators.
        scale: spatial factor.

    F^SR is the pixel shuffle's output, (B, channels, scale*h, scale*w), F^LR the first convolution's,
    (B, channels, h, w).
    """

    width_multiples: ClassVar[Mapping[str, int]] = {"channels": 16, "motion_width": 8}

    def __init__(
        self,
        colour: Colour = "rgb",
        window: int = 3,
        channels: int = 64,
        blocks: int = 3,
        motion_width: int = 24,
        scale: int = 4,
    ) -> None:
        super().__init__(colour, window, scale)
        self.hr_channels = self.lr_channels = channels
        planes = self.planes.count
        self.motion = WideMotion(planes, motion_width)
        self.entry = _conv(planes * window, channels)
        self.body = nn.Sequential(*(_PreActivationBlock(channels) for _ in range(blocks)))
        self.expand = _conv(channels, channels * scale**2)
        self.exit = _conv(channels, planes)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return recognise_loseall(state)

    def restore(self, window: Tensor) -> Upsampled:
        frames = compensated(self.motion, window)
        centre = frames.pop(self.window // 2)
        fused = self.entry(torch.cat((*frames, centre), 1))
        features = self.expand(self.body(fused).relu() + fused)
        hr_features = functional.pixel_shuffle(features, self.scale)
        return Upsampled(self.exit(hr_features), hr_features, fused)


class _ESPCN(nn.Sequential):
    """A sequence that also tells what its first two layers, a convolution and its ReLU, made."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        convolution, activation, *others = self
        first = features = activation(convolution(frames))
        for layer in others:
            features = layer(features)
        return features, first


class _PreActivationBlock(nn.Module):
    """ReLU - conv - ReLU - conv plus identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _conv(channels, channels)
        self.conv2.weight.data.mul_(0.1)  # starts near the identity

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.conv2(self.conv1(features.relu()).relu())
        return features + change


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
