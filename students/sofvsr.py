"""SOF-VSR (Wang et al., IEEE TIP 2020): optical flow at high resolution, then reconstruction from drafts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckpointError
from distill.interfaces import Published, Upsampled, WindowNetwork
from distill.layers import Colour, full_precision, pad_to_multiple, warp
from distill.networks.tensor_names import demand, stack_length
from students.initial_weights import blind_to_brightness
from students.planes import PlaneBase, Planes, checked_base

__all__ = ["SOFVSR", "Flows"]

_PIXELS = 31 / 2
"""Pixels that the flow network's unit stands for: the published code counts 2/31 of its training patch of 32."""

_SHUFFLED = 64
"""Channels after each pixel shuffle, whatever the body's width."""


class Flows(NamedTuple):
    """Flows from a frame to its neighbour, (N, 2, H, W), right and down, in 15.5 pixels of their own level.

    Attributes:
        level1: at half the low resolution.
        level2: at the low resolution.
        level3: at the high resolution.
    """

    level1: Tensor
    level2: Tensor
    level3: Tensor


class SOFVSR(WindowNetwork):
    """SOF-VSR in its journal's (TIP) version, equal to the published network under align_corners=True.

    Args:
        window: odd number of frames seen.
        channels: of the body, even.
        flow_blocks: shuffle blocks in each of the flow network's two stacks.
        blocks: shuffle blocks of the reconstruction.
        scale: spatial factor, 2, 3 or 4.
        colour: "y" works on luminance, as published; "rgb" on the three channels.
        base: "none", as published, makes the picture from nothing; "bicubic" adds the bicubic middle frame, at which
            training then starts. For training from scratch, which without it takes long, choose "bicubic".

    F^SR is the input of the last convolution, (B, 64, scale*h, scale*w); F^LR the first layer's output on the
    warped drafts, (B, channels, h, w). An untrained network sees no motion.
    """

    width_multiples: ClassVar[Mapping[str, int]] = {"channels": 32}

    def __init__(
        self,
        window: int = 3,
        channels: int = 320,
        flow_blocks: int = 3,
        blocks: int = 8,
        scale: int = 4,
        colour: Colour = "y",
        base: PlaneBase = "none",
    ) -> None:
        super().__init__()
        if window < 3 or window % 2 == 0 or channels % 2:
            raise ValueError(f"SOF-VSR needs an odd window from 3 ({window}) and even channels ({channels})")
        if scale not in (2, 3, 4):
            raise ValueError(f"SOF-VSR upscales by 2, 3 or 4, not {scale}")
        self.window, self.scale = window, scale
        self.hr_channels, self.lr_channels = _SHUFFLED, channels
        self.base = checked_base(base)
        self.planes = Planes(colour, scale)
        count = self.planes.count
        self.OFR = FlowNetwork(count, channels, flow_blocks, scale)
        self.SR = DraftNetwork(count * (1 + (window - 1) * scale**2), count, channels, blocks, scale)
        if base == "bicubic":
            self.SR.start_silent()

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        if "OFR.RNN1.0.weight" not in state and "SR.body.0.weight" not in state:
            return None
        return Published("sofvsr", _keywords(state), dict(state))

    def reconstruct(self, window: Tensor) -> Upsampled:
        restored = self.restore_planes(self.planes.seen(pad_to_multiple(window, 4)))
        return self.planes.finished(restored, window[:, self.window // 2])

    def restore_planes(self, planes: Tensor) -> Upsampled:
        """The published network itself, sizes as they are.

        Args:
            planes: (N, window, C, h, w) in [0, 1], h and w even; C is 1 for luminance and 3 for RGB.

        Returns:
            `frames` (N, C, scale*h, scale*w), planes like the input's, and the two features.
        """
        middle = planes[:, self.window // 2]
        drafts = self._drafts(self._neighbours(planes), self.flows(planes).level3).reshape(
            middle.shape[0], -1, middle.shape[-2], middle.shape[-1]
        )
        picture, hr_features, lr_features = self.SR(torch.cat((middle, drafts), 1))
        if self.base == "bicubic":
            picture = picture + self.planes.upsample(middle)
        return Upsampled(picture, hr_features, lr_features)

    def flows(self, planes: Tensor) -> Flows:
        """From the middle frame to each neighbour in turn: N is then N * (window - 1), a window's pairs together."""
        middle = planes[:, self.window // 2].repeat_interleave(self.window - 1, 0)
        with full_precision(planes.device.type):  # half precision would move samples by visible parts of a pixel
            flows: Flows = self.OFR(self._neighbours(planes), middle)
        return flows

    def _neighbours(self, planes: Tensor) -> Tensor:
        """Planes (N, window, C, h, w) -> (N * (window - 1), C, h, w), without the middle frame."""
        return torch.cat((planes[:, : self.window // 2], planes[:, self.window // 2 + 1 :]), 1).flatten(0, 1)

    def _drafts(self, frames: Tensor, flow: Tensor) -> Tensor:
        """Frames (M, C, h, w) warped by each of the high-resolution flow's scale^2 phases: (M * scale^2, C, h, w)."""
        phases = self.scale**2
        per_phase = functional.pixel_unshuffle(flow, self.scale).unflatten(1, (2, phases)).transpose(1, 2)
        return warp(
            frames.repeat_interleave(phases, 0), per_phase.flatten(0, 1) * (_PIXELS / self.scale), padding="border"
        )


class FlowNetwork(nn.Module):
    """OFRnet: flow over three levels, the last of which is super-resolved; submodules carry the published names."""

    def __init__(self, count: int, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.RNN1 = nn.Sequential(
            _conv(count * 2 + 2, channels, 3), nn.LeakyReLU(0.1), _ShuffleBlocks(blocks, channels)
        )
        self.RNN2 = nn.Sequential(_conv(channels, 2, 3))
        self.SR = nn.Sequential(_ShuffleBlocks(blocks, channels), *_upsampling(channels, scale), _conv(_SHUFFLED, 2, 3))
        for layer in (self.RNN2[-1], self.SR[-1]):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]  # random motion would tear the frames
        # weak features, or the first steps of training move the frames by tens of pixels
        blind_to_brightness(self.RNN1[0], 0.1)  # type: ignore[arg-type]

    def forward(self, neighbour: Tensor, middle: Tensor) -> Flows:
        """Planes (M, C, h, w), h and w even."""
        small, target = functional.avg_pool2d(neighbour, 2), functional.avg_pool2d(middle, 2)
        still = torch.zeros_like(small[:, :1]).repeat(1, 2, 1, 1)
        level1 = self.RNN2(self.RNN1(torch.cat((small, target, still), 1)))
        guess = _enlarged(level1, 2)
        level2 = self.RNN2(self._seen(neighbour, middle, guess)) + guess
        level3 = self.SR(self._seen(neighbour, middle, level2)) + _enlarged(level2, self.scale)
        return Flows(level1, level2, level3)

    def _seen(self, neighbour: Tensor, middle: Tensor, flow: Tensor) -> Tensor:
        moved = warp(neighbour, flow * _PIXELS, padding="border")
        features: Tensor = self.RNN1(torch.cat((moved, middle, flow), 1))
        return features


class DraftNetwork(nn.Module):
    """SRnet: a picture from the middle frame and its neighbours' drafts; submodules carry the published names."""

    def __init__(self, drafts: int, count: int, channels: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(drafts, channels, 3),
            nn.LeakyReLU(0.1),
            _ShuffleBlocks(blocks, channels),
            *_upsampling(channels, scale),
            nn.Conv2d(_SHUFFLED, count, 3, padding=1),
        )

    def start_silent(self) -> None:
        """Make a picture of zeros, out of features of edges that the blocks pass on: for a base image."""
        blind_to_brightness(self.body[0], 3.0)  # type: ignore[arg-type]  # since edges are weaker than brightness
        for block in self.body[2].modules():
            if isinstance(block, _ShuffleBlock):
                block.start_as_identity()
        last = self.body[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, drafts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, drafts, h, w) -> picture (N, count, scale*h, scale*w), F^SR, F^LR."""
        fused = self.body[:2](drafts)
        features = self.body[2:-1](fused)
        return self.body[-1](features), features, fused


class _ShuffleBlocks(nn.Module):
    def __init__(self, blocks: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(_ShuffleBlock(channels // 2) for _ in range(blocks)))

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.body(features)
        return changed


class _ShuffleBlock(nn.Module):
    """Half of the channels through a separable convolution, the other half past it, then both interleaved."""

    def __init__(self, half: int) -> None:
        super().__init__()
        separable = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        nn.init.kaiming_normal_(separable.weight, nonlinearity="linear")  # no activation follows it
        self.body = nn.Sequential(
            _conv(half, half, 1), nn.LeakyReLU(0.1), separable, _conv(half, half, 1), nn.LeakyReLU(0.1)
        )

    def start_as_identity(self) -> None:
        """But for the activations, and for a rest of what the weights were."""
        for conv in self.body:
            if isinstance(conv, nn.Conv2d):
                identity = nn.init.dirac_(torch.empty_like(conv.weight.data), conv.groups)
                conv.weight.data.mul_(0.3).add_(identity)

    def forward(self, features: Tensor) -> Tensor:
        unchanged, changed = features.chunk(2, 1)
        return torch.stack((unchanged, self.body(changed)), 2).flatten(1, 2)


def _conv(in_channels: int, out_channels: int, side: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    return conv


def _upsampling(channels: int, scale: int) -> list[nn.Module]:
    """Pixel shuffles, twice by 2 for x4, else one."""
    factors = (2, 2) if scale == 4 else (scale,)
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [_conv(channels, _SHUFFLED * factor**2, 1), nn.PixelShuffle(factor), nn.LeakyReLU(0.1)]
        channels = _SHUFFLED
    return layers


def _enlarged(flow: Tensor, factor: int) -> Tensor:
    """Flow at `factor` times the size, where it counts as many times more pixels."""
    height, width = (side * factor for side in flow.shape[-2:])
    return functional.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False) * factor


def _keywords(state: Mapping[str, Tensor]) -> dict[str, Any]:
    last = stack_length(state, "SR.body") - 1
    # the last convolution alone has a bias; it comes after one pixel shuffle or, for x4, after two
    ranks = {"OFR.RNN1.0.weight": 4, "SR.body.0.weight": 4, "SR.body.3.weight": 4, f"SR.body.{last}.bias": 1}
    demand(state, "SOF-VSR", ranks)
    scale = 4 if last == 9 else round((state["SR.body.3.weight"].shape[0] / _SHUFFLED) ** 0.5)
    if last not in (6, 9) or scale not in (2, 3, 4):
        raise CheckpointError(
            f"This SOF-VSR ends with SR.body.{last}; expected the journal's (TIP) version, which ends with SR.body.9 "
            "for x4 and with SR.body.6 for x2 and x3."
        )
    channels, seen = state["OFR.RNN1.0.weight"].shape[:2]
    count = (seen - 2) // 2
    drafts = state["SR.body.0.weight"].shape[1]
    pairs, rest = divmod(drafts - count, scale**2 * max(count, 1))
    if count not in (1, 3) or rest or pairs < 2 or pairs % 2:
        raise CheckpointError(
            f"This SOF-VSR's first layers take {seen} and {drafts} planes; expected 4 and 1 + {scale**2} for each of "
            "an even number of neighbours, or three times as many planes for RGB."
        )
    return {
        "window": pairs + 1,
        "channels": channels,
        "flow_blocks": stack_length(state, "OFR.RNN1.2.body"),
        "blocks": stack_length(state, "SR.body.2.body"),
        "scale": scale,
        "colour": "y" if count == 1 else "rgb",
        "base": "none",
    }
