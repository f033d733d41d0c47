"""VESPCN at high resolution, as the costs in Space-Time Distillation's table let it be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.interfaces import Memory, StreamStep, Upsampled, WindowNetwork
from distill.layers import BicubicUpsample, crop_to, pad_to_multiple
from students.vespcn_motion import WideMotion, compensated

__all__ = ["VESPCNStd"]


class VESPCNStd(WindowNetwork):
    """VESPCN on frames that are upsampled first.

    This is a reading, not a published network: the paper gives VESPCN 0.26 T multiply-accumulates, which no VESPCN at
    low resolution comes near, and says nothing of its layers. The published motion compensation on two pairs of
    upsampled RGB frames (6.8 G), then convolutions 9->64, 20 times 64->64, and 64->3, have 0.2640 T. The bicubic
    base, added with a last convolution that starts at zero, is ours.

    Args:
        channels: of the convolutions.
        depth: convolutions of `channels` to `channels`.
        motion_width: channels of the flow estimators.

    F^SR is the last convolution's input, (B, channels, 4h, 4w). There is no F^LR.
    """

    window = 3
    lr_channels = None

    width_multiples: ClassVar[Mapping[str, int]] = {"channels": 16, "motion_width": 8}

    def __init__(self, channels: int = 64, depth: int = 20, motion_width: int = 24) -> None:
        super().__init__()
        self.hr_channels = channels
        self.upsample = BicubicUpsample(self.scale)
        self.motion = WideMotion(3, motion_width)
        layers: list[nn.Module] = []
        for place in range(depth + 1):
            conv = nn.Conv2d(3 * self.window if place == 0 else channels, channels, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def reconstruct(self, window: Tensor) -> Upsampled:
        # the layers need no multiple, but exported files are handed frames padded to multiples of 4
        padded = pad_to_multiple(window, 4)
        return self._restore(self.upsample(padded.flatten(0, 1)).unflatten(0, window.shape[:2]), window)

    def step(self) -> StreamStep:
        return _Step(self)

    def _restore(self, upsampled: Tensor, like: Tensor) -> Upsampled:
        """Windows (N, 3, 3, H, W) of upsampled frames of padded size; cropped to the size of `like`."""
        hr_features = self.body(torch.cat(compensated(self.motion, upsampled), 1))
        restored = Upsampled(upsampled[:, 1] + self.last(hr_features), hr_features, None)
        height, width = like.shape[-2:]
        return restored.map(lambda field: crop_to(field, height * self.scale, width * self.scale))


class _Step(StreamStep):
    """Upsamples each frame once; motion is towards the centre, and is not shared."""

    def __init__(self, network: VESPCNStd) -> None:
        super().__init__()
        self.network = network
        self.memories = (Memory("frames", 3, 1), Memory("upsampled", 3, 2, network.scale, multiple=4))

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        frames, upsampled = memories
        large = self.network.upsample(pad_to_multiple(frame, 4))
        return torch.cat((frames, frame), 1), torch.cat((upsampled, large), 1)

    def restore(self, *known: Tensor) -> Upsampled:
        frames, upsampled = known
        return self.network._restore(upsampled.unflatten(1, (3, 3)), frames[:, :3])
