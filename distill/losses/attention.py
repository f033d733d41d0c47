"""Space distillation: the student's attention maps follow the teacher's (STD Sec. 3.1)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from distill.losses.term import Seen, Term

__all__ = ["AttentionMax", "AttentionSum", "Mapping", "Space", "attention_map", "space_distance"]

Mapping = Literal["sum_squared", "sum_absolute", "max_squared"]


def attention_map(features: Tensor, mapping: Mapping = "sum_squared") -> Tensor:
    """Which pixels matter: (..., C, H, W) -> (..., H, W), not negative.

    Args:
        features: F^SR or F^LR.
        mapping: sum over channels of F^2 (Eq. 2), of |F| (Eq. 1), or the largest F^2 (Eq. 3).
    """
    if mapping == "sum_absolute":
        return features.abs().sum(-3)
    squared = features.square()
    return squared.sum(-3) if mapping == "sum_squared" else squared.amax(-3)


def space_distance(student: Tensor, teacher: Tensor, mapping: Mapping = "sum_squared") -> Tensor:
    """L_SD, Eqs. 4 and 5: mean squared distance of the attention maps, averaged over the clip's frames.

    Args:
        student: features (B, N, C, H, W); channels may be of another number than the teacher's.
        teacher: features (B, N, C', H, W).
        mapping: see `attention_map`.

    Returns:
        A scalar.
    """
    return functional.mse_loss(attention_map(student, mapping), attention_map(teacher, mapping))


class Space(Term):
    """L_SD with the maps of Eq. 2, the paper's choice."""

    name = "space"
    compares = "features"
    mapping: ClassVar[Mapping] = "sum_squared"

    def forward(self, seen: Seen) -> Tensor:
        return space_distance(*seen.features(), self.mapping)


class AttentionSum(Space):
    """L_SD with the maps of Eq. 1."""

    name = "attention-sum"
    mapping = "sum_absolute"


class AttentionMax(Space):
    """L_SD with the maps of Eq. 3."""

    name = "attention-max"
    mapping = "max_squared"
