"""Modulated deformable convolution (DCNv2) in plain PyTorch: nothing to compile, nothing to go missing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.layers import full_precision

__all__ = ["DeformablePack", "deform_conv2d"]


def deform_conv2d(
    features: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Deformable convolution, equal to torchvision's `deform_conv2d` forward and in every gradient.

    The source is sampled bilinearly at each tap's displaced place, pixels outside counting as zero, and the
    samples, times the mask, are convolved as a 1x1 convolution over taps and channels would.

    Args:
        features: (B, C, H, W).
        offset: (B, 2*G*K, h, w) pixels, (dy, dx) interleaved for each tap k = i*kw + j of each offset group.
        weight: (C_out, C / groups, kh, kw).
        bias: (C_out,) or None.
        mask: (B, G*K, h, w) or None for all ones.
        stride: of the convolution, both directions alike.
        padding: zeros around the source, both directions alike.
        dilation: of the kernel, both directions alike.

    Returns:
        (B, C_out, h, w).
    """
    columns = _sample_taps(features, offset, mask, weight.shape[-2:], stride, padding, dilation)
    groups = features.shape[1] // weight.shape[1]
    pointwise = weight.reshape(weight.shape[0], -1, 1, 1)
    return functional.conv2d(columns, pointwise, bias, groups=groups)


def _sample_taps(
    features: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel: torch.Size,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """What each tap sees, times the mask: (B, C * K, h, w)."""
    batch, channels, height, width = features.shape
    taps = kernel[0] * kernel[1]
    out_height, out_width = offset.shape[-2:]
    offset = offset.unflatten(1, (-1, taps, 2))  # (B, G, K, 2, h, w)
    groups = offset.shape[1]
    device, dtype = offset.device, offset.dtype
    tap_y = torch.arange(kernel[0], device=device, dtype=dtype).repeat_interleave(kernel[1]) * dilation - padding
    tap_x = torch.arange(kernel[1], device=device, dtype=dtype).repeat(kernel[0]) * dilation - padding
    row = torch.arange(out_height, device=device, dtype=dtype) * stride
    column = torch.arange(out_width, device=device, dtype=dtype) * stride
    y = offset[:, :, :, 0] + (tap_y[:, None, None] + row[:, None])
    x = offset[:, :, :, 1] + (tap_x[:, None, None] + column)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), -1)  # (B, G, K, h, w, 2)
    samples = functional.grid_sample(
        features.reshape(batch * groups, channels // groups, height, width),
        grid.reshape(batch * groups, taps * out_height, out_width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    if mask is not None:
        samples = samples * mask.reshape(batch * groups, 1, taps * out_height, out_width)
    return samples.reshape(batch, channels * taps, out_height, out_width)


class DeformablePack(nn.Module):
    """A deformable convolution whose offsets and masks a plain convolution reads off a second feature.

    Offsets and masks start at zero and 0.5, so training starts from half an ordinary convolution. They are computed
    in float32 whatever the rest runs in: half precision would move samples by visible parts of a pixel.
    """

    def __init__(self, channels: int, offset_groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Conv2d(channels, offset_groups * 27, 3, padding=1)
        bound = (channels * 9) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]
        self.mean_offset = torch.zeros(())

    def forward(self, features: Tensor, offset_features: Tensor) -> Tensor:
        """(B, C, H, W) sampled where `offset_features` (B, C, H, W) says."""
        with full_precision(features.device.type):
            first, second, mask = self.conv_offset(offset_features.to(self.weight.dtype)).chunk(3, dim=1)
        offset = torch.cat((first, second), dim=1)
        if self.training:
            self.mean_offset = offset.detach().abs().mean()
        return deform_conv2d(features.to(self.weight.dtype), offset, self.weight, self.bias, mask.sigmoid(), padding=1)
