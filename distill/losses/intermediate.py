"""Pictures that a network makes before it refines its features are supervised too (STINet Eq. 4)."""

from __future__ import annotations

from torch import Tensor

from distill.losses.charbonnier import charbonnier
from distill.losses.term import Seen, Term

__all__ = ["Intermediate"]


class Intermediate(Term):
    """l'_rec, Eq. 4: the reconstruction loss on the pictures of both resolutions that are made before the refinement.

    STARnet's published code has the like for its first stage, weighted 0.4. The low-resolution part counts all frames
    of the clip, also those that STARnet does not make but is given, whose distance is 0.
    """

    name = "intermediate"
    taught = False
    needs_truth = True
    looks_inside = True

    def forward(self, seen: Seen) -> Tensor:
        assert seen.truth is not None
        made, low_truth = seen.inside()
        return charbonnier(made.frames.float(), seen.truth) + charbonnier(made.low.float(), low_truth)
