"""Hints: the student's features themselves, not maps of them, follow the teacher's (KD-MSE of STD Table 3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from distill.layers import full_precision
from distill.losses.term import Seen, Surroundings, Term, channel_adapter

__all__ = ["FitNet", "feature_distance"]


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over frames, channels and pixels of (F_S - F_T)^2.

    That is the hint loss of Romero et al. (FitNets, ICLR 2015, Eq. 3) as a mean; STD compares with it as KD-MSE.

    Args:
        student: features (B, N, C, H, W).
        teacher: features of the same shape.

    Returns:
        A scalar.
    """
    return functional.mse_loss(student, teacher)


class FitNet(Term):
    """KD-MSE. A 1x1 convolution, FitNets' regressor, lies before the comparison where channels differ."""

    name = "fitnet"
    compares = "features"

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.adapter = channel_adapter(surroundings.ours, surroundings.theirs)

    def forward(self, seen: Seen) -> Tensor:
        ours, theirs = seen.features()
        with full_precision(ours.device.type):
            adapted = self.adapter(ours.flatten(0, 1)).unflatten(0, ours.shape[:2])
            return feature_distance(adapted, theirs)
