"""STARnet's training objectives: space, time, and both, and flow refinement (STARnet Secs. 3.2 to 3.4).

L_1 is a mean over pixels where Eq. 12 sums, on colours in [0, 1], where the published code normalises them as for
ImageNet. L_vgg of each objective is the term `perceptual`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill.errors import ConfigError
from distill.interfaces import VideoNetwork
from distill.losses.term import Seen, Term
from distill.networks.optical_flow import estimate_flow

__all__ = ["StarFlow", "StarSpace", "StarSpaceTime", "StarTime", "flow_through_the_middle"]

_FLOW_UNIT = 150.0
"""Pixels, in which STARnet reads flows."""


class StarSpace(Term):
    """Space loss: L_1 (Eq. 12) on the given frames at high resolution; of any network."""

    name = "star-space"
    taught = False
    needs_truth = True

    def forward(self, seen: Seen) -> Tensor:
        assert seen.truth is not None
        every = seen.student.time_scale
        return functional.l1_loss(seen.restored[:, ::every], seen.truth[:, ::every])


class StarSpaceTime(Term):
    """Space-time loss: L_1 on the frames in between at high resolution; of any network that doubles the frame rate."""

    name = "star-space-time"
    taught = False
    needs_truth = True

    @classmethod
    def check(cls, student: VideoNetwork) -> None:
        if student.time_scale != 2:
            raise ConfigError(
                f"The term {cls.name} is about frames between the given ones, which {type(student).__name__} does not "
                "make; build the student with student_options={time_scale: 2}, or leave the term out."
            )

    def forward(self, seen: Seen) -> Tensor:
        assert seen.truth is not None
        return functional.l1_loss(seen.restored[:, 1::2], seen.truth[:, 1::2])


class StarTime(Term):
    """Time loss: L_1 on the frames in between at low resolution, of a network that makes them too."""

    name = "star-time"
    taught = False
    looks_inside = True

    def forward(self, seen: Seen) -> Tensor:
        made, low_truth = seen.inside()
        low = made.refined_low if made.refined_low is not None else made.low
        return functional.l1_loss(low[:, 1::2].float(), low_truth[:, 1::2])


class StarFlow(Term):
    """L_flow, Eq. 15: the corrected flow between given frames is that through the frame in between.

    As the published code has it, flows count in units of 150 pixels, and the squared difference is a mean.
    """

    name = "star-flow"
    taught = False
    looks_inside = True

    def forward(self, seen: Seen) -> Tensor:
        made, low_truth = seen.inside()
        if made.flows is None:
            raise ConfigError(
                "The term star-flow teaches a network that corrects optical flow, which this student is not built to "
                "do; take starnet-v4-ref or STARnet with refine_flow, or leave the term out."
            )
        wanted = flow_through_the_middle(low_truth)
        # the sum of both directions, each a mean
        return 2 * functional.mse_loss(made.flows.float() / _FLOW_UNIT, wanted / _FLOW_UNIT)


def flow_through_the_middle(low: Tensor) -> Tensor:
    """F(t -> t+n) + F(t+n -> t+1) and F(t+1 -> t+n) + F(t+n -> t) of Eq. 15, as fields added pixel by pixel.

    Args:
        low: (B, 2T - 1, 3, h, w) in [0, 1], the frames in between at odd places.

    Returns:
        (B, 2, T - 1, 2, h, w) pixels, forward and backward, without gradient.
    """
    batch, length = low.shape[:2]
    before, after = low[:, :-1].flatten(0, 1), low[:, 1:].flatten(0, 1)
    forward, backward = (
        estimate_flow(*pair, keep=False).unflatten(0, (batch, (length - 1) // 2, 2)).sum(2)
        for pair in ((before, after), (after, before))
    )
    return torch.stack((forward, backward), 1)
