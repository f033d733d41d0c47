"""Space-time students: any network of windows, and a small head for the frames half-way between the given ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.interfaces import Memory, SlidingNetwork, Step, Upsampled, WindowNetwork
from distill.layers import BicubicUpsample, crop_to, pad_to_multiple
from students.mobile_blocks import MobileTail, MobileUNet

__all__ = ["SpaceTime"]

_NARROW, _WIDE = (16, 32, 48), (32, 48, 64)
"""Widths of the head's U-Net, for students that work at low resolution throughout, which are cheap, and for others."""


class SpaceTime(SlidingNetwork):
    """A student that doubles the frame rate: 2 (T - 1) + 1 frames of T, the given ones at even places.

    Given frames are restored as `spatial` alone does. A frame half-way between two of them is what a head adds to the
    bicubic enlargement of their mean. The head sees both neighbours' F^LR, which the student has brought together
    anyway; of a student without F^LR it sees F^SR, gathered to low resolution, because F^SR itself would have to be
    remembered from step to step, 88 MB of it for 64 channels over 180x120 pixels. Nothing is warped: a U-Net sees 27
    pixels around instead, as in `students.vespcn_mobile` and for its reasons.

    Frames in between have the features that the given ones have, for a teacher to teach. Their F^LR starts near the
    neighbours' mean, and a fresh head yields the enlarged mean. Frames are padded to multiples of 4 before all else, so
    that beyond an edge lies what an exported file sees there, which is handed padded frames.

    Args:
        spatial: a student, which goes on to be the network of the given frames.
    """

    time_scale = 2

    def __init__(self, spatial: WindowNetwork) -> None:
        super().__init__()
        self.scale, self.window = spatial.scale, spatial.window
        self.hr_channels, self.lr_channels = spatial.hr_channels, spatial.lr_channels
        self.spatial = spatial
        self.head = _Head(spatial.lr_channels, spatial.hr_channels, spatial.scale)

    def forward(self, clip: Tensor) -> Upsampled:
        frames = pad_to_multiple(clip, 4)
        restored: Upsampled = self.spatial(frames)
        batch, length = clip.shape[:2]
        if length > 1:
            known = self.head.seen(restored.map(lambda field: field.flatten(0, 1))).unflatten(0, (batch, length))
            pairs = (each.flatten(0, 1) for each in (known[:, :-1], known[:, 1:], frames[:, :-1], frames[:, 1:]))
            between: Upsampled = self.head(*pairs)
            restored = restored.interleaved(between.map(lambda field: field.unflatten(0, (batch, length - 1))))
        return _cropped(restored, clip, self.scale)

    def run(self, frames: Tensor) -> tuple[Tensor, ...]:
        """See `SlidingNetwork.run`; what the two windows share is computed for each, so `step` costs far less."""
        padded = pad_to_multiple(frames, 4)
        earlier, later = (self.spatial.reconstruct(each) for each in (padded[:, :-1], padded[:, 1:]))
        middle = self.window // 2
        seen = (self.head.seen(each) for each in (earlier, later))
        between = self.head(*seen, padded[:, middle], padded[:, middle + 1])
        return tuple(_cropped(each, frames, self.scale).frames for each in (between, later))

    def step(self) -> Step:
        return _Step(self)

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        ahead, behind = tee(frames)
        before: tuple[Tensor, Tensor] | None = None
        padded = (_padded(frame) for frame in ahead)
        for restored, frame in zip(self.spatial.stream_features(padded), behind, strict=True):
            known, given = self.head.seen(restored), _padded(frame).unsqueeze(0)
            if before is not None:
                yield _cropped(self.head(before[0], known, before[1], given), frame, self.scale).frames[0]
            yield _cropped(restored, frame, self.scale).frames[0]
            before = known, given


