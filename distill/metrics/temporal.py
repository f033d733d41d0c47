"""How steady a restored clip is beside the truth: tOF and warping error, with the conventions of this house.

Both need motion, which `estimate_flow` ("torch", the variational one) finds on frames of half the size (means of 2x2
pixels, RGB in [0, 1]); flows are then doubled, so they are in pixels of the frames themselves. An odd last row or
column is left out. Published tables use other estimators: compare such figures only with each other.
"""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distill.layers import warp
from distill.networks.optical_flow import estimate_flow

__all__ = ["CONVENTION", "Steadiness", "TemporalConsistency", "flow_distance", "unoccluded", "warping_error"]

CONVENTION = {
    "tof": "mean length in pixels of the difference between the flows of output and truth, torch estimator, half size",
    "warping": "mean squared difference of RGB in [0, 1] along the truth's flow, where nothing is occluded; beside it "
    "the truth's own, and an output below that lacks the truth's detail or grain",
}
"""What the figures depend on, for reports."""


class Steadiness(NamedTuple):
    """What `TemporalConsistency` measured, each the mean over the pairs of neighbouring frames.

    Attributes:
        tof: pixels, 0 for equal clips.
        warping: of the restored frames, squared levels with a peak of 1; None where every pixel is occluded.
        truth_warping: of the true frames, the figure to compare with: a clip without their detail falls below it.
    """

    tof: float
    warping: float | None
    truth_warping: float | None


class TemporalConsistency:
    """Measures a clip frame by frame and holds no more than the last one.

    tOF is that of TecoGAN (Chu et al., SIGGRAPH 2020), || flow(out[t-1], out[t]) - flow(truth[t-1], truth[t]) ||, as
    their code averages it: the Euclidean length at each pixel. The warping error is E_warp of Lai et al. (ECCV
    2018), (out[t-1] - warped out[t])^2 along the truth's flow from t-1 to t, as their code averages it: over the
    channels of unoccluded pixels. Their border of motion, which they count as occluded too, is not left out here.

    Args:
        crop: pixels left out along every edge, after the flows were found on whole frames.
    """

    def __init__(self, crop: int = 0) -> None:
        self._crop = crop
        self._before: tuple[Tensor, Tensor] | None = None
        self._tof: list[float] = []
        self._warping: list[tuple[float, float]] = []

    def add(self, restored: Tensor, truth: Tensor) -> None:
        """The next frame.

        Args:
            restored: (3, H, W) uint8, both sides at least 2.
            truth: likewise, of the same size and device.
        """
        height, width = (side - side % 2 for side in truth.shape[-2:])
        frames = torch.stack((restored, truth))[..., :height, :width].float() / 255
        small = functional.avg_pool2d(frames, 2)
        if self._before is not None:
            self._compare(*self._before, frames, small)
        self._before = frames, small

    def result(self) -> Steadiness | None:
        """The means so far; None for fewer than two frames."""
        if not self._tof:
            return None
        if not self._warping:
            return Steadiness(fmean(self._tof), None, None)
        restored, truth = (fmean(errors) for errors in zip(*self._warping, strict=True))
        return Steadiness(fmean(self._tof), restored, truth)

    def _compare(self, frames_before: Tensor, small_before: Tensor, frames: Tensor, small: Tensor) -> None:
        """All (2, 3, ...): restored, truth."""
        # the truth's flows are asked for again by the next network, the output's by nobody
        of_output = estimate_flow(small_before[:1], small[:1], keep=False)
        both_ways = torch.cat((small_before[1:], small[1:])), torch.cat((small[1:], small_before[1:]))
        forward, backward = estimate_flow(*both_ways).split(1)
        self._tof.append(2 * flow_distance(of_output, forward, self._crop // 2))
        visible = unoccluded(2 * forward, 2 * backward)
        height, width = frames.shape[-2:]
        flow = 2 * functional.interpolate(forward, (height, width), mode="bilinear", align_corners=False)
        enlarged = functional.interpolate(visible[:, None].float(), (height, width))[:, 0] > 0
        inside = (..., slice(self._crop, height - self._crop), slice(self._crop, width - self._crop))
        judged = torch.zeros_like(enlarged)
        judged[inside] = enlarged[inside]
        if judged.any():
            restored, truth = warping_error(frames_before, frames, flow.expand(2, -1, -1, -1), judged).tolist()
            self._warping.append((restored, truth))


def flow_distance(flow: Tensor, other: Tensor, crop: int = 0) -> float:
    """Mean over pixels of the Euclidean length of the difference of two flows, (N, 2, H, W).

    Args:
        flow: right and down, in pixels.
        other: likewise.
        crop: pixels left out along every edge.

    Returns:
        Pixels.
    """
    height, width = flow.shape[-2:]
    difference = (flow - other)[..., crop : height - crop, crop : width - crop]
    return float(difference.square().sum(1).sqrt().mean().item())


def unoccluded(forward: Tensor, backward: Tensor) -> Tensor:
    """Which pixels of the first frame are seen in the second: there and back again leads home.

    |f + b'|^2 <= 0.01 (|f|^2 + |b'|^2) + 0.5, with b' the backward flow where f points (Sundaram et al., ECCV 2010,
    as Lai et al. use it, but without their second test, for borders of motion); and f points inside the frame.

    Args:
        forward: (N, 2, h, w) flow from the first frame to the second, in pixels of frames twice that size.
        backward: likewise, from the second to the first.

    Returns:
        (N, h, w) bool.
    """
    height, width = forward.shape[-2:]
    back = warp(backward, forward / 2, padding="border")
    astray = (forward + back).square().sum(1)
    tolerated = 0.01 * (forward.square().sum(1) + back.square().sum(1)) + 0.5
    x = torch.arange(width, device=forward.device) + forward[:, 0] / 2
    y = torch.arange(height, device=forward.device)[:, None] + forward[:, 1] / 2
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & (astray <= tolerated)


def warping_error(before: Tensor, after: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """Mean of (before - warped after)^2 over the channels and the visible pixels (E_warp of Lai et al., ECCV 2018).

    Args:
        before: (N, C, H, W) frames, [0, 1].
        after: the frames that follow.
        flow: (N, 2, H, W) from `before` to `after`, in pixels.
        visible: (1, H, W) or (N, H, W) bool, some of it true.

    Returns:
        (N,).
    """
    difference = (before - warp(after, flow, padding="border")).square().mean(1)
    shown = visible.expand_as(difference)
    return (difference * shown).sum((1, 2)) / shown.sum((1, 2))
