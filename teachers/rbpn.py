"""RBPN (Haris et al., CVPR 2019): back-projection, repeated for every neighbour of the frame to be restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distill.interfaces import Published, Upsampled, WindowNetwork
from distill.layers import BicubicUpsample
from distill.networks.optical_flow import FlowMethod, estimate_flow
from teachers.back_projection import (
    KERNEL_STRIDE_PADDING,
    ConvBlock,
    DeconvBlock,
    DownUnit,
    ResidualUnit,
    UpUnit,
    initialise,
)
from teachers.rbpn_names import recognise_rbpn

__all__ = ["RBPN", "Base", "Head", "ProjectionNetwork", "RecurrentProjection"]

Base = Literal["none", "bicubic"]
Head = Literal["split", "published"]
_SPLIT_CHANNELS = 64


class ProjectionNetwork(nn.Module):
    """RBPN's DBPN, three up- and two down-projections: (N, C, h, w) -> (N, C, scale*h, scale*w).

    `feat1`, which brings its input to C channels, is called from outside, because its output is RBPN's F^LR.
    """

    def __init__(self, base_filter: int, channels: int, scale: int) -> None:
        super().__init__()
        self.feat1 = ConvBlock(base_filter, channels, 1, 1, 0)
        self.up1 = UpUnit(channels, scale)
        self.down1 = DownUnit(channels, scale)
        self.up2 = UpUnit(channels, scale)
        self.down2 = DownUnit(channels, scale)
        self.up3 = UpUnit(channels, scale)
        self.output = ConvBlock(channels * 3, channels, 1, 1, 0, None)

    def forward(self, features: Tensor) -> Tensor:
        first: Tensor = self.up1(features)
        second: Tensor = self.up2(self.down1(first))
        third: Tensor = self.up3(self.down2(second))
        return self.output(torch.cat((third, second, first), 1))  # type: ignore[no-any-return]


class RecurrentProjection(nn.Module):
    """RBPN up to its last convolution; inherited rather than held, so that the published names stay at the top."""

    def __init__(self, base_filter: int, channels: int, res_blocks: int, scale: int) -> None:
        super().__init__()
        if scale not in KERNEL_STRIDE_PADDING:
            raise ValueError(f"scale is {scale}, expected one of {tuple(KERNEL_STRIDE_PADDING)}")
        geometry = KERNEL_STRIDE_PADDING[scale]
        self.feat0 = ConvBlock(3, base_filter)
        self.feat1 = ConvBlock(8, base_filter)
        self.DBPN = ProjectionNetwork(base_filter, channels, scale)
        self.res_feat1 = nn.Sequential(
            *(ResidualUnit(base_filter) for _ in range(res_blocks)), DeconvBlock(base_filter, channels, *geometry)
        )
        self.res_feat2 = nn.Sequential(
            *(ResidualUnit(channels) for _ in range(res_blocks)), ConvBlock(channels, channels)
        )
        self.res_feat3 = nn.Sequential(
            *(ResidualUnit(channels) for _ in range(res_blocks)), ConvBlock(channels, base_filter, *geometry)
        )

    def project(
        self, centre: Tensor, neighbours: Sequence[Tensor], flows: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Fuse the centre frame with one neighbour after another.

        Args:
            centre: (N, 3, h, w).
            neighbours: frames of the same shape.
            flows: (N, 2, h, w) each, from the centre to the neighbour.

        Returns:
            The state H (N, C, scale*h, scale*w) after each neighbour, and the last of them at low resolution,
            (N, C, h, w), from which a further neighbour would be projected.
        """
        states: list[Tensor] = []
        small = self.DBPN.feat1(self.feat0(centre))
        for neighbour, flow in zip(neighbours, flows, strict=True):
            single: Tensor = self.DBPN(small)
            pair = self.res_feat1(self.feat1(torch.cat((centre, neighbour, flow), 1)))
            states.append(single + self.res_feat2(single - pair))
            small = self.DBPN.feat1(self.res_feat3(states[-1]))
        return states, small


