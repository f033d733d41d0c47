"""How near a restored picture comes to the truth: luma, PSNR and SSIM as the field computes them.

Pictures are compared as 8-bit levels, 0 to 255: (C, H, W) for all channels together, (H, W) for one, such as `luma`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill.errors import DataError

__all__ = ["luma", "psnr", "ssim", "to_8_bit"]

_PEAK = 255.0
_WINDOW = 11
_SIGMA = 1.5


def to_8_bit(picture: Tensor) -> Tensor:
    """A picture as a file would hold it.

    Args:
        picture: any shape, nominally in [0, 1].

    Returns:
        The same shape, uint8, clamped and rounded to the levels 0..255.
    """
    return picture.clamp(0, 1).mul(255).round().to(torch.uint8)


def luma(rgb: Tensor) -> Tensor:
    """The Y of BT.601 in studio range, as MATLAB's rgb2ycbcr gives it for 8-bit pictures.

    Y = round(16 + 65.481 R + 128.553 G + 24.966 B) for R, G, B in [0, 1].

    Args:
        rgb: (..., 3, H, W), either uint8 or floating point in [0, 1].

    Returns:
        (..., H, W), float64, whole levels from 16 to 235.
    """
    unit = rgb.double() if rgb.is_floating_point() else rgb.double() / 255
    red, green, blue = unit.unbind(-3)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue + 0.5).floor()  # MATLAB rounds ties up


def psnr(restored: Tensor, truth: Tensor, crop: int = 0) -> float:
    """Peak signal-to-noise ratio, 10 log10(255^2 / MSE), the error taken over all channels and pixels together.

    Args:
        restored: (H, W) or (C, H, W), levels 0..255 of any type.
        truth: likewise.
        crop: pixels left out along every edge.

    Returns:
        Decibels; infinity for equal pictures.

    Raises:
        DataError: nothing is left after cropping.
        ValueError: the shapes differ.
    """
    first, second = _compared(restored, truth, crop, 1)
    error = (first - second).square().mean().item()
    return 10 * math.log10(_PEAK**2 / error) if error > 0 else math.inf


def ssim(restored: Tensor, truth: Tensor, crop: int = 0) -> float:
    """Structural similarity (Wang et al., IEEE TIP 2004, Eq. 13), the mean over the map and over the channels.

    As the authors' ssim_index.m and BasicSR compute it: an 11x11 Gaussian window of sigma 1.5, only where it lies
    wholly inside the picture, K1 = 0.01, K2 = 0.03, peak 255, no shrinking beforehand.

    Args:
        restored: (H, W) or (C, H, W), levels 0..255 of any type.
        truth: likewise.
        crop: pixels left out along every edge.

    Returns:
        At most 1, which only equal pictures reach.

    Raises:
        DataError: fewer than 11 pixels a side are left after cropping.
        ValueError: the shapes differ.
    """
    first, second = _compared(restored, truth, crop, _WINDOW)
    stack = torch.stack([first, second, first * first, second * second, first * second])
    mean1, mean2, square1, square2, product = _blurred(stack)
    stable1, stable2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    variances = square1 - mean1**2 + square2 - mean2**2
    covariance = product - mean1 * mean2
    luminance = (2 * mean1 * mean2 + stable1) / (mean1**2 + mean2**2 + stable1)
    structure = (2 * covariance + stable2) / (variances + stable2)
    return float((luminance * structure).mean().item())


def _compared(restored: Tensor, truth: Tensor, crop: int, least: int) -> tuple[Tensor, Tensor]:
    """Both in double precision without their borders; a shape that would broadcast is a mistake of the caller."""
    if restored.shape != truth.shape or truth.dim() not in (2, 3):
        raise ValueError(f"pictures of shapes {tuple(restored.shape)} and {tuple(truth.shape)} cannot be compared")
    height, width = truth.shape[-2:]
    if min(height, width) - 2 * crop < least:
        raise DataError(
            f"A picture of {width}x{height} with {crop} pixels cropped at every edge is too small to measure; "
            f"at least {least}x{least} must be left, so give larger frames or crop less."
        )
    inside = (..., slice(crop, height - crop), slice(crop, width - crop))
    return restored[inside].double(), truth[inside].double()


def _blurred(maps: Tensor) -> Tensor:
    """(..., H, W) -> (..., H - 10, W - 10), seen through the Gaussian window."""
    weights = [math.exp(-((k - _WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for k in range(_WINDOW)]
    for axis in (-1, -2):
        # A sum of shifted maps is 16 times as fast as conv2d, which is slow in double precision on one channel.
        length = maps.shape[axis] - _WINDOW + 1
        total = torch.zeros_like(maps.narrow(axis, 0, length))
        for k, weight in enumerate(weights):
            total.add_(maps.narrow(axis, k, length), alpha=weight / sum(weights))
        maps = total
    return maps
