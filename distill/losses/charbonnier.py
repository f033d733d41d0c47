"""The reconstruction loss."""

from __future__ import annotations

from torch import Tensor

__all__ = ["charbonnier"]


def charbonnier(restored: Tensor, truth: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Mean over pixels of sqrt(d^2 + epsilon^2), STD Eq. 8 read pixel by pixel, as EDVR's training does.

    Args:
        restored: pictures of any shape, [0, 1].
        truth: of the same shape.
        epsilon: where the square root turns into |d|.

    Returns:
        A scalar.
    """
    return ((restored - truth).square() + epsilon**2).sqrt().mean()
