"""Motion consistency: restored frames move as the true ones do, and onwards (STINet Sec. III-F)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from distill.layers import full_precision, warp
from distill.losses.term import Seen, Term

__all__ = ["Motion", "absolute_distance", "differentiable_flow", "relative_distance"]

# Chosen on footage against `estimate_flow`.
_LEVELS = 4
_STEPS = 5  # at each level; each moves a pixel by less than one of the level's pixels
_WINDOW = 5
_SMOOTHED = 7  # pixels a side over which the flow is averaged after each step
_FLATNESS = 1e-3
"""Squared slope, luma in [0, 1] a pixel, under which a window says little, and its flow stays what it was."""


class Motion(Term):
    """l_mcl = l_abs + l_rel, Eqs. 2 and 3, with a gradient that the published code's OpenCV flow cannot have.

    Flows are estimated at half the frames' size, in its pixels, in the same way of restored and true frames, from each
    frame to the next and to the one after that: of the N (N - 1) pairs of Eq. 2 those that Eq. 3 looks at too, because
    further ones cost more and are estimated worse, and the way back adds nothing new. Footage without truth has the
    relative part alone. Both parts are means where the paper sums.
    """

    name = "motion"
    taught = False

    def forward(self, seen: Seen) -> Tensor:
        if seen.restored.shape[1] < 2:
            return seen.restored.new_zeros(())  # nothing moves
        next_one, after_next = _clip_flows(seen.restored)
        relative = relative_distance(next_one, after_next)
        if seen.truth is None:
            return relative
        with torch.no_grad():
            true_next, true_after_next = _clip_flows(seen.truth)
        ours, theirs = (torch.cat(flows, 1) for flows in ((next_one, after_next), (true_next, true_after_next)))
        return absolute_distance(ours, theirs) + relative


def absolute_distance(restored: Tensor, truth: Tensor) -> Tensor:
    """l_abs, Eq. 2: the mean squared difference of flows, of the same pairs of restored and of true frames."""
    return functional.mse_loss(restored, truth)


def relative_distance(next_one: Tensor, after_next: Tensor) -> Tensor:
    """l_rel, Eq. 3: how far a frame's flow to the next one exceeds, in its own direction, that to the one after it.

    Args:
        next_one: (B, N - 1, 2, H, W), flow from each frame to the next.
        after_next: (B, N - 2, 2, H, W), flow from each frame to the one after the next.

    Returns:
        A scalar, the mean over N - 2 frames, pixels and both directions; 0 where N is 2 or less.
    """
    near = next_one[:, : after_next.shape[1]]
    excess = functional.relu(near.sign() * (near - after_next))
    return excess.sum() / max(excess.numel(), 1)


def differentiable_flow(first: Tensor, second: Tensor) -> Tensor:
    """Flow (right, down) in pixels with first(p) ~ second(p + flow(p)), differentiable in both pictures.

    The method of Lucas and Kanade (1981), coarse to fine, in a fixed number of smoothed steps; a flat window keeps the
    coarser level's flow. For loss functions, which compare flows that were estimated alike; `estimate_flow` is better,
    slower and without gradient.

    The gradient is that of a last step, without smoothing, alone. The method is Newton's, whose step forgets where it
    started, so where it has converged this is the whole gradient, at a small part of the memory.

    Args:
        first: (N, 1, H, W) luma in [0, 1].
        second: the same shape.

    Returns:
        (N, 2, H, W) float32.
    """
    with full_precision(first.device.type):
        pyramid = [(first.float(), second.float())]
        while len(pyramid) < _LEVELS and min(pyramid[-1][0].shape[-2:]) >= 2 * _SMOOTHED:
            one, two = (functional.avg_pool2d(each, 2, ceil_mode=True) for each in pyramid[-1])
            pyramid.append((one, two))
        with torch.no_grad():
            flow = torch.zeros_like(pyramid[-1][0]).repeat(1, 2, 1, 1)
            for one, two in reversed(pyramid):
                if flow.shape[-2:] != one.shape[-2:]:
                    flow = 2 * functional.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
                    flow = flow[..., : one.shape[-2], : one.shape[-1]]
                for _ in range(_STEPS):
                    flow = _mean(flow + _step(flow, one, two), _SMOOTHED)
        return flow + _step(flow, *pyramid[0])


def _step(flow: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """What to add to the flow: least squares over windows, linear around it."""
    padded = functional.pad(first, (1, 1, 1, 1), mode="replicate")
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    misfit = first - warp(second, flow, padding="border")
    products = torch.cat((right * right, right * down, down * down, right * misfit, down * misfit), 1)
    xx, xy, yy, x, y = _mean(products, _WINDOW).split(1, 1)
    xx, yy = xx + _FLATNESS, yy + _FLATNESS
    determinant = xx * yy - xy * xy  # at least _FLATNESS squared
    solved = torch.cat((yy * x - xy * y, xx * y - xy * x), 1) / determinant
    return torch.tanh(solved)  # a window that does not fit must not throw its pixel far away


def _mean(values: Tensor, side: int) -> Tensor:
    return functional.avg_pool2d(values, side, stride=1, padding=side // 2, count_include_pad=False)


def _clip_flows(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, N, 3, H, W) -> flows at half size to the next frame, (B, N - 1, 2, ...), and the one after it."""
    batch, length = frames.shape[:2]
    red, green, blue = frames.float().unbind(2)
    luma = functional.avg_pool2d(0.299 * red + 0.587 * green + 0.114 * blue, 2)
    steps = [1] * (length - 1) + [2] * max(length - 2, 0)
    firsts = [*range(length - 1), *range(length - 2)]
    seconds = [first + step for first, step in zip(firsts, steps, strict=True)]
    pairs = (luma[:, each].reshape(-1, 1, *luma.shape[-2:]) for each in (firsts, seconds))
    flows = differentiable_flow(*pairs).unflatten(0, (batch, -1))
    return flows[:, : length - 1], flows[:, length - 1 :]
