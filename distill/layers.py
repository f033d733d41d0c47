"""Building blocks that teachers and students share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "BicubicUpsample",
    "Colour",
    "HrTap",
    "LumaChroma",
    "PixelShuffleTail",
    "ResidualBlock",
    "channels_last",
    "crop_to",
    "full_precision",
    "leaky",
    "pad_to_multiple",
    "warp",
]

Colour = Literal["y", "rgb"]
HrTap = Literal["conv_last", "conv_hr"]


class ResidualBlock(nn.Module):
    """conv - ReLU - conv plus identity, without normalisation; (B, C, h, w) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)  # keeps deep stacks without normalisation near the identity at the start
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.conv2(functional.relu(self.conv1(features)))
        return features + change


class PixelShuffleTail(nn.Module):
    """EDVR's tail: (B, C, h, w) -> a picture (B, 3, 4h, 4w) and the feature F^SR (B, 64, 4h, 4w) it is made of.

    Two tensors fit the paper's words for F^SR: the input of the last convolution (`hr_tap="conv_last"`, "obtained
    by convolving F to reduce the number of channels") and that of the one before (`"conv_hr"`).
    """

    hr_channels = 64

    def __init__(self, channels: int, hr_tap: HrTap = "conv_last") -> None:
        super().__init__()
        if hr_tap not in get_args(HrTap):
            raise ValueError(f"hr_tap is {hr_tap!r}, expected one of {get_args(HrTap)}")
        self.hr_tap = hr_tap
        self.upconv1 = nn.Conv2d(channels, channels * 4, 3, padding=1)
        self.upconv2 = nn.Conv2d(channels, self.hr_channels * 4, 3, padding=1)
        self.conv_hr = nn.Conv2d(self.hr_channels, self.hr_channels, 3, padding=1)
        self.conv_last = nn.Conv2d(self.hr_channels, 3, 3, padding=1)
        for conv in (self.upconv1, self.upconv2, self.conv_hr):
            # torch's own default halves the signal at every layer, and the tail then takes long to learn anything
            nn.init.kaiming_normal_(conv.weight, a=0.1)
        nn.init.zeros_(self.conv_last.weight)  # an untrained network is its base image, not noise
        nn.init.zeros_(self.conv_last.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        features = leaky(functional.pixel_shuffle(self.upconv1(features), 2))
        shuffled = leaky(functional.pixel_shuffle(self.upconv2(features), 2))
        refined = leaky(self.conv_hr(shuffled))
        return self.conv_last(refined), refined if self.hr_tap == "conv_last" else shuffled


class BicubicUpsample(nn.Module):
    """torch's bicubic (a = -0.75, align_corners=False), (B, C, h, w) -> (B, C, scale*h, scale*w), to 4e-7.

    Written as replicate padding, one fixed 5x5 convolution and a pixel shuffle, because phone runtimes lack a
    cubic resize or run it slowly, and because it so exports as what was trained.
    """

    def __init__(self, scale: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.phases = _BicubicPhases(scale, channels)
        """The same before the pixel shuffle, (B, C * scale^2, h, w), for a tail that adds the base there."""

    def forward(self, picture: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.phases(picture), self.scale)


class _BicubicPhases(nn.Module):
    """All scale^2 pixels over each low-resolution one, as channels."""

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        taps = torch.stack([_cubic_taps((phase + 0.5) / scale - 0.5) for phase in range(scale)])
        kernel = torch.einsum("ay,bx->abyx", taps, taps).reshape(scale**2, 5, 5)
        weight = torch.zeros(channels, scale**2, channels, 5, 5, dtype=torch.float64)
        for channel in range(channels):
            weight[channel, :, channel] = kernel
        self.register_buffer("weight", weight.flatten(0, 1).float(), persistent=False)
        self.weight: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        with full_precision(picture.device.type):
            padded = functional.pad(picture.to(self.weight.dtype), (2, 2, 2, 2), mode="replicate")
            return functional.conv2d(padded, self.weight)


class LumaChroma(nn.Module):
    """RGB in [0, 1] to Y, Cb, Cr of BT.601 in studio range, divided by 255, as MATLAB's rgb2ycbcr; (N, 3, H, W).

    The networks published for luminance alone were trained on this Y.
    """

    def __init__(self) -> None:
        super().__init__()
        weight = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
        matrix = torch.tensor(weight, dtype=torch.float64) / 255
        shift = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64) / 255
        inverse = torch.linalg.inv(matrix)
        self.forth = _ColourMatrix(matrix, shift)
        self.back = _ColourMatrix(inverse, -inverse @ shift)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.forth(rgb)  # type: ignore[no-any-return]

    def rgb(self, ycbcr: Tensor) -> Tensor:
        """The way back, (N, 3, H, W), not clamped."""
        return self.back(ycbcr)  # type: ignore[no-any-return]


class _ColourMatrix(nn.Module):
    """A fixed 1x1 convolution."""

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", matrix[:, :, None, None].float(), persistent=False)
        self.register_buffer("bias", shift.float(), persistent=False)
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        return functional.conv2d(picture, self.weight, self.bias)


def warp(features: Tensor, flow: Tensor, padding: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Sample bilinearly where the flow points: out(p) = features(p + flow(p)).

    Args:
        features: (N, C, H, W).
        flow: (N, 2, H, W) pixels, to the right and down.
        padding: what lies outside: zeros, or the nearest edge pixel.

    Returns:
        (N, C, H, W).
    """
    height, width = features.shape[-2:]
    # float32 whatever the rest runs in, and arange, because linspace fixes the size in an exported file
    x = torch.arange(width, device=flow.device, dtype=torch.float32) + flow[:, 0].float()
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None] + flow[:, 1].float()
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)
    sampled = functional.grid_sample(features.float(), grid, mode="bilinear", padding_mode=padding, align_corners=True)
    return sampled.to(features.dtype)


def _cubic_taps(shift: float) -> Tensor:
    """Weights of the pixels -2..2 for a sample `shift` pixels (-0.5..0.5) right of pixel 0; Keys' kernel, a = -0.75."""
    a = -0.75
    distance = (torch.arange(-2, 3, dtype=torch.float64) - shift).abs()
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


def full_precision(device: str) -> AbstractContextManager[object]:
    """Suspends mixed precision for colour, base images, and whatever tells where to sample.

    Only where it is on: exporting and counting know no such context.
    """
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def pad_to_multiple(clip: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (..., 3, h, w) until both sides are multiples of `multiple`."""
    bottom, right = (-side % multiple for side in clip.shape[-2:])
    if not (bottom or right):
        return clip
    padded: Tensor = functional.pad(clip.flatten(0, -4), (0, right, 0, bottom), mode="replicate")
    restored: Tensor = padded.unflatten(0, clip.shape[:-3])
    return restored


def crop_to(features: Tensor, height: int, width: int) -> Tensor:
    """The top left (..., height, width) of (..., H, W): undoes `pad_to_multiple`."""
    return features[..., :height, :width]


def leaky(features: Tensor) -> Tensor:
    """Leaky ReLU with the slope of all these networks, 0.1."""
    return functional.leaky_relu(features, 0.1)


def channels_last(module: nn.Module) -> None:
    """Lay a module's weights out with their channels last in memory: faster wherever convolutions are, on CPU and GPU.

    It changes no result beyond the rounding of floats. A 3-D convolution's weights, which have five axes, stay.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
