"""FastDVDnet (Tassano et al., CVPR 2020) made to upscale, the main student of Space-Time Distillation.

The paper leaves its change to a supplement that is not to be had; this reading reproduces its 0.06 T multiply-
accumulates: the denoiser's two stages without noise map, 64 channels out of the second, ten residual blocks, EDVR's
pixel-shuffle tail, and a bicubic base image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.interfaces import Memory, StreamStep, Upsampled, WindowNetwork, windows
from distill.layers import BicubicUpsample, HrTap, PixelShuffleTail, ResidualBlock, crop_to, pad_to_multiple

__all__ = ["FastDVDnet"]


class FastDVDnet(WindowNetwork):
    """FastDVDnet for x4 super-resolution of 7-frame windows.

    One denoising block sees the triplets (0, 1, 2), (2, 3, 4) and (4, 5, 6), a second one fuses the three results.

    Args:
        channels: in front of the reconstruction backbone and in it; 64, 32 and 16 are the paper's Table 6.
        blocks: residual blocks of the backbone.
        widths: channels of the denoising blocks at full, half and quarter size.
        frame_channels: channels that each frame of a triplet gets before they are mixed.
        hr_tap: where F^SR is read, see `PixelShuffleTail`.

    F^LR is the second stage's output, (B, channels, h, w).
    """

    window = 7

    width_multiples: ClassVar[Mapping[str, int]] = {"channels": 16, "widths": 16, "frame_channels": 2}

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 10,
        widths: tuple[int, int, int] = (32, 64, 128),
        frame_channels: int = 30,
        hr_tap: HrTap = "conv_last",
    ) -> None:
        super().__init__()
        self.lr_channels, self.hr_channels = channels, PixelShuffleTail.hr_channels
        self.temp1 = DenoisingBlock(3, 3, widths, frame_channels)
        nn.init.zeros_(self.temp1.outc.convblock[-1].weight)  # type: ignore[arg-type]  # the first stage starts by passing its middle frame on
        self.temp2 = DenoisingBlock(3, channels, widths, frame_channels)
        self.backbone = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.tail = PixelShuffleTail(channels, hr_tap)
        self.upsample_base = BicubicUpsample(self.scale)

    def reconstruct(self, window: Tensor) -> Upsampled:
        padded = pad_to_multiple(window, 4)
        first = [self._first_stage(padded[:, start : start + 3]) for start in (0, 2, 4)]
        return self._restore(torch.stack(first, 1), window[:, 3])

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but the first stage, which up to three windows share, runs once per frame."""
        batch, length = clip.shape[:2]
        positions = torch.arange(-2, length + 2, device=clip.device)[:, None]
        triplets = (positions + torch.arange(-1, 2, device=clip.device)).clamp(0, length - 1)
        first = self._first_stage(pad_to_multiple(clip, 4)[:, triplets].flatten(0, 1))
        per_window = windows(first.unflatten(0, (batch, length + 4)), 5)[:, 2:-2, ::2]  # results at t-2, t, t+2
        restored = self._restore(per_window.flatten(0, 1), clip.flatten(0, 1))
        return restored.map(lambda field: field.unflatten(0, (batch, length)))

    def step(self) -> StreamStep:
        return _Step(self)

    def _first_stage(self, triplet: Tensor) -> Tensor:
        """(N, 3 frames, 3, h, w) -> the middle frame's estimate, (N, 3, h, w)."""
        noise: Tensor = self.temp1(triplet)
        return triplet[:, 1] - noise

    def _restore(self, estimates: Tensor, middle: Tensor) -> Upsampled:
        """First-stage results (N, 3 frames, 3, H, W), padded sizes, and middle frames (N, 3, h, w)."""
        fused = self.temp2(estimates)
        residual, hr_features = self.tail(self.backbone(fused))
        height, width = middle.shape[-2:]
        high = (height * self.scale, width * self.scale)
        frames = crop_to(residual, *high) + self.upsample_base(middle)
        return Upsampled(frames, crop_to(hr_features, *high), crop_to(fused, height, width))


class _Step(StreamStep):
    """Runs the first stage once per frame; the second takes its results for every other frame."""

    memories = (Memory("frames", 3, 3), Memory("estimates", 3, 4, multiple=4))

    def __init__(self, network: FastDVDnet) -> None:
        super().__init__()
        self.network = network

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        frames, estimates = memories
        frames = torch.cat((frames, frame), 1)
        triplet = pad_to_multiple(frames[:, 3:].unflatten(1, (3, 3)), 4)
        return frames, torch.cat((estimates, self.network._first_stage(triplet)), 1)

    def restore(self, *known: Tensor) -> Upsampled:
        frames, estimates = known
        return self.network._restore(estimates.unflatten(1, (5, 3))[:, ::2], frames[:, :3])


class DenoisingBlock(nn.Module):
    """A two-level U-Net over three frames; submodules carry the published names."""

    def __init__(self, in_channels: int, out_channels: int, widths: tuple[int, int, int], frame_channels: int) -> None:
        super().__init__()
        full, half, quarter = widths
        self.inc = _Named(
            *_conv_norm(3 * in_channels, 3 * frame_channels, groups=3), *_conv_norm(3 * frame_channels, full)
        )
        self.downc0 = _Named(*_conv_norm(full, half, stride=2), _pair(half))
        self.downc1 = _Named(*_conv_norm(half, quarter, stride=2), _pair(quarter))
        self.upc2 = _Named(_pair(quarter), _conv(quarter, half * 4), nn.PixelShuffle(2))
        self.upc1 = _Named(_pair(half), _conv(half, full * 4), nn.PixelShuffle(2))
        self.outc = _Named(*_conv_norm(full, full), _conv(full, out_channels))
        for deep in (self.upc1, self.upc2):
            # The deep branches start silent: their random sum would drown the detail that the shallow one carries,
            # and a student then takes over a thousand steps to beat its base image instead of two hundred.
            nn.init.zeros_(deep.convblock[1].weight)  # type: ignore[arg-type]

    def forward(self, triplet: Tensor) -> Tensor:
        """(N, 3, in_channels, h, w) -> (N, out_channels, h, w); h and w are multiples of 4."""
        return self.outc(self.features(triplet))  # type: ignore[no-any-return]

    def features(self, triplet: Tensor) -> Tensor:
        """The sum of all levels, (N, full width, h, w), that the last two convolutions turn into the output."""
        full = self.inc(triplet.flatten(1, 2))
        half = self.downc0(full)
        quarter = self.downc1(half)
        half = half + self.upc2(quarter)
        return full + self.upc1(half)  # type: ignore[no-any-return]


class _Named(nn.Module):
    """A sequence under the name `convblock`, as the published checkpoints have it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.convblock = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        return self.convblock(features)  # type: ignore[no-any-return]


def _conv(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


def _conv_norm(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = _conv(in_channels, out_channels, stride, groups)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _pair(channels: int) -> _Named:
    return _Named(*_conv_norm(channels, channels), *_conv_norm(channels, channels))
