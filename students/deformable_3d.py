"""Deformable 3-D convolution (D3D) that moves samples in space alone, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.layers import full_precision

__all__ = ["DeformableConv3d", "deform_conv3d"]


def deform_conv3d(features: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Deformable 3-D convolution of stride 1 that keeps the size and offsets its taps in height and width.

    Since no tap moves in time, each of the kernel's temporal taps samples whole frames bilinearly, pixels and frames
    outside counting as zero. It is one 2-D sampling for every temporal tap, and a 1x1 convolution of what it gave.

    Args:
        features: (N, C, T, H, W).
        offset: (N, 2*K, T, H, W) pixels, (dy, dx) interleaved for each of the K taps in the order (t, y, x).
        weight: (C_out, C, kt, kh, kw), odd sides.
        bias: (C_out,) or None.

    Returns:
        (N, C_out, T, H, W).
    """
    batch, channels, length, height, width = features.shape
    depth, rows, columns = weight.shape[2:]
    taps = rows * columns
    device, dtype = offset.device, offset.dtype
    tap_y = torch.arange(rows, device=device, dtype=dtype).repeat_interleave(columns) - rows // 2
    tap_x = torch.arange(columns, device=device, dtype=dtype).repeat(rows) - columns // 2
    place_y = tap_y[:, None, None] + torch.arange(height, device=device, dtype=dtype)[:, None]
    place_x = tap_x[:, None, None] + torch.arange(width, device=device, dtype=dtype)
    frames = functional.pad(features, (0, 0, 0, 0, depth // 2, depth // 2)).transpose(1, 2)
    moves = offset.transpose(1, 2).flatten(0, 1)  # (N*T, 2*K, H, W); no tensor has over five axes, Core ML's limit
    result = None
    for tap in range(depth):
        first, end = 2 * taps * tap, 2 * taps * (tap + 1)
        y = place_y + moves[:, first:end:2]
        x = place_x + moves[:, first + 1 : end : 2]
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)
        samples = functional.grid_sample(
            frames[:, tap : tap + length].reshape(batch * length, channels, height, width),
            grid.reshape(batch * length, taps * height, width, 2),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        ).reshape(batch * length, channels * taps, height, width)
        pointwise = weight[:, :, tap].reshape(weight.shape[0], -1, 1, 1)
        part = functional.conv2d(samples, pointwise, bias if tap == 0 else None)
        result = part if result is None else result + part
    assert result is not None
    convolved: Tensor = result.unflatten(0, (batch, length)).transpose(1, 2)
    return convolved


class DeformableConv3d(nn.Module):
    """A 3x3x3 deformable convolution whose offsets a plain 3-D convolution reads off the same feature.

    Offsets start at zero, so training starts from an ordinary convolution. They are computed in float32 whatever
    the rest runs in: half precision would move samples by visible parts of a pixel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Conv3d(channels, 2 * 27, 3, padding=1)
        nn.init.kaiming_normal_(self.weight, a=0.1)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]
        self.mean_offset = torch.zeros(())

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, T, H, W) in and out."""
        with full_precision(features.device.type):
            offset = self.conv_offset(features.to(self.weight.dtype))
        if self.training:
            self.mean_offset = offset.detach().abs().mean()
        return deform_conv3d(features.to(offset.dtype), offset, self.weight, self.bias)
