"""STARnet (Haris et al., CVPR 2020): upscales frames and the frames between them, in space and time at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.interfaces import ClipNetwork, Intermediates, Published, Upsampled
from distill.layers import BicubicUpsample, crop_to, leaky, pad_to_multiple
from distill.networks.optical_flow import FlowMethod, estimate_flow
from teachers.back_projection import KERNEL_STRIDE_PADDING, ConvBlock, DeconvBlock, ResidualUnit, initialise
from teachers.imagenet_colours import ImageNetColours
from teachers.rbpn import Base, RecurrentProjection
from teachers.starnet_flow import FlowRefinement, PyramidModule
from teachers.starnet_names import recognise_starnet

__all__ = ["Pair", "STARnet", "Version"]

Version = Literal["v1", "v2", "v3", "v4"]
_LARGEST_FLOW = 150.0
_Estimates = tuple[Tensor, Tensor]
_Scales = tuple[Tensor, Tensor]
_Three = tuple[Tensor, Tensor, Tensor]


class Pair(NamedTuple):
    """What STARnet makes of two frames, each estimate twice: before the refinement (stage 2) and after it.

    Attributes:
        ht: the frame between, (N, 3, scale*h, scale*w), ImageNet-normalised as all pictures here.
        h1: the first frame, likewise.
        h2: the second frame, likewise.
        l: the frame between at low resolution, (N, 3, h, w).
        hr_features: that the last `h1`, `ht` and `h2` are made of, (N, C, scale*h, scale*w) each.
        lr_features: at low resolution, (N, 2C, h, w), of the same frames; the last `l` is made of the second.
        flows: forward and backward, (N, 2, h, w) each, as `flow_net` corrected them.
    """

    ht: _Estimates
    h1: _Estimates
    h2: _Estimates
    l: _Estimates  # noqa: E741  (its published name)
    hr_features: _Three
    lr_features: _Three
    flows: _Estimates


class STARnet(ClipNetwork):
    """STARnet for space-time super-resolution, equal to the published networks.

    A clip of T frames becomes 2T - 1: the first frame as restored from its pair with the second, every later one from
    its pair with the one before, and the frame between the two of each pair. A single frame is paired with itself.

    The published files named STAR-S, STAR-T and STAR-ST are this network fine-tuned for some of its outputs: S for
    the given frames at high resolution, T for the frame between at low resolution (`Pair.l`), ST for all three
    frames at high resolution. All outputs are always there; the others of such a file are merely not to be trusted.

    Args:
        version: "v4" is the paper's full network; "v1" interpolates from low resolution alone, "v2" also at high
            resolution, "v3" also at low resolution (Table 6).
        base_filter: channels of the motion branch and of RBPN's low-resolution branches.
        channels: of the high-resolution features, F^SR; F^LR has twice as many.
        res_blocks: residual blocks in each of the three networks that bring features up.
        spatial_blocks: residual blocks in each branch of the RBPN within.
        scale: 2, 4 or 8.
        refine_flow: a U-Net corrects the flow (the *_REF files).
        base: "bicubic" adds the upsampled frames, their mean for the frame between; the published networks add none.
        flow: how the optical flow is estimated.

    F^SR is the input of reconstruction_h; F^LR is for the frame between the input of reconstruction_l, and for given
    frames the refined feature of the same kind (L_t with a hat in the paper), which no layer turns into a picture.
    """

    time_scale, chunk, overlap, usual_frames = 2, 2, 1, 2

    def __init__(
        self,
        version: Version = "v4",
        base_filter: int = 256,
        channels: int = 64,
        res_blocks: int = 5,
        spatial_blocks: int = 5,
        scale: int = 4,
        refine_flow: bool = False,
        base: Base = "none",
        flow: FlowMethod = "torch",
    ) -> None:
        super().__init__()
        for name, value, known in (("version", version, Version), ("base", base, Base), ("flow", flow, FlowMethod)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}, expected one of {get_args(known)}")
        self.scale, self.flow = scale, flow
        self.hr_channels, self.lr_channels = channels, channels * 2
        self.RBPN = _SpatialNetwork(base_filter, channels, spatial_blocks, scale)
        geometry, stacked = KERNEL_STRIDE_PADDING[scale], channels * 5
        self.motion_feat = ConvBlock(4, base_filter, activation="lrelu")
        self.motion = _stack(base_filter, 2, ConvBlock(base_filter, channels, activation="lrelu"))
        self.interp_block = _stack(stacked, res_blocks, DeconvBlock(stacked, channels, *geometry, "lrelu"))
        self.motion_up_f = _stack(stacked, res_blocks, DeconvBlock(stacked, channels, *geometry, "lrelu"))
        self.motion_up_b = _stack(stacked, res_blocks, DeconvBlock(stacked, channels, *geometry, "lrelu"))
        downward = [
            _stack(channels, blocks, ConvBlock(channels, channels * 2, *geometry, "lrelu"))
            for blocks in ((3, 2, 2) if version == "v1" else (2,))
        ]
        self.motion_down = downward[0]
        self.warp1: nn.Module | None
        self.warp2: nn.Module | None
        self.warp1, self.warp2 = downward[1:] or (None, None)
        self.t_net_hr = self.t_net_lr = None
        if version in ("v2", "v4"):
            self.t_net_hr = nn.Sequential(
                ConvBlock(channels * 3, channels, 1, 1, 0, "lrelu"),
                PyramidModule(channels),
                ConvBlock(channels, channels, activation="lrelu"),
            )
        if version in ("v3", "v4"):
            self.t_net_lr = _stack(stacked, 2, ConvBlock(stacked, channels * 2, activation="lrelu"))
        self.reconstruction_l = ConvBlock(channels * 2, 3, activation=None)
        self.reconstruction_h = ConvBlock(channels, 3, activation=None)
        self.flow_net = FlowRefinement() if refine_flow else None
        self.upsample_base = BicubicUpsample(scale) if base == "bicubic" else None
        self.colours = ImageNetColours()
        initialise(self)
        if base == "bicubic":
            for last in (self.reconstruction_l, self.reconstruction_h, self.RBPN.output):
                nn.init.zeros_(last.conv.weight)  # an untrained network is its base image, not noise

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return recognise_starnet(state)

    def forward(self, clip: Tensor) -> Upsampled:
        fields = self._restore(*_pairs(clip))
        return Upsampled(*(_in_order(field, clip) for field in fields))

    def with_intermediates(self, clip: Tensor) -> tuple[Upsampled, Intermediates]:
        """As `forward`, with the first stage's pictures, the low-resolution frames between, and the corrected flows."""
        batch, length, _, height, width = clip.shape
        first, second = _pairs(clip)
        pair = self._pair(first, second)
        high, low = (height * self.scale, width * self.scale), (height, width)

        def shown(picture: Tensor, size: tuple[int, int]) -> Tensor:
            return crop_to(self.colours.restored(picture), *size)

        early = _in_order(_each(lambda picture: shown(picture, high), (pair.h1[0], pair.ht[0], pair.h2[0])), clip)
        early_low, refined_low = (_in_order((first, shown(each, low), second), clip) for each in pair.l)
        flows = None
        if self.flow_net is not None:
            pixels = crop_to(torch.stack(pair.flows), *low) * -_LARGEST_FLOW
            flows = pixels.unflatten(1, (batch, -1)).transpose(0, 1)[:, :, : length - 1]
        restored = Upsampled(*(_in_order(field, clip) for field in self._shown(pair, height, width)))
        return restored, Intermediates(early, early_low, refined_low, flows)

    def restore(self, clip: Tensor) -> Iterator[Tensor]:
        """As inherited, with one pair of frames at a time in memory."""
        length = clip.shape[1]
        for index in range(max(length - 1, 1)):
            frames, *_ = self._restore(clip[:, index], clip[:, min(index + 1, length - 1)])
            start, end = int(index > 0), 3 if length > 1 else 1
            yield from (frame[0] for frame in frames[start:end])

    def restore_pair(self, first: Tensor, second: Tensor, flow_forward: Tensor, flow_backward: Tensor) -> Pair:
        """The published network: from two frames to three, the flows given.

        Args:
            first: (N, 3, h, w), ImageNet-normalised; where `scale` is 2, h and w are even.
            second: the same shape.
            flow_forward: (N, 2, h, w) from first to second, by `scaled_flow`.
            flow_backward: from second to first.
        """
        if self.flow_net is not None:
            flow_forward, flow_backward = (
                self.flow_net(flow_forward, first, second),
                self.flow_net(flow_backward, second, first),
            )
        (state1,), _ = self.RBPN.project(first, [second], [flow_forward])
        (state2,), _ = self.RBPN.project(second, [first], [flow_backward])
        flows = torch.cat((flow_forward, flow_backward), 1)
        motion, half_motion = (self.motion(self.motion_feat(each)) for each in (flows, flows / 2))
        early = self._interpolate(state1, state2, motion)
        final = self._refine(*early, half_motion)
        (high1, hight, high2), (low1, lowt, low2) = zip(*final, strict=True)
        shown, shown_low = self.reconstruction_h, self.reconstruction_l
        base1, baset, base2, base_low = self._bases(first, second)
        return Pair(
            ht=(shown(early[1][0]) + baset, shown(hight) + baset),
            h1=(self.RBPN.output(state1) + base1, shown(high1) + base1),
            h2=(self.RBPN.output(state2) + base2, shown(high2) + base2),
            l=(shown_low(early[1][1]) + base_low, shown_low(lowt) + base_low),
            hr_features=(high1, hight, high2),
            lr_features=(low1, lowt, low2),
            flows=(flow_forward, flow_backward),
        )

    def scaled_flow(self, flow: Tensor) -> Tensor:
        """Pixels to what the network was trained on: limited to 150, over 150, and, by an old mistake, negative."""
        return flow.clamp(-_LARGEST_FLOW, _LARGEST_FLOW) / -_LARGEST_FLOW

    def _restore(self, first: Tensor, second: Tensor) -> tuple[_Three, _Three, _Three]:
        """Two frames (N, 3, h, w) in [0, 1] -> pictures, F^SR and F^LR, each of the first, between and the second."""
        return self._shown(self._pair(first, second), *first.shape[-2:])

    def _pair(self, first: Tensor, second: Tensor) -> Pair:
        """Two frames (N, 3, h, w) in [0, 1] -> the network's outputs, of sides that its pyramid can halve."""
        # the pyramid halves the high resolution twice
        first, second = (pad_to_multiple(frame, 4 // min(self.scale, 4)) for frame in (first, second))
        flows = [self.scaled_flow(estimate_flow(*pair, self.flow)) for pair in ((first, second), (second, first))]
        normalised = [self.colours.normalised(frame) for frame in (first, second)]
        return self.restore_pair(*normalised, *(flow.to(first.dtype) for flow in flows))

    def _shown(self, pair: Pair, height: int, width: int) -> tuple[_Three, _Three, _Three]:
        """What was made of frames of height x width, cropped to them: pictures in [0, 1], F^SR and F^LR."""
        pictures = (pair.h1[1], pair.ht[1], pair.h2[1])
        high, low = (height * self.scale, width * self.scale), (height, width)
        return (
            _each(lambda picture: crop_to(self.colours.restored(picture), *high), pictures),
            _each(lambda features: crop_to(features, *high), pair.hr_features),
            _each(lambda features: crop_to(features, *low), pair.lr_features),
        )

    def _bases(self, first: Tensor, second: Tensor) -> tuple[Tensor | float, ...]:
        """What is added to the pictures of the first frame, that between, the second, and that between when small."""
        if self.upsample_base is None:
            return 0.0, 0.0, 0.0, 0.0
        between = (first + second) / 2
        return *(self.upsample_base(frame) for frame in (first, between, second)), between

    def _interpolate(self, state1: Tensor, state2: Tensor, motion: Tensor) -> tuple[_Scales, _Scales, _Scales]:
        """Stage 1: what is known of the first frame, that between, and the second."""
        small1, small2 = (self.warp1 or self.motion_down)(state1), (self.warp2 or self.motion_down)(state2)
        stacked = torch.cat((small1, small2, motion), 1)
        large: Tensor = self.interp_block(stacked)
        if self.t_net_hr is not None:
            size = large.shape[-2:]
            upsampled = functional.interpolate(motion, size, mode="bilinear", align_corners=True)
            large = _pushed(large, self.t_net_hr(torch.cat((state1, state2, upsampled), 1)))
        small: Tensor = self.motion_down(large)
        if self.t_net_lr is not None:
            small = _pushed(small, self.t_net_lr(stacked))
        return (state1, small1), (large, small), (state2, small2)

    def _refine(
        self, first: _Scales, between: _Scales, second: _Scales, motion: Tensor
    ) -> tuple[_Scales, _Scales, _Scales]:
        """Stage 2: every frame pushed away from what its neighbours predict (Eqs. 5 to 11, in the code's order)."""

        def pushed(own: _Scales, network: nn.Module, earlier: _Scales, later: _Scales) -> _Scales:
            predicted = network(torch.cat((earlier[1], later[1], motion), 1))
            return _pushed(own[0], predicted), _pushed(own[1], self.motion_down(predicted))

        first = pushed(first, self.motion_up_b, first, between)
        second = pushed(second, self.motion_up_f, between, second)
        between = pushed(between, self.motion_up_f, first, between)
        between = pushed(between, self.motion_up_b, between, second)
        return first, between, second


class _SpatialNetwork(RecurrentProjection):
    """RBPN for two frames, with its own output for the picture before any interpolation."""

    def __init__(self, base_filter: int, channels: int, res_blocks: int, scale: int) -> None:
        super().__init__(base_filter, channels, res_blocks, scale)
        self.output = ConvBlock(channels, 3, activation=None)


def _stack(channels: int, blocks: int, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(ResidualUnit(channels, "lrelu") for _ in range(blocks)), last)


def _pushed(features: Tensor, predicted: Tensor) -> Tensor:
    """What the prediction missed, added: the paper's ReLU leaks in the code."""
    return features + leaky(features - predicted)


def _pairs(clip: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second frames of every pair of (B, T, 3, h, w), each (B * max(T - 1, 1), 3, h, w)."""
    seconds = clip[:, 1:] if clip.shape[1] > 1 else clip
    return clip[:, : seconds.shape[1]].flatten(0, 1), seconds.flatten(0, 1)


def _in_order(field: _Three, clip: Tensor) -> Tensor:
    """Of every pair the first frame, that between and the second -> all 2T - 1 of the clip's, in order."""
    batch, length = clip.shape[:2]
    first, between, second = (each.unflatten(0, (batch, -1)) for each in field)
    later = torch.stack((between, second), 2).flatten(1, 2)
    return torch.cat((first[:, :1], later), 1)[:, : 2 * length - 1]


def _each(change: Callable[[Tensor], Tensor], three: _Three) -> _Three:
    first, between, second = three
    return change(first), change(between), change(second)
