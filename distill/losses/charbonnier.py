"""The Charbonnier distance: the reconstruction loss, and plain output distillation."""

from __future__ import annotations

from torch import Tensor

from distill.losses.term import Seen, Term

__all__ = ["Output", "charbonnier"]

_EPSILON = 1e-6  # where the square root turns into |d|


def charbonnier(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean over pixels of sqrt(d^2 + 1e-6^2), STD Eq. 8 read pixel by pixel, as EDVR's training does.

    Args:
        restored: pictures of any shape, [0, 1].
        truth: of the same shape.

    Returns:
        A scalar.
    """
    return ((restored - truth).square() + _EPSILON**2).sqrt().mean()


class Output(Term):
    """The Charbonnier distance between the student's frames and the teacher's: knowledge distillation of outputs."""

    name = "output"

    def forward(self, seen: Seen) -> Tensor:
        assert seen.taught is not None
        return charbonnier(seen.restored, seen.taught)
