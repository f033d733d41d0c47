"""FastDVDnet (Tassano et al., CVPR 2020) for phones: three stages over triplets, x4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.interfaces import Memory, StreamStep, Upsampled, WindowNetwork
from distill.layers import crop_to, pad_to_multiple
from students.mobile_blocks import MobileTail, MobileUNet, check_channels, conv

__all__ = ["FastDVDnetMobile"]


class FastDVDnetMobile(WindowNetwork):
    """Seven frames become five, three, and one, each a fusion of three neighbours by a small U-Net.

    A window takes 5 + 3 + 1 fusions, but one frame more of a video takes 3, one a stage, so a video costs 2.7 times
    less than its windows.

    The stages hand on features, not pictures as FastDVDnet's do: 16 channels cost a phone what 3 would, and need no
    convolution that squeezes them to a picture and another that spreads them again. Each stage corrects the middle
    frame's features, as FastDVDnet corrects the middle picture, so that a short path leads from every frame to the
    tail; a last stage without it, of more channels, was tried and at some learning rates died.

    Args:
        widths: channels of the U-Nets at full, half and quarter size; multiples of 16. The first is that of the
            features between the stages too.

    F^LR is the last stage's result, the input of the tail's convolution, (B, widths[0], h, w). There is no F^SR.
    """

    window = 7
    hr_channels = None

    width_multiples: ClassVar[Mapping[str, int]] = {"widths": 16}

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        check_channels(*widths)
        self.lr_channels = self.channels = full = widths[0]
        self.head = nn.Sequential(conv(3, full), nn.ReLU(inplace=True))
        self.temp1 = MobileUNet(3 * full, full, widths)
        self.temp2 = MobileUNet(3 * full, full, widths)
        self.temp3 = MobileUNet(3 * full, full, widths)
        for stage in (self.temp1, self.temp2, self.temp3):
            nn.init.zeros_(stage.leave.weight)  # they start by passing their middle frame on
        self.tail = MobileTail(full, self.scale)

    def reconstruct(self, window: Tensor) -> Upsampled:
        batch = window.shape[0]
        frames = pad_to_multiple(window, 4).transpose(0, 1).flatten(0, 1)
        middle = frames[3 * batch : 4 * batch]
        return self._cropped(self._staged(self.head(frames), batch), middle, window)

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but each stage, whose results up to five windows share, runs once per frame."""
        batch, length = clip.shape[:2]
        frames = pad_to_multiple(clip, 4).transpose(0, 1).flatten(0, 1)
        # Only frames are repeated at the edges: a stage's result there is of repeated frames, not itself repeated.
        places = torch.arange(-3, length + 3, device=clip.device).clamp(0, length - 1)
        features = self.head(frames).unflatten(0, (length, batch))[places].flatten(0, 1)
        restored = self._cropped(self._staged(features, batch), frames, clip)
        return restored.map(lambda field: field.unflatten(0, (length, batch)).transpose(0, 1))

    def step(self) -> StreamStep:
        return _Step(self)

    def _staged(self, features: Tensor, batch: int) -> Tensor:
        """Features of T frames -> of the T - 6 that three stages leave.

        Frame by frame, the batch within: (T * batch, C, h, w). So a triplet is three slices of the first axis and one
        concatenation of the second, and no tensor has five axes, which some phone runtimes refuse.
        """
        for stage in (self.temp1, self.temp2, self.temp3):
            features = _fused(stage, features[: -2 * batch], features[batch:-batch], features[2 * batch :])
        return features

    def _cropped(self, fused: Tensor, frames: Tensor, like: Tensor) -> Upsampled:
        """Features and frames of padded size, cropped to the size of `like`."""
        height, width = like.shape[-2:]
        restored = crop_to(self.tail(fused, frames), height * self.scale, width * self.scale)
        return Upsampled(restored, None, crop_to(fused, height, width))


class _Step(StreamStep):
    """Each stage remembers its last two inputs, and runs once per frame."""

    def __init__(self, network: FastDVDnetMobile) -> None:
        super().__init__()
        self.network = network
        self.stages = (network.temp1, network.temp2, network.temp3)
        self.channels = channels = network.channels
        stages = (Memory(f"stage{place}", channels, 2, multiple=4) for place in (1, 2, 3))
        self.memories = (Memory("frames", 3, 3), *stages)

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        frames, *stages = memories
        known = [torch.cat((frames, frame), 1)]
        result = self.network.head(pad_to_multiple(frame, 4))
        for place, memory in enumerate(stages):
            known.append(torch.cat((memory, result), 1))
            if place < 2:
                result = self._fused(place, known[-1])
        return tuple(known)

    def restore(self, *known: Tensor) -> Upsampled:
        frame = known[0][:, :3]
        return self.network._cropped(self._fused(2, known[-1]), pad_to_multiple(frame, 4), frame)

    def _fused(self, place: int, triplet: Tensor) -> Tensor:
        change: Tensor = self.stages[place](triplet)
        return triplet[:, self.channels : 2 * self.channels] + change


def _fused(stage: MobileUNet, before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """The middle of three neighbours' features, corrected."""
    change: Tensor = stage(torch.cat((before, middle, after), 1))
    return middle + change
