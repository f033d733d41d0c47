"""STINet (Yue et al., 2023): doubles the frame rate and upscales, features of both resolutions refining each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.interfaces import ClipNetwork, Intermediates, Published, Upsampled
from distill.layers import BicubicUpsample, leaky
from distill.networks.optical_flow import FlowMethod, estimate_flow
from teachers.back_projection import KERNEL_STRIDE_PADDING, ConvBlock, ResidualUnit, initialise
from teachers.imagenet_colours import ImageNetColours
from teachers.rbpn import Base
from teachers.stinet_graph import Edges, GlobalRefinement
from teachers.stinet_names import recognise_stinet
from teachers.stinet_parts import FeatureInterpolation, LocalRefinement, SpatialNetwork

__all__ = ["Restored", "STINet", "SpaceTimeTap"]

SpaceTimeTap = Literal["conv_last", "h_blending"]


class Restored(NamedTuple):
    """What STINet makes of a clip, its two supervised intermediate results too; T' frames, ImageNet-normalised.

    The published code's `h_finalrec` is `intermediate` and `final` stacked along axis 1.

    Attributes:
        low: (B, T', 3, h, w), the published `l_rec`, read off the features before their refinement.
        intermediate: (B, T', 3, 4h, 4w), likewise.
        final: (B, T', 3, 4h, 4w).
        hr_features: F^SR, (B, T', C, 4h, 4w).
        lr_features: F^LR, (B, T', C, h, w).
    """

    low: Tensor
    intermediate: Tensor
    final: Tensor
    hr_features: Tensor
    lr_features: Tensor


class _Features(NamedTuple):
    """Of every restored frame, given and in between: interpolated, then refined by neighbours, and the graph's say."""

    low: list[Tensor]
    high: list[Tensor]
    refined_low: list[Tensor]
    refined_high: list[Tensor]
    low_factors: Tensor
    high_factors: Tensor
    base: list[Tensor]


class STINet(ClipNetwork):
    """STINet for x4 space-time super-resolution, equal to the published network.

    A clip of T frames becomes 2T - 1, by the published layers for any T; the published code takes 4 frames. A single
    frame is restored as the first of two alike. Streaming cuts the clip into chunks: what a frame takes from its pair
    and its neighbours a cut leaves whole, what the graph tells it ends at the cut.

    The paper trains DBPN first and freezes it; here nothing is frozen: `network.DBPN.requires_grad_(False)` does it.

    Args:
        channels: of all features, F^SR and F^LR too.
        motion_channels: of the branch that reads the optical flow.
        blocks: residual blocks that both resolutions share when a frame is interpolated.
        graph_channels: between the graph's layers.
        offset_groups: groups of the deformable convolutions; divides `channels`.
        projection_filter: channels of DBPN's first convolution.
        projection_channels: of DBPN's projection units.
        projection_stages: up-projections of DBPN, at least 2.
        base: "bicubic" adds the upsampled frames, mixed by their distance for frames in between, and starts training
            there; the published network adds none.
        edges: "weighted" weighs the graph's edges as the paper has it; the published code leaves them "unweighted".
        hr_tap: which of the two tensors that make the picture is F^SR: the input of the convolution behind the
            pixel shuffles, "conv_last", or of the 1x1 convolution of high-resolution features, "h_blending".
        flow: how the optical flow is estimated. Published files expect "farneback", which needs OpenCV; an attribute
            of the same name changes it afterwards.

    F^LR is the input of upconv1.
    """

    time_scale, chunk, overlap, usual_frames = 2, 8, 2, 4

    def __init__(
        self,
        channels: int = 64,
        motion_channels: int = 32,
        blocks: int = 5,
        graph_channels: int = 256,
        offset_groups: int = 8,
        projection_filter: int = 64,
        projection_channels: int = 64,
        projection_stages: int = 5,
        base: Base = "none",
        edges: Edges = "unweighted",
        hr_tap: SpaceTimeTap = "conv_last",
        flow: FlowMethod = "torch",
    ) -> None:
        super().__init__()
        for name, value, known in (("base", base, Base), ("hr_tap", hr_tap, SpaceTimeTap), ("flow", flow, FlowMethod)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}, expected one of {get_args(known)}")
        if channels % offset_groups or projection_stages < 2:
            raise ValueError(
                f"STINet needs groups ({offset_groups}) dividing {channels} and 2 or more stages ({projection_stages})"
            )
        self.hr_channels: int = channels
        self.lr_channels = channels
        self.hr_tap, self.flow = hr_tap, flow
        self.DBPN = SpatialNetwork(projection_filter, projection_channels, projection_stages, channels)
        self.motion_down = nn.Sequential(
            ResidualUnit(channels, "lrelu"), ConvBlock(channels, channels, *KERNEL_STRIDE_PADDING[4], "lrelu")
        )
        self.interpolation = FeatureInterpolation(channels, motion_channels, blocks)
        self.local = LocalRefinement(channels, offset_groups)
        self.graph = GlobalRefinement(channels, graph_channels, edges)
        self.reconstruction_h = ConvBlock(channels, 3, activation=None)
        self.reconstruction_l = ConvBlock(channels, 3, activation=None)
        self.upconv1 = nn.Conv2d(channels, channels * 4, 3, padding=1)
        self.upconv2 = nn.Conv2d(channels, channels * 4, 3, padding=1)
        self.HRconv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)
        self.h_blending = nn.Conv2d(channels, 3, 1)
        self.upsample_base = BicubicUpsample(self.scale) if base == "bicubic" else None
        self.colours = ImageNetColours()
        self._initialise()

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return recognise_stinet(state)

    def spared_macs(self, frames: int, height: int, width: int) -> int:
        """See `VideoNetwork.spared_macs`.

        The published code also makes the pictures that only its losses look at, brings high-resolution features down
        anew for each of a frame's two neighbours, and once more for edge attributes that the graph is not given.
        """
        restored, pixels = self.time_scale * (frames - 1) + 1, height * width
        shrinking = 64 * self.hr_channels**2 * pixels
        pictures = 9 * 3 * self.hr_channels * pixels * (1 + self.scale**2)
        return restored * (2 * shrinking + pictures)

    def forward(self, clip: Tensor) -> Upsampled:
        return self.interpolate(clip, (0.5,))

    def interpolate(self, clip: Tensor, times: Sequence[float]) -> Upsampled:
        """Restore every frame, and between each and the next one frame for each of `times`.

        Eq. 1 scales the flow between two given frames to that from a moment between them, motion taken as linear:
        at time s from the first, s * (flow from second to first) leads to the first and (1 - s) * (flow from first
        to second) to the second. Only there does the time enter, and in the graph where edges are weighted; the
        layers are those of `forward`, which were trained at 0.5, and all frames refine each other as in `forward`.

        Args:
            clip: (B, T, 3, h, w), RGB in [0, 1].
            times: moments between two given frames, ascending, each above 0 and below 1; k moments at even
                distances are i / (k + 1) for i = 1 ... k.

        Returns:
            (k + 1) * (T - 1) + 1 frames and their features, in order.

        Raises:
            ValueError: `times` are not such moments.
        """
        length = clip.shape[1]
        features = self._features(*self._with_flows(clip), times)
        pictures = [self._picture(features, index) for index in range(len(features.base) if length > 1 else 1)]
        frames, hr_features, lr_features = (torch.stack(each, 1) for each in zip(*pictures, strict=True))
        return Upsampled(self.colours.restored(frames), hr_features, lr_features)

    def with_intermediates(self, clip: Tensor) -> tuple[Upsampled, Intermediates]:
        """As `forward`, with the pictures at both resolutions that features make before refinement (Eq. 4's l'_rec)."""
        features = self._features(*self._with_flows(clip), (0.5,))
        count = 2 * clip.shape[1] - 1
        pictures = [self._picture(features, index) for index in range(count)]
        frames, hr_features, lr_features = (torch.stack(each, 1) for each in zip(*pictures, strict=True))
        low, intermediate = (self.colours.restored(each) for each in self._early(features, count))
        return Upsampled(self.colours.restored(frames), hr_features, lr_features), Intermediates(intermediate, low)

    def restore(self, clip: Tensor) -> Iterator[Tensor]:
        """As inherited, but only one frame's picture and reconstruction are in memory; all frames' features are."""
        features = self._features(*self._with_flows(clip), (0.5,))
        for index in range(len(features.base) if clip.shape[1] > 1 else 1):
            yield self.colours.restored(self._picture(features, index)[0][0])

    def with_flows(
        self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor, times: Sequence[float] = (0.5,)
    ) -> Restored:
        """The published network's forward pass, flows given.

        Args:
            frames: (B, T, 3, h, w), T from 2 on, ImageNet-normalised RGB.
            forward_flow: (B, T - 1, 2, h, w), from each frame to the next, pixels to the right and down.
            backward_flow: likewise, from each frame to the one before.
            times: see `interpolate`.

        Raises:
            ValueError: `times` are no moments between two frames.
        """
        features = self._features(frames, forward_flow, backward_flow, times)
        pictures = [self._picture(features, index) for index in range(len(features.base))]
        final, hr_features, lr_features = (torch.stack(each, 1) for each in zip(*pictures, strict=True))
        low, intermediate = self._early(features, len(pictures))
        return Restored(low, intermediate, final, hr_features, lr_features)

    def _with_flows(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised frames, at least two, and their flows forward and backward."""
        if clip.shape[1] == 1:
            clip = clip.repeat_interleave(2, 1)
        before, after = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
        flows = (estimate_flow(*pair, self.flow) for pair in ((before, after), (after, before)))
        forward_flow, backward_flow = (flow.to(clip.dtype).unflatten(0, (clip.shape[0], -1)) for flow in flows)
        return self.colours.normalised(clip), forward_flow, backward_flow

    def _features(
        self, frames: Tensor, forward_flow: Tensor, backward_flow: Tensor, times: Sequence[float]
    ) -> _Features:
        if not all(0 < time < 1 for time in times) or sorted(set(times)) != list(times):
            raise ValueError(f"times are {tuple(times)}, expected ascending moments above 0 and below 1")
        given = frames.unbind(1)
        given_high = [self.DBPN(frame) for frame in given]  # one by one: DBPN holds its whole history at 4h x 4w
        given_low = [self.motion_down(each) for each in given_high]
        low, high, base, moments = [given_low[0]], [given_high[0]], [given[0]], [0.0]
        for first in range(len(given) - 1):
            second = first + 1
            for time in times:
                between_low, between_high = self.interpolation(
                    (given_low[first], given_low[second]),
                    (given_high[first], given_high[second]),
                    (1 - time) * forward_flow[:, first],
                    time * backward_flow[:, first],
                )
                low.append(between_low)
                high.append(between_high)
                base.append((1 - time) * given[first] + time * given[second])
                moments.append(2 * (first + time))
            low.append(given_low[second])
            high.append(given_high[second])
            base.append(given[second])
            moments.append(2.0 * second)
        refined_low, refined_high = self.local(low, high)
        for_low, for_high = self.graph(refined_low, refined_high, moments)
        return _Features(low, high, refined_low, refined_high, for_low, for_high, base)

    def _early(self, features: _Features, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` frames before refinement, normalised, (B, count, 3, h, w) and (B, count, 3, 4h, 4w)."""
        low = [self.reconstruction_l(each) for each in features.low[:count]]
        high = [self.reconstruction_h(each) for each in features.high[:count]]
        if self.upsample_base is not None:
            low = [each + base for each, base in zip(low, features.base, strict=False)]
            high = [each + self.upsample_base(base) for each, base in zip(high, features.base, strict=False)]
        return torch.stack(low, 1), torch.stack(high, 1)

    def _picture(self, features: _Features, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """One frame, normalised, (B, 3, 4h, 4w), its F^SR and its F^LR."""
        low = features.refined_low[index] * features.low_factors[:, index, :, None, None]
        high = features.refined_high[index] * features.high_factors[:, index, :, None, None]
        shuffled = leaky(functional.pixel_shuffle(self.upconv1(low), 2))
        shuffled = leaky(functional.pixel_shuffle(self.upconv2(shuffled), 2))
        refined = leaky(self.HRconv(shuffled))
        picture = self.conv_last(refined) + self.h_blending(high)
        if self.upsample_base is not None:
            picture = picture + self.upsample_base(features.base[index])
        return picture, refined if self.hr_tap == "conv_last" else high, low

    def _initialise(self) -> None:
        initialise(self)
        for sampler in (self.local.layersAtB, self.local.layersCtB):
            nn.init.zeros_(sampler.conv_offset.weight)
        last = self.local.layersFusion[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.data.mul_(0.1)  # as residual units start
        if self.upsample_base is not None:
            for last_layer in (self.conv_last, self.h_blending, self.reconstruction_h.conv, self.reconstruction_l.conv):
                nn.init.zeros_(last_layer.weight)  # an untrained network is its base image, not noise
