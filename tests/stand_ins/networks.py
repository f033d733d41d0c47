"""Small networks, seeded weights, and what goes into a network and beside it."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.interfaces import ClipNetwork, Upsampled, WindowNetwork
from students.vespcn_mobile import VESPCNMobile
from teachers.deformable import DeformablePack

METADATA = {
    "network": "fastdvdnet",
    "keywords": json.dumps({"channels": 16, "blocks": 2}),
    "degradation": "BD",
    "provenance": json.dumps({"recipe": "none", "note": "Größe 中"}),
}


class Tiny(WindowNetwork):
    """Three frames, one convolution."""

    window, lr_channels, hr_channels = 3, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(9, 48, 3, padding=1)

    def reconstruct(self, window: Tensor) -> Upsampled:
        frame = functional.pixel_shuffle(self.conv(window.flatten(1, 2)), 4)
        return Upsampled(frame, frame, window[:, 1])


class Torn(Tiny):
    """What it does depends on the pixels."""

    def reconstruct(self, window: Tensor) -> Upsampled:
        return super().reconstruct(window if window.sum() > 0 else -window)


class Skip(nn.Module):
    """x (2 channels) -> a (4) -> b (4) -> a + b."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.change = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enter(x).relu()
        return a + self.change(a)


class Doubling(ClipNetwork):
    """Twice the frame rate: means of neighbours, every pixel a 4x4 block; a few frames at a time."""

    time_scale, hr_channels, lr_channels = 2, None, 3
    chunk, overlap = 4, 1

    def forward(self, clip: Tensor) -> Upsampled:
        given, between = (
            Upsampled(frames.repeat_interleave(4, -1).repeat_interleave(4, -2), None, frames)
            for frames in (clip, (clip[:, 1:] + clip[:, :-1]) / 2)
        )
        return given.interleaved(between)


def randomise(network, gain=1.2):
    """Seeded weights, by name so that the order of construction does not matter; nothing is silent."""
    for name, parameter in sorted(network.named_parameters()):
        generator = torch.Generator().manual_seed(sum(name.encode()))
        spread = gain / max(parameter[0].numel() ** 0.5, 1) if parameter.ndim > 1 else 0.1
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return network.eval()


def randomise_with_statistics(network):
    """The same for networks with batch normalisation, whose scales and statistics then are as after a training."""
    for name, tensor in sorted(network.state_dict().items()):
        generator = torch.Generator().manual_seed(sum(name.encode()))
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            spread = 0.7 / max(tensor[0].numel() ** 0.5, 1) if tensor.ndim > 1 else 0.1
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
    return network.eval()


def thin_mobile():
    return randomise(VESPCNMobile(widths=(16, 16, 16), channels=(16,)))


def randomised(network: WindowNetwork) -> WindowNetwork:
    """Weights and statistics as after a training: nothing is zero, one or small by initialisation."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
        if isinstance(module, DeformablePack):
            nn.init.normal_(module.conv_offset.weight, std=0.05, generator=generator)
            nn.init.normal_(module.conv_offset.bias, std=2, generator=generator)
    nn.init.normal_(network.tail.conv_last.weight, std=0.05, generator=generator)
    return network


def trained_like(network):
    """Statistics as after a training, and no layer that starts silent still is."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05, generator=generator)
    return network.eval()


def moving_clip(frames, height, width, speed=1):
    """A textured picture that drifts by half a pixel a frame, or so many times that."""
    row, column = torch.arange(height)[:, None], torch.arange(width)
    shift = torch.arange(frames)[:, None, None, None] * speed / 2
    colour = torch.arange(3)[None, :, None, None]
    return 0.5 + 0.25 * torch.sin((column + shift) * 0.9 + colour) + 0.25 * torch.sin(row * 0.7 - shift)
