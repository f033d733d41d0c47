"""Half the size and twice the size, as EDVR's attention and, after it, STVUN's change it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["doubled", "pools"]


def pools(features: Tensor) -> Tensor:
    """Maximum and mean over 3x3, side by side: (N, C, h, w) -> (N, 2C, h/2, w/2), rounded up."""
    return torch.cat((functional.max_pool2d(features, 3, 2, 1), functional.avg_pool2d(features, 3, 2, 1)), 1)


def doubled(features: Tensor) -> Tensor:
    """Bilinear, (N, C, h, w) -> (N, C, 2h, 2w)."""
    return functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
