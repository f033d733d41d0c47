"""Attention transfer: the student's attention map has the direction of the teacher's, whatever its size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from distill.losses.attention import attention_map
from distill.losses.term import Seen, Term

__all__ = ["AttentionTransfer", "attention_transfer_distance"]


def attention_transfer_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over frames of || Q_S / ||Q_S||_2 - Q_T / ||Q_T||_2 ||_2^2, Q a frame's map sum |F|^2 as one vector.

    Eq. 2 of Zagoruyko and Komodakis (Paying more attention to attention, ICLR 2017), whose norm is squared here: the
    sum over a frame's pixels, so 2 - 2 cos of the angle between the maps, from 0 to 2 at any size of frame.

    Args:
        student: features (B, N, C, H, W).
        teacher: features (B, N, C', H, W).

    Returns:
        A scalar.
    """
    ours, theirs = (functional.normalize(attention_map(each).flatten(-2), dim=-1) for each in (student, teacher))
    return (ours - theirs).square().sum(-1).mean()


class AttentionTransfer(Term):
    """Normalised attention maps; unlike `space`, it needs no matched scales."""

    name = "attention-transfer"
    compares = "features"

    def forward(self, seen: Seen) -> Tensor:
        return attention_transfer_distance(*seen.features())
