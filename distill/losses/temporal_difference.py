"""Temporal difference: what changes along the motion from frame to frame changes as the teacher makes it change."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill.layers import full_precision, warp
from distill.losses.term import Seen, Term
from distill.networks.optical_flow import estimate_flow

__all__ = ["Temporal", "backward_flow", "temporal_distance"]

_SHARPNESS = 50.0


def backward_flow(reference: Tensor, scale: int) -> Tensor:
    """Flow from each frame but the first to the one before, found on frames of low resolution, without gradient.

    A flow costs by the pixel; at full resolution it would cost 16 times as much for x4.

    Args:
        reference: (B, N, 3, H, W) in [0, 1], H and W multiples of `scale`.
        scale: factor by which frames are shrunk, by averages, before flow is estimated.

    Returns:
        (B, N - 1, 2, H, W) float32 pixels, right and down: frame t at p is frame t - 1 at p + flow.
    """
    shape = (len(reference), reference.shape[1] - 1)
    small = functional.avg_pool2d(reference.flatten(0, 1), scale).unflatten(0, reference.shape[:2])
    flow = estimate_flow(small[:, 1:].flatten(0, 1), small[:, :-1].flatten(0, 1), keep=False)
    enlarged = functional.interpolate(flow, scale_factor=scale, mode="bilinear", align_corners=False)
    in_pixels: Tensor = (scale * enlarged).unflatten(0, shape)
    return in_pixels


def temporal_distance(restored: Tensor, taught: Tensor, reference: Tensor, flow: Tensor) -> Tensor:
    """Mean of V |(S_t - W S_{t-1}) - (T_t - W T_{t-1})| over t > 0, pixels and colours, V the weights.

    S and T are the student's and the teacher's frames, W warps to frame t along the flow, and V = exp(-50 |R_t - W
    R_{t-1}|^2) is how surely a pixel of the reference R was seen in both frames (Lai et al., Learning blind video
    temporal consistency, ECCV 2018, whose temporal loss has no teacher: there both frames are the student's). V is 0
    where the flow leaves the picture.

    Args:
        restored: by the student, (B, N, 3, H, W) in [0, 1].
        taught: by the teacher, the same shape.
        reference: what motion and occlusions are those of, the same shape.
        flow: (B, N - 1, 2, H, W), see `backward_flow`.

    Returns:
        A scalar; 0 for a single frame.
    """
    if restored.shape[1] < 2:
        return 0 * restored.sum()
    error = restored - taught  # warping is linear: the difference of the differences is that of the error
    before = torch.cat((error, reference, torch.ones_like(reference[:, :, :1])), 2)[:, :-1]
    moved = warp(before.flatten(0, 1), flow.flatten(0, 1))
    error_before, reference_before, inside = moved.unflatten(0, flow.shape[:2]).split((3, 3, 1), 2)
    misfit = (reference[:, 1:] - reference_before).square().sum(2, keepdim=True)
    visible = inside * torch.exp(-_SHARPNESS * misfit)
    change = (error[:, 1:] - error_before).abs().mean(2, keepdim=True)
    mean: Tensor = (visible * change).sum() / visible.sum().clamp(min=1)
    return mean


class Temporal(Term):
    """Flow-warped temporal difference; the flow is the truth's, or the teacher's where there is no truth."""

    name = "temporal"

    def forward(self, seen: Seen) -> Tensor:
        assert seen.taught is not None
        reference = seen.reference()
        with full_precision(reference.device.type):
            flow = backward_flow(reference, seen.student.scale)
            return temporal_distance(seen.restored, seen.taught, reference, flow)
