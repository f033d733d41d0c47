"""VESPCN (Caballero et al., CVPR 2017) for phones: motion compensation without warping, then a small ESPCN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.interfaces import Memory, StreamStep, Upsampled, WindowNetwork
from distill.layers import crop_to, pad_to_multiple
from students.mobile_blocks import MobileTail, MobileUNet, check_channels, conv

__all__ = ["VESPCNMobile"]


class VESPCNMobile(WindowNetwork):
    """VESPCN's plan, each neighbour brought onto the centre by the same small network, made for phones.

    What moves a neighbour is a U-Net over the pair, which corrects the neighbour's features, where VESPCN estimates a
    flow and warps by it: sampling a grid is not to be had through Android's NNAPI, breaks Qualcomm's quantised graphs
    and loses precision in the half floats of Apple's processors. VESPCN's coarse flow is estimated from 33 pixels
    around, the U-Net sees 27.

    Args:
        features: channels of each frame; a multiple of 16.
        widths: of the U-Net at full, half and quarter size; multiples of 16.
        channels: of the convolutions over all frames, the last of which yields the tail's input; multiples of 16.

    F^LR is the input of the tail's convolution, (B, channels[-1], h, w). There is no F^SR.
    """

    window = 3
    hr_channels = None

    width_multiples: ClassVar[Mapping[str, int]] = {"features": 16, "widths": 16, "channels": 16}

    def __init__(
        self,
        features: int = 16,
        widths: tuple[int, int, int] = (16, 32, 48),
        channels: tuple[int, ...] = (64, 64, 64, 32),
    ) -> None:
        super().__init__()
        check_channels(features, *widths, *channels)
        self.lr_channels, self.features = channels[-1], features
        self.head = nn.Sequential(conv(3, features), nn.ReLU(inplace=True))
        self.motion = MobileUNet(2 * features, features, widths)
        nn.init.zeros_(self.motion.leave.weight)  # it starts by passing the neighbour on
        layers: list[nn.Module] = []
        before = 3 * features
        for after in channels:
            layers += [conv(before, after), nn.ReLU(inplace=True)]
            before = after
        self.espcn = nn.Sequential(*layers)
        self.tail = MobileTail(channels[-1], self.scale)

    def reconstruct(self, window: Tensor) -> Upsampled:
        batch = window.shape[0]
        # frame by frame, the batch within, so that no tensor has five axes, which some phone runtimes refuse
        frames = pad_to_multiple(window, 4).transpose(0, 1).flatten(0, 1)
        first, centre, last = self.head(frames).split(batch)
        return self._restore(first, centre, last, frames[batch : 2 * batch], window)

    def step(self) -> StreamStep:
        return _Step(self)

    def _restore(self, first: Tensor, centre: Tensor, last: Tensor, frame: Tensor, like: Tensor) -> Upsampled:
        """Features of three frames and the middle frame, all of padded size; cropped to the size of `like`."""
        batch, (height, width) = first.shape[0], like.shape[-2:]
        neighbours = torch.cat((first, last))
        moved = neighbours + self.motion(torch.cat((neighbours, torch.cat((centre, centre))), 1))
        fused = self.espcn(torch.cat((moved[:batch], centre, moved[batch:]), 1))
        restored = self.tail(fused, frame)
        return Upsampled(
            crop_to(restored, height * self.scale, width * self.scale), None, crop_to(fused, height, width)
        )


class _Step(StreamStep):
    """Computes each frame's features once; what moves a neighbour depends on the centre, and is not shared."""

    def __init__(self, network: VESPCNMobile) -> None:
        super().__init__()
        self.network = network
        self.channels = network.features
        self.memories = (Memory("frames", 3, 1), Memory("features", self.channels, 2, multiple=4))

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        frames, features = memories
        seen = self.network.head(pad_to_multiple(frame, 4))
        return torch.cat((frames, frame), 1), torch.cat((features, seen), 1)

    def restore(self, *known: Tensor) -> Upsampled:
        frame, features = known[0][:, :3], known[1]
        first, centre, last = features.split(self.channels, 1)
        return self.network._restore(first, centre, last, pad_to_multiple(frame, 4), frame)
