"""EDVR (Wang et al., CVPRW 2019): deformable alignment over a pyramid, then temporal and spatial attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distill.interfaces import Published, Upsampled, WindowNetwork, windows
from distill.layers import BicubicUpsample, HrTap, PixelShuffleTail, ResidualBlock, crop_to, leaky, pad_to_multiple
from teachers.deformable import DeformablePack
from teachers.edvr_names import recognise_edvr
from teachers.resampling import doubled, pools

__all__ = ["EDVR", "Base"]

Base = Literal["bilinear", "bicubic"]
Pyramid = tuple[Tensor, Tensor, Tensor]
_LEVELS = (3, 2, 1)


class EDVR(WindowNetwork):
    """EDVR for x4 super-resolution, equal to the published networks.

    Args:
        window: odd number of frames seen.
        channels: of the body; the tail always has 64.
        offset_groups: groups of the deformable convolutions; divides `channels`.
        extract_blocks: residual blocks per frame before alignment.
        reconstruct_blocks: residual blocks after fusion.
        attention: temporal and spatial attention (TSA) fuse the frames; a 1x1 convolution where False.
        base: what the residual is added to. The published networks use "bilinear"; STD's text says "bicubic".
        hr_tap: where F^SR is read, see `PixelShuffleTail`.

    F^LR is the fused feature, (B, channels, h, w).
    """

    def __init__(
        self,
        window: int = 5,
        channels: int = 64,
        offset_groups: int = 8,
        extract_blocks: int = 5,
        reconstruct_blocks: int = 10,
        attention: bool = True,
        base: Base = "bilinear",
        hr_tap: HrTap = "conv_last",
    ) -> None:
        super().__init__()
        if window % 2 == 0 or channels % offset_groups:
            raise ValueError(f"EDVR needs an odd window ({window}) and groups ({offset_groups}) dividing {channels}")
        if base not in get_args(Base):
            raise ValueError(f"base is {base!r}, expected one of {get_args(Base)}")
        self.window = window
        self.lr_channels, self.hr_channels = channels, PixelShuffleTail.hr_channels
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.feature_extraction = nn.Sequential(*(ResidualBlock(channels) for _ in range(extract_blocks)))
        self.conv_l2_1 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.conv_l2_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_l3_1 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.conv_l3_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.pcd_align = PyramidAlignment(channels, offset_groups)
        self.fusion: nn.Module = (
            TemporalSpatialAttention(window, channels) if attention else nn.Conv2d(window * channels, channels, 1)
        )
        self.attention = attention
        self.reconstruction = nn.Sequential(*(ResidualBlock(channels) for _ in range(reconstruct_blocks)))
        self.tail = PixelShuffleTail(channels, hr_tap)
        self.upsample_base: nn.Module = (
            BicubicUpsample(self.scale)
            if base == "bicubic"
            else nn.Upsample(scale_factor=self.scale, mode="bilinear", align_corners=False)
        )

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return recognise_edvr(state)

    def reconstruct(self, window: Tensor) -> Upsampled:
        padded = pad_to_multiple(window, 4)
        levels = self._pyramid(padded.flatten(0, 1))
        batch = window.shape[0]
        per_window = [level.unflatten(0, (batch, self.window)) for level in levels]
        return self._restore(per_window, window[:, self.window // 2])

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but each frame's feature pyramid, which `window` windows share, is computed once."""
        batch, length = clip.shape[:2]
        levels = self._pyramid(pad_to_multiple(clip, 4).flatten(0, 1))
        per_window = [windows(level.unflatten(0, (batch, length)), self.window).flatten(0, 1) for level in levels]
        restored = self._restore(per_window, clip.flatten(0, 1))
        return restored.map(lambda field: field.unflatten(0, (batch, length)))

    def _pyramid(self, frames: Tensor) -> Pyramid:
        """(N, 3, h, w) -> features at full, half and quarter size."""
        level1 = self.feature_extraction(leaky(self.conv_first(frames)))
        level2 = leaky(self.conv_l2_2(leaky(self.conv_l2_1(level1))))
        level3 = leaky(self.conv_l3_2(leaky(self.conv_l3_1(level2))))
        return level1, level2, level3

    def _restore(self, levels: list[Tensor], middle: Tensor) -> Upsampled:
        """Pyramids of whole windows (N, window, C, h, w) and their middle frames (N, 3, h, w)."""
        count = middle.shape[0]
        neighbours = [level.flatten(0, 1) for level in levels]
        centre = [level[:, self.window // 2].repeat_interleave(self.window, 0) for level in levels]
        aligned = self.pcd_align(neighbours, centre).unflatten(0, (count, self.window))
        fused = self.fusion(aligned if self.attention else aligned.flatten(1, 2))
        residual, hr_features = self.tail(self.reconstruction(fused))
        height, width = middle.shape[-2:]
        high = (height * self.scale, width * self.scale)
        frames = crop_to(residual, *high) + self.upsample_base(middle)
        return Upsampled(frames, crop_to(hr_features, *high), crop_to(fused, height, width))


class PyramidAlignment(nn.Module):
    """PCD: aligns a neighbour's features with the centre's, coarse to fine, then once more (the cascade)."""

    def __init__(self, channels: int, offset_groups: int) -> None:
        super().__init__()
        self.offset_conv1 = nn.ModuleDict()
        self.offset_conv2 = nn.ModuleDict()
        self.offset_conv3 = nn.ModuleDict()
        self.dcn_pack = nn.ModuleDict()
        self.feat_conv = nn.ModuleDict()
        for level in _LEVELS:
            name = f"l{level}"
            self.offset_conv1[name] = nn.Conv2d(channels * 2, channels, 3, padding=1)
            self.dcn_pack[name] = DeformablePack(channels, offset_groups)
            if level == 3:
                self.offset_conv2[name] = nn.Conv2d(channels, channels, 3, padding=1)
                continue
            self.offset_conv2[name] = nn.Conv2d(channels * 2, channels, 3, padding=1)
            self.offset_conv3[name] = nn.Conv2d(channels, channels, 3, padding=1)
            self.feat_conv[name] = nn.Conv2d(channels * 2, channels, 3, padding=1)
        self.cas_offset_conv1 = nn.Conv2d(channels * 2, channels, 3, padding=1)
        self.cas_offset_conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.cas_dcnpack = DeformablePack(channels, offset_groups)

    def forward(self, neighbour: list[Tensor], centre: list[Tensor]) -> Tensor:
        """Pyramids (full, half, quarter) of (N, C, h, w) -> the neighbour aligned, (N, C, h, w)."""
        offset = features = None
        for level in _LEVELS:
            name, source = f"l{level}", neighbour[level - 1]
            guess = leaky(self.offset_conv1[name](torch.cat((source, centre[level - 1]), 1)))
            if offset is None or features is None:
                offset = leaky(self.offset_conv2[name](guess))
                features = leaky(self.dcn_pack[name](source, offset))
                continue
            # offsets count pixels, so twice the size means twice the offset
            guess = leaky(self.offset_conv2[name](torch.cat((guess, doubled(offset) * 2), 1)))
            offset = leaky(self.offset_conv3[name](guess))
            sampled = self.dcn_pack[name](source, offset)
            features = self.feat_conv[name](torch.cat((sampled, doubled(features)), 1))
            if level > 1:
                features = leaky(features)
        assert features is not None
        offset = leaky(self.cas_offset_conv1(torch.cat((features, centre[0]), 1)))
        aligned: Tensor = self.cas_dcnpack(features, leaky(self.cas_offset_conv2(offset)))
        return leaky(aligned)


class TemporalSpatialAttention(nn.Module):
    """TSA: weighs aligned frames by their likeness to the centre, fuses them, and weighs the result in space."""

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.middle = window // 2
        self.temporal_attn1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.temporal_attn2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.feat_fusion = nn.Conv2d(window * channels, channels, 1)
        self.spatial_attn1 = nn.Conv2d(window * channels, channels, 1)
        self.spatial_attn2 = nn.Conv2d(channels * 2, channels, 1)
        self.spatial_attn3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.spatial_attn4 = nn.Conv2d(channels, channels, 1)
        self.spatial_attn5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.spatial_attn_l1 = nn.Conv2d(channels, channels, 1)
        self.spatial_attn_l2 = nn.Conv2d(channels * 2, channels, 3, padding=1)
        self.spatial_attn_l3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.spatial_attn_add1 = nn.Conv2d(channels, channels, 1)
        self.spatial_attn_add2 = nn.Conv2d(channels, channels, 1)

    def forward(self, aligned: Tensor) -> Tensor:
        """(B, window, C, h, w) -> (B, C, h, w)."""
        batch, window = aligned.shape[:2]
        reference = self.temporal_attn1(aligned[:, self.middle])
        embedded = self.temporal_attn2(aligned.flatten(0, 1)).unflatten(0, (batch, window))
        likeness = (embedded * reference[:, None]).sum(2, keepdim=True).sigmoid()
        weighed = (aligned * likeness).flatten(1, 2)
        features = leaky(self.feat_fusion(weighed))
        attention = leaky(self.spatial_attn2(pools(leaky(self.spatial_attn1(weighed)))))
        level = pools(leaky(self.spatial_attn_l1(attention)))
        level = leaky(self.spatial_attn_l3(leaky(self.spatial_attn_l2(level))))
        attention = leaky(self.spatial_attn3(attention)) + doubled(level)
        attention = self.spatial_attn5(doubled(leaky(self.spatial_attn4(attention))))
        shift = self.spatial_attn_add2(leaky(self.spatial_attn_add1(attention)))
        weighted: Tensor = features * attention.sigmoid() * 2 + shift
        return weighted
