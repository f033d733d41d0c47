"""Cross-stream consistency: interpolate then restore, or restore then interpolate, must agree (Lin et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill.layers import warp
from distill.losses.charbonnier import charbonnier
from distill.losses.term import Seen, Term
from distill.networks.optical_flow import estimate_flow

__all__ = ["Consistency", "half_way_flows", "interpolated"]


class Consistency(Term):
    """L_C, Eq. 7: the distance between the streams space-then-time and time-then-space; it needs no truth.

    f_S is the student. f_T moves two frames half-way towards each other along the optical flow of the low-resolution
    frames and takes their mean; nothing in it learns. A student that keeps the frame rate is shown the clip once more,
    with every frame at an odd place but the last of an even number interpolated from its two neighbours: what it makes
    of those frames is one stream, interpolating its restored neighbours the other. For a student that doubles the
    frame rate, which is f_S and f_T in one, its own frames in between are the first stream.

    The paper weighs the distance of the streams by lambda against that of each from the truth, in the same norm. Here
    that is the Charbonnier distance of the reconstruction loss, a mean over frames and pixels, so that lambda keeps its
    meaning. The paper gained with every lambda up to 8.
    """

    name = "consistency"
    taught = False

    def forward(self, seen: Seen) -> Tensor:
        doubled = seen.student.time_scale == 2
        given = seen.low if doubled else seen.low[:, ::2]
        if given.shape[1] < 2:
            return seen.restored.new_zeros(())  # nothing lies between
        flows = half_way_flows(given)
        time_last = interpolated(seen.restored[:, ::2], _enlarged(flows, seen.student.scale))
        count = time_last.shape[1]
        if doubled:
            return charbonnier(seen.restored[:, 1::2], time_last)
        clip = seen.low.clone()
        clip[:, 1 : 2 * count : 2] = interpolated(given, flows)
        space_last = seen.student(clip).frames[:, 1 : 2 * count : 2].float()
        return charbonnier(space_last, time_last)


def half_way_flows(clip: Tensor) -> Tensor:
    """From the moment half-way between each frame and the next to both of them, motion taken as linear and local.

    Args:
        clip: (B, T, 3, h, w) in [0, 1].

    Returns:
        (B, 2, T - 1, 2, h, w), pixels to the right and down, without gradient: to the earlier frames, to the later.
    """
    before, after = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
    flows = [estimate_flow(*pair, keep=False) / 2 for pair in ((after, before), (before, after))]
    both: Tensor = torch.stack(flows).unflatten(1, (clip.shape[0], -1))
    return both.transpose(0, 1)


def interpolated(clip: Tensor, flows: Tensor) -> Tensor:
    """The frames half-way between each frame and the next: both moved there, and their mean.

    Args:
        clip: (B, T, 3, H, W); gradients pass.
        flows: (B, 2, T - 1, 2, H, W), see `half_way_flows`.

    Returns:
        (B, T - 1, 3, H, W) float32.
    """
    sources = torch.stack((clip[:, :-1], clip[:, 1:]), 1).float()
    moved = warp(sources.flatten(0, 2), flows.flatten(0, 2), padding="border")
    mean: Tensor = moved.unflatten(0, flows.shape[:3]).mean(1)
    return mean


def _enlarged(flows: Tensor, scale: int) -> Tensor:
    """Flows for frames `scale` times larger."""
    larger = functional.interpolate(flows.flatten(0, 2), scale_factor=scale, mode="bilinear", align_corners=False)
    enlarged: Tensor = scale * larger.unflatten(0, flows.shape[:3])
    return enlarged