class RBPN(RecurrentProjection, WindowNetwork):
    """RBPN, equal to the published networks.

    Args:
        window: odd number of frames seen.
        base_filter: channels of the low-resolution branches.
        channels: of each state H.
        res_blocks: residual blocks in each of the three residual branches.
        scale: 2, 4 or 8.
        base: "bicubic" adds the upsampled middle frame (`--residual` of the published code, which resizes with PIL).
        head: "published" makes the picture of all states by one convolution, and F^SR is the states side by side,
            (window - 1) * channels; "split" puts 64 channels, its F^SR, between the states and the picture.
        flow: how the optical flow is estimated.

    F^LR is the last state brought to low resolution by res_feat3 and DBPN.feat1, (B, channels, h, w): every neighbour
    is in it, and it is as wide as most students' features. The published code computes res_feat3 there, too, unused.
    """

    def __init__(
        self,
        window: int = 7,
        base_filter: int = 256,
        channels: int = 64,
        res_blocks: int = 5,
        scale: int = 4,
        base: Base = "none",
        head: Head = "split",
        flow: FlowMethod = "torch",
    ) -> None:
        if window % 2 == 0 or window < 3:
            raise ValueError(f"window is {window}, expected an odd number from 3 on")
        for name, value, known in (("base", base, Base), ("head", head, Head), ("flow", flow, FlowMethod)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}, expected one of {get_args(known)}")
        super().__init__(base_filter, channels, res_blocks, scale)
        self.window, self.scale, self.flow = window, scale, flow
        states = (window - 1) * channels
        self.lr_channels, self.hr_channels = channels, _SPLIT_CHANNELS if head == "split" else states
        self.to_features: nn.Module = (
            ConvBlock(states, _SPLIT_CHANNELS, activation=None) if head == "split" else nn.Identity()
        )
        self.output = ConvBlock(self.hr_channels, 3, activation=None)
        self.upsample_base = BicubicUpsample(scale) if base == "bicubic" else None
        initialise(self)
        if base == "bicubic":
            nn.init.zeros_(self.output.conv.weight)  # an untrained network is its base image, not noise

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return recognise_rbpn(state)

    def restore(self, centre: Tensor, neighbours: Sequence[Tensor], flows: Sequence[Tensor]) -> Upsampled:
        """As `reconstruct`, the flows given.

        Args:
            centre: (N, 3, h, w).
            neighbours: window - 1 frames of the same shape, in order of time.
            flows: (N, 2, h, w) each, pixels: centre(p) ~ neighbour(p + flow(p)).
        """
        states, lr_features = self.project(centre, neighbours, flows)
        hr_features = self.to_features(torch.cat(states, 1))
        frames: Tensor = self.output(hr_features)
        if self.upsample_base is not None:
            frames = frames + self.upsample_base(centre)
        return Upsampled(frames, hr_features, lr_features)

    def reconstruct(self, window: Tensor) -> Upsampled:
        middle = self.window // 2
        others = [index for index in range(self.window) if index != middle]
        flows = self._flows(window, [(middle, index) for index in others])
        return self.restore(window[:, middle], window[:, others].unbind(1), [flows[middle, index] for index in others])

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but each flow is estimated once, and none where a repeated edge frame meets itself."""
        batch, length = clip.shape[:2]
        reach = self.window // 2
        others = [offset for offset in range(-reach, reach + 1) if offset]
        places = [[min(max(time + offset, 0), length - 1) for time in range(length)] for offset in others]
        pairs = [(time, place) for row in places for time, place in enumerate(row)]
        known = self._flows(clip, sorted({pair for pair in pairs if pair[0] != pair[1]}))
        still = clip.new_zeros(batch, 2, *clip.shape[-2:])
        flows = [
            torch.stack([known.get((time, place), still) for time, place in enumerate(row)], 1).flatten(0, 1)
            for row in places
        ]
        neighbours = [clip[:, row].flatten(0, 1) for row in places]
        restored = self.restore(clip.flatten(0, 1), neighbours, flows)
        return restored.map(lambda field: field.unflatten(0, (batch, length)))

    def _flows(self, clip: Tensor, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Tensor]:
        """Flow (B, 2, h, w) between frames (B, T, 3, h, w), by (from, to)."""
        if not pairs:
            return {}
        first, second = (clip[:, list(frames)] for frames in zip(*pairs, strict=True))
        flows = estimate_flow(first.flatten(0, 1), second.flatten(0, 1), self.flow).to(clip.dtype)
        # a window cannot tell a repeated edge from a still scene: equal frames have no flow, whatever is estimated
        moves = (first != second).flatten(2).any(2)[:, :, None, None, None]
        moving = flows.unflatten(0, first.shape[:2]) * moves
        return dict(zip(pairs, moving.unbind(1), strict=True))
