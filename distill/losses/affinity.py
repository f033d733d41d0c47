"""Affinity: which places of a frame look alike to the student should look alike to the teacher."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from distill.layers import full_precision
from distill.losses.term import Seen, Term

__all__ = ["Affinity", "affinity_distance", "affinity_matrix"]

_GRID = 8  # cells a side: 64 x 64 numbers a frame, where all pixels of a 256x256 crop would need 4 billion


def affinity_matrix(features: Tensor) -> Tensor:
    """A = F^T F of pooled features whose every position has length 1: cosines between positions.

    FAKD (He et al., ICIP 2020) takes every pixel as a position, H*W squared numbers. Here features are first averaged
    over a grid of cells, fewer where the frame is smaller, so memory does not grow with the frame.

    Args:
        features: (B, N, C, H, W).

    Returns:
        (B, N, P, P) in [-1, 1], P = min(8, H) * min(8, W).
    """
    height, width = features.shape[-2:]
    cells = min(_GRID, height), min(_GRID, width)
    pooled = functional.adaptive_avg_pool2d(features.flatten(0, 1), cells).flatten(-2)
    units = functional.normalize(pooled, dim=1)
    matrix: Tensor = (units.mT @ units).unflatten(0, features.shape[:2])
    return matrix


def affinity_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over frames and pairs of positions of |A_S - A_T|, FAKD's L1 distance.

    Args:
        student: features (B, N, C, H, W).
        teacher: features (B, N, C', H, W).

    Returns:
        A scalar.
    """
    return functional.l1_loss(affinity_matrix(student), affinity_matrix(teacher))


class Affinity(Term):
    """Pooled feature affinity, frame by frame; any numbers of channels compare."""

    name = "affinity"
    compares = "features"

    def forward(self, seen: Seen) -> Tensor:
        ours, theirs = seen.features()
        with full_precision(ours.device.type):
            return affinity_distance(ours, theirs)