class _Head(nn.Module):
    """What is half-way between two frames.

    Args:
        lr_channels: of F^LR, or None.
        hr_channels: of F^SR, or None; one of the two exists.
        scale: spatial factor.
    """

    def __init__(self, lr_channels: int | None, hr_channels: int | None, scale: int) -> None:
        super().__init__()
        widths = _NARROW if hr_channels is None else _WIDE
        self.channels = widths[0] if lr_channels is None else lr_channels
        self.gather: nn.Module | None = None
        if lr_channels is None:
            assert hr_channels is not None
            gather = nn.Conv2d(hr_channels, self.channels, scale, scale)
            nn.init.kaiming_normal_(gather.weight, nonlinearity="relu")
            nn.init.zeros_(gather.bias)  # type: ignore[arg-type]
            self.gather = nn.Sequential(gather, nn.ReLU(inplace=True))
        self.motion = MobileUNet(2 * self.channels, self.channels, widths)
        # it starts near the neighbours' mean; at zero, behind a silent tail, it would take far longer to learn anything
        self.motion.leave.weight.data.mul_(0.1)
        self.tail = (
            MobileTail(self.channels, scale) if hr_channels is None else _LargeTail(self.channels, hr_channels, scale)
        )

    def seen(self, restored: Upsampled) -> Tensor:
        """What the head sees of a restored frame, (N, channels, h, w), out of fields without T' axis."""
        if self.gather is None:
            assert restored.lr_features is not None
            return restored.lr_features
        return self.gather(restored.hr_features)  # type: ignore[no-any-return]

    def forward(self, earlier: Tensor, later: Tensor, before: Tensor, after: Tensor) -> Upsampled:
        """What is `seen` of two neighbours (N, channels, h, w) and the neighbours (N, 3, h, w) -> the frame between.

        Sides are multiples of 4.

        Returns:
            Fields without T' axis, features as far as given frames have them.
        """
        change: Tensor = self.motion(torch.cat((earlier, later), 1))
        fused, mean = (earlier + later) / 2 + change, (before + after) / 2
        if isinstance(self.tail, MobileTail):
            return Upsampled(self.tail(fused, mean), None, fused)
        frames, hr_features = self.tail(fused, mean)
        return Upsampled(frames, hr_features, fused if self.gather is None else None)


class _LargeTail(nn.Module):
    """For students with F^SR: pixel shuffle, then a convolution that turns F^SR into what is added to the base."""

    def __init__(self, channels: int, hr_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Conv2d(channels, hr_channels * scale**2, 1)
        nn.init.kaiming_normal_(self.expand.weight, nonlinearity="relu")
        nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]
        self.last = nn.Conv2d(hr_channels, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.base = BicubicUpsample(scale)

    def forward(self, features: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, channels, h, w), frame (N, 3, h, w) -> the picture and F^SR, (N, hr_channels, H, W)."""
        hr_features = functional.relu(functional.pixel_shuffle(self.expand(features), self.scale))
        return self.base(frame) + self.last(hr_features), hr_features


class _Step(Step):
    """The spatial network's step, and the frame half-way to the one restored before, of which features are kept."""

    def __init__(self, network: SpaceTime) -> None:
        super().__init__()
        self.spatial, self.head, self.scale = network.spatial.step(), network.head, network.scale
        given = Memory("given", 3, network.window // 2 + 1)
        memories = (*self.spatial.memories, given, Memory("fused", network.head.channels, 1))
        self.memories = tuple(memory._replace(multiple=4) for memory in memories)

    def forward(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        *remembered, given, fused = memories
        padded = pad_to_multiple(frame, 4)
        known = self.spatial.advance(padded, *remembered)
        restored = self.spatial.restore(*known)
        given = torch.cat((given, padded), 1)
        seen = self.head.seen(restored)
        between = self.head(fused, seen, given[:, :3], given[:, 3:6])
        pictures = (_cropped(each, frame, self.scale).frames for each in (between, restored))
        return *pictures, *self.spatial.kept(*known), given[:, 3:], seen


def _padded(frame: Tensor) -> Tensor:
    """One frame (3, h, w)."""
    return pad_to_multiple(frame.unsqueeze(0), 4)[0]


def _cropped(restored: Upsampled, like: Tensor, scale: int) -> Upsampled:
    """What padded frames gave, cropped to the size of `like`, (..., h, w)."""
    height, width = like.shape[-2:]
    frames, hr_features, lr_features = restored
    high = (height * scale, width * scale)
    return Upsampled(
        crop_to(frames, *high),
        None if hr_features is None else crop_to(hr_features, *high),
        None if lr_features is None else crop_to(lr_features, height, width),
    )
