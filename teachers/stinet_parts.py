"""STINet's parts before the graph: features of given frames, of frames between them, and refinement by neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.layers import leaky
from teachers.back_projection import KERNEL_STRIDE_PADDING, ConvBlock, DeconvBlock, DownUnit, ResidualUnit, UpUnit
from teachers.deformable import DeformablePack

__all__ = ["FeatureInterpolation", "LocalRefinement", "SpatialNetwork"]

_GEOMETRY = KERNEL_STRIDE_PADDING[4]


class SpatialNetwork(nn.Module):
    """DBPN (Haris et al., CVPR 2018) up to its feature: (N, 3, h, w) -> (N, out_channels, 4h, 4w).

    Args:
        base_filter: channels of the first convolution.
        channels: of the projection units.
        stages: up-projections, at least 2; a down-projection lies between two of them.
        out_channels: of the feature.
    """

    def __init__(self, base_filter: int, channels: int, stages: int, out_channels: int) -> None:
        super().__init__()
        self.stages = stages
        self.feat0 = ConvBlock(3, base_filter)
        self.feat1 = ConvBlock(base_filter, channels, 1, 1, 0)
        self.up1 = UpUnit(channels)
        for stage in range(1, stages):
            self.add_module(f"down{stage}", DownUnit(channels, stages=stage))
            self.add_module(f"up{stage + 1}", UpUnit(channels, stages=stage))
        self.output_conv1 = ConvBlock(stages * channels, out_channels, activation=None)
        # DBPN's own picture: in every published file, used by nothing
        self.output_conv2 = ConvBlock(out_channels, 3, activation=None)

    def forward(self, frames: Tensor) -> Tensor:
        large: Tensor = self.up1(self.feat1(self.feat0(frames)))  # all so far, the newest first
        small: list[Tensor] = []
        for stage in range(1, self.stages):
            small.insert(0, self.get_submodule(f"down{stage}")(large))
            large = torch.cat((self.get_submodule(f"up{stage + 1}")(torch.cat(small, 1)), large), 1)
        features: Tensor = self.output_conv1(large)
        return features


class FeatureInterpolation(nn.Module):
    """ST-FI (Sec. III-B): features of a frame between two, at both resolutions, through blocks that both share."""

    def __init__(self, channels: int, motion_channels: int, blocks: int) -> None:
        super().__init__()
        self.motion_feat = ConvBlock(4, motion_channels, activation="lrelu")
        self.motion = nn.Sequential(
            ResidualUnit(motion_channels, "lrelu"),
            ResidualUnit(motion_channels, "lrelu"),
            ConvBlock(motion_channels, channels, activation="lrelu"),
        )
        self.enter_l = nn.Sequential(
            DeconvBlock(3 * channels, channels, *_GEOMETRY, "lrelu"), ResidualUnit(channels, "lrelu")
        )
        self.enter_h = ConvBlock(3 * channels, channels, activation="lrelu")
        self.shared = nn.Sequential(*(ResidualUnit(channels, "lrelu") for _ in range(blocks)))
        self.leave_l = nn.Sequential(
            ResidualUnit(channels, "lrelu"), ConvBlock(channels, channels, *_GEOMETRY, "lrelu")
        )
        self.leave_h = nn.Sequential(ResidualUnit(channels, "lrelu"), ConvBlock(channels, channels, activation="lrelu"))

    def forward(
        self, low: tuple[Tensor, Tensor], high: tuple[Tensor, Tensor], to_next: Tensor, to_previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Interpolate between two given frames.

        Args:
            low: features of the frame before and of the one after, (N, C, h, w).
            high: likewise, (N, C, 4h, 4w).
            to_next: flow from the frame between to the one after, (N, 2, h, w) pixels.
            to_previous: flow from it to the one before.

        Returns:
            Its features, (N, C, h, w) and (N, C, 4h, 4w).
        """
        motion = self.motion(self.motion_feat(torch.cat((to_next, to_previous), 1)))
        enlarged = functional.interpolate(motion, scale_factor=4, mode="bilinear", align_corners=True)
        between_low: Tensor = self.leave_l(self.shared(self.enter_l(torch.cat((*low, motion), 1))))
        between_high: Tensor = self.leave_h(self.shared(self.enter_h(torch.cat((*high, enlarged), 1))))
        return between_low, between_high


class LocalRefinement(nn.Module):
    """ST-LR (Sec. III-C): each frame takes from its two neighbours what deformable convolutions align with it.

    The layers "AtB" align the frame before, those "CtB" the frame after. All serve both resolutions: features are
    aligned at low resolution, offsets are predicted at each resolution and then mixed.
    """

    def __init__(self, channels: int, offset_groups: int) -> None:
        super().__init__()
        self.h_down = ConvBlock(channels, channels, *_GEOMETRY, "lrelu")
        self.h_up = DeconvBlock(channels, channels, *_GEOMETRY, "lrelu")
        self.offsetdown = ConvBlock(channels, channels, *_GEOMETRY, "lrelu")
        self.layersAtBOffset = _offset_layers(channels)
        self.layersAtB = DeformablePack(channels, offset_groups)
        self.layersCtBOffset = _offset_layers(channels)
        self.layersCtB = DeformablePack(channels, offset_groups)
        self.conv11AtB = nn.Conv2d(channels * 2, channels, 1)
        self.l_conv11AtB = nn.Conv2d(channels, channels, 1)
        self.h_conv11AtB = nn.Conv2d(channels, channels, 1)
        widths, layers = (3 * channels, 3 * channels, 3 * channels, channels), []
        for width in widths:
            layers += [nn.Conv2d(3 * channels, width, 1), nn.LeakyReLU(0.1)]
        self.layersFusion = nn.Sequential(*layers[:-1])

    def forward(self, low: list[Tensor], high: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Features of consecutive frames, (N, C, h, w) and (N, C, 4h, 4w) each, refined; sizes stay.

        The first frame is its own frame before, the last its own frame after.
        """
        shrunk = [self.h_down(each) for each in high]
        refined_low, refined_high = [], []
        last = len(low) - 1
        for here in range(len(low)):
            aligned = []
            for there, offsets, sample in (
                (max(here - 1, 0), self.layersAtBOffset, self.layersAtB),
                (min(here + 1, last), self.layersCtBOffset, self.layersCtB),
            ):
                offset_low = offsets(torch.cat((low[there], low[here]), 1))
                offset_high = self.offsetdown(offsets(torch.cat((high[there], high[here]), 1)))
                mixed = self.conv11AtB(torch.cat((offset_low, offset_high), 1))
                from_low = leaky(sample(low[there], self.l_conv11AtB(mixed)))
                from_high = leaky(sample(shrunk[there], self.h_conv11AtB(mixed)))
                aligned.append((from_low, self.h_up(from_high)))
            before, after = aligned
            refined_low.append(low[here] + self.layersFusion(torch.cat((before[0], low[here], after[0]), 1)))
            refined_high.append(high[here] + self.layersFusion(torch.cat((before[1], high[here], after[1]), 1)))
        return refined_low, refined_high


def _offset_layers(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels * 2, channels, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
