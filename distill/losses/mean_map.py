"""The mean over channels, squared, of F^LR follows the teacher's (KD-M^2_mean of STD Table 3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from distill.losses.term import Seen, Term

__all__ = ["Mean", "mean_map", "mean_map_distance"]


def mean_map(features: Tensor) -> Tensor:
    """M^2_mean(F) = (1/C sum_i F_i)^2, (..., C, H, W) -> (..., H, W), not negative.

    Gao et al. (Image super-resolution using knowledge distillation, ACCV 2018), as STD Sec. 4.3 writes it. Unlike the
    maps of STD's Eqs. 1 to 3, it is blind to what cancels out between channels.
    """
    return features.mean(-3).square()


def mean_map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of the two maps, averaged over the clip's frames.

    Args:
        student: features (B, N, C, H, W).
        teacher: features (B, N, C', H, W).

    Returns:
        A scalar.
    """
    return functional.mse_loss(mean_map(student), mean_map(teacher))


class Mean(Term):
    """KD-M^2_mean, always of F^LR."""

    name = "mean"
    compares = "lr"

    def forward(self, seen: Seen) -> Tensor:
        return mean_map_distance(*seen.features())
