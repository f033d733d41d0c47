"""Optical flow between two frames, for the teachers that take it as an input.

Two estimators. `torch` needs nothing installed: a variational method, coarse to fine with warping, of the family of
Brox et al. (2004), to which pyflow belongs, on whose flow RBPN and STARnet were trained. `farneback` is OpenCV's, with
STINet's parameters, on whose flow STINet was trained. Every flow is kept for a while, because the windows of a clip
overlap and each validation of a run looks at the same clips.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from contextlib import suppress
from typing import Any, Literal, get_args

import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn import functional

from distill.errors import ConfigError
from distill.layers import warp

__all__ = ["FlowMethod", "clear_flow_cache", "estimate_flow", "require"]

FlowMethod = Literal["torch", "farneback"]

CACHE_BYTES = 256 * 2**20

# Chosen on synthetic motion with known flow and on footage; benchmarks/flow.py shows what they bring and cost.
SMALLEST_SIDE = 8  # of the coarsest level, unless the frame is smaller
WARPS = 5  # at each level
SWEEPS = 20  # of the linear solver after each warp
SMOOTHNESS = 0.03
DATA_EDGE = 0.02  # differences above it, frames in [0, 1], count less and less: occlusions, highlights
FLOW_EDGE = 0.05  # likewise for jumps of the flow between neighbouring pixels: the borders of things that move
SPECTRUM = 0.99  # the spectral radius for which the solver is accelerated
PIECE = 2**18  # pixels that are estimated at once: larger pieces take more memory and, on a CPU, longer

# Exchanges after which the fifth of nine values is their median.
# fmt: off
SORTING = (
    (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3),
    (5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2),
)
# fmt: on

Key = tuple[str, str, int, int, bytes, bytes]

_flows: LRUCache[Key, Tensor] = LRUCache(CACHE_BYTES, getsizeof=lambda flow: flow.nbytes)
_lock = threading.Lock()  # which a cache needs that threads share


def estimate_flow(first: Tensor, second: Tensor, method: FlowMethod = "torch", *, keep: bool = True) -> Tensor:
    """Flow (u, v) = (right, down) in pixels with first(p) ~ second(p + flow(p)).

    No gradient passes. A pair's flow does not depend on what else is in the batch, but for the rounding of floats.
    Flows are kept by the content of both frames, the method and the kind of device: at most `CACHE_BYTES` bytes, the
    longest unused go first. That costs a hash of both frames' bytes, half a millisecond for a pair of 180x120 pixels,
    where estimating it takes 28 ("torch") or 3 ("farneback") on one CPU thread; frames on another device are copied to
    main memory for it, and their flows lie there. Threads share what is kept; two that ask for the same pair at the
    same moment both estimate it. Not for tracing (compile, export).

    Args:
        first: (N, 3, h, w) RGB in [0, 1], any size.
        second: the same shape and device.
        method: the estimator. "torch" is a robust variational one. "farneback" is OpenCV's with the parameters of
            STINet, on the grey of the frames rounded to 8 bits; STINet takes blue's weight for red and red's for blue
            in that grey (COLOR_BGR2GRAY of RGB arrays), and so does this, because it was trained so.
        keep: whether to remember the flows; not worth it for pairs that will not be asked for again.

    Returns:
        (N, 2, h, w) float32 on the same device: exactly 0 for a pair of identical frames, and for any on the meta
        device.

    Raises:
        ValueError: the method is unknown, or the frames are not two batches of RGB of one shape.
        ConfigError: OpenCV is not installed.
    """
    if method not in get_args(FlowMethod):
        raise ValueError(f"method is {method!r}, expected one of {get_args(FlowMethod)}")
    if first.shape != second.shape or first.dim() != 4 or first.shape[1] != 3:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"the frames are {shapes}, expected (N, 3, h, w) of one shape")
    count, _, height, width = first.shape
    if first.is_meta:
        return first.new_zeros(count, 2, height, width, dtype=torch.float32)
    with torch.no_grad():
        # frames whose channels come last in memory would take the estimator nearly twice as long
        first, second = (frames.detach().float().contiguous() for frames in (first, second))
        keys: list[Key] = [
            (method, first.device.type, height, width, one, two)
            for one, two in zip(_digests(first), _digests(second), strict=True)
        ]
        with _lock:
            known = {key: _flows[key] for key in keys if key in _flows}
        missing = {key: index for index, key in enumerate(keys) if key not in known and key[-1] != key[-2]}
        if missing:
            rows = list(missing.values())
            estimated = (_farneback if method == "farneback" else _variational)(first[rows], second[rows]).cpu()
            for key, flow in zip(missing, estimated, strict=True):
                known[key] = flow.clone()  # a row of the batch would keep the whole batch alive
                if keep:
                    with _lock, suppress(ValueError):  # of a flow larger than all that may be kept
                        _flows[key] = known[key]
        flows = torch.zeros(count, 2, height, width, dtype=torch.float32, device="cpu")
        for index, key in enumerate(keys):
            if key in known:
                flows[index] = known[key]
        return flows.to(first.device)


def clear_flow_cache() -> None:
    """Forget every flow that is kept."""
    with _lock:
        _flows.clear()


def _digests(frames: Tensor) -> list[bytes]:
    return [hashlib.blake2b(frame.numpy(), digest_size=16).digest() for frame in frames.cpu()]


def require(method: FlowMethod) -> Any:
    """What the method needs installed: OpenCV's module, or nothing.

    Raises:
        ConfigError: it is not installed.
    """
    if method != "farneback":
        return None
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise ConfigError(
            'flow "farneback" needs OpenCV, which is not installed: pip install "distill-vsr[flow]", or '
            "pip install opencv-python-headless"
        ) from error


def _farneback(first: Tensor, second: Tensor) -> Tensor:
    """(N, 2, h, w) on the CPU, by OpenCV."""
    cv2 = require("farneback")
    flows = []
    for pair in zip(first, second, strict=True):
        pixels = [(frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().contiguous() for frame in pair]
        grey = [cv2.cvtColor(frame.numpy(), cv2.COLOR_BGR2GRAY) for frame in pixels]
        flow = cv2.calcOpticalFlowFarneback(*grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        flows.append(torch.from_numpy(flow).permute(2, 0, 1))
    return torch.stack(flows)


def _variational(first: Tensor, second: Tensor) -> Tensor:
    """(N, 2, h, w) on the frames' device, piece by piece."""
    pairs = max(1, PIECE // (first.shape[-2] * first.shape[-1]))
    pieces = zip(first.split(pairs), second.split(pairs), strict=True)
    return torch.cat([_coarse_to_fine(*piece) for piece in pieces])


def _coarse_to_fine(first: Tensor, second: Tensor) -> Tensor:
    levels = [(first, second)]
    while min(levels[-1][0].shape[-2:]) >= 2 * SMALLEST_SIDE:
        height, width = ((side + 1) // 2 for side in levels[-1][0].shape[-2:])
        one, two = (_resized(frame, height, width) for frame in levels[-1])
        levels.append((one, two))
    flow = torch.zeros_like(levels[-1][0][:, :2])
    for one, two in reversed(levels):
        height, width = one.shape[-2:]
        growth = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]])
        flow = _resized(flow, height, width) * growth[:, None, None]
        features = _features(one)
        to_warp = _features(two)
        to_warp = torch.cat((to_warp, *_slopes(to_warp)), 1)
        for _ in range(WARPS):
            flow = _median(_solved(flow, *_data_term(flow, features, to_warp), *_ties(flow)))
    return flow


def _data_term(flow: Tensor, features: Tensor, to_warp: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of features(p) = to_warp(p + flow(p)), linear around the flow, each pixel weighed by its misfit.

    Args:
        flow: (N, 2, h, w), so far.
        features: (N, C, h, w) of the first frame.
        to_warp: (N, 3C, h, w): the second's features, their slopes to the right and down.

    Returns:
        (N, 3, h, w): the matrix (xx, xy, yy) of the normal equations, and (N, 2, h, w): their right side.
    """
    height, width = flow.shape[-2:]
    moved, right, down = warp(to_warp, flow, padding="border").chunk(3, 1)
    misfit = moved - features
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1:]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)  # outside nothing was seen
    weight = inside / (misfit.square().sum(1, keepdim=True) + DATA_EDGE**2).sqrt()
    wanted = right * flow[:, :1] + down * flow[:, 1:] - misfit
    right_weighed, down_weighed = right * weight, down * weight
    products = ((right_weighed, right), (right_weighed, down), (down_weighed, down))
    matrix = torch.stack([(one * two).sum(1) for one, two in products], 1)
    side = torch.stack([(one * wanted).sum(1) for one in (right_weighed, down_weighed)], 1)
    return matrix, side


def _ties(flow: Tensor) -> tuple[Tensor, Tensor]:
    """How strongly each pixel is tied to its neighbours: (N, 1, h, w + 1) across, (N, 1, h + 1, w) down.

    Ties are weak where the flow jumps, and 0 at the frame's border.
    """
    across, down = flow.diff(dim=-1).square().sum(1), flow.diff(dim=-2).square().sum(1)
    jump = functional.pad(across, (0, 1)) + functional.pad(down, (0, 0, 0, 1))
    tie = (SMOOTHNESS / (jump + FLOW_EDGE**2).sqrt())[:, None]
    across, down = (tie[..., 1:] + tie[..., :-1]) / 2, (tie[..., 1:, :] + tie[..., :-1, :]) / 2
    return functional.pad(across, (1, 1)), functional.pad(down, (0, 0, 1, 1))


def _solved(flow: Tensor, matrix: Tensor, side: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Jacobi's method on the pixels' 2x2 blocks, accelerated by Chebyshev's polynomials, from `flow` on."""
    left, right, up, below = across[..., :-1], across[..., 1:], down[..., :-1, :], down[..., 1:, :]
    ties = (left + right + up + below)[:, 0] + 1e-6
    xx, xy, yy = matrix[:, 0] + ties, matrix[:, 1], matrix[:, 2] + ties
    determinant = xx * yy - xy * xy
    for_u = torch.stack((yy, -xy), 1) / determinant[:, None]
    for_v = torch.stack((-xy, xx), 1) / determinant[:, None]
    before = flow
    momentum = 1.0
    for sweep in range(SWEEPS):
        padded = functional.pad(flow, (1, 1, 1, 1))
        pull = torch.addcmul(side, left, padded[..., 1:-1, :-2]).addcmul_(right, padded[..., 1:-1, 2:])
        pull.addcmul_(up, padded[..., :-2, 1:-1]).addcmul_(below, padded[..., 2:, 1:-1])
        plain = (for_u * pull[:, :1]).addcmul_(for_v, pull[:, 1:])
        if sweep > 0:
            momentum = 1 / (1 - SPECTRUM**2 * momentum / (2 if sweep == 1 else 4))
        before, flow = flow, torch.lerp(before, plain, momentum)
    return flow


def _features(frame: Tensor) -> Tensor:
    """(N, 5, h, w): RGB, and the slopes of its grey, which a change of light leaves alone; slightly smoothed."""
    padded = functional.pad(frame, (2, 2, 2, 2), mode="replicate")
    # no convolution: autocast would run it in bfloat16
    one, two = padded[..., 1:-3] + padded[..., 3:-1], padded[..., :-4] + padded[..., 4:]
    across = 0.74 * padded[..., 2:-2] + 0.11 * one + 0.02 * two
    one, two = across[..., 1:-3, :] + across[..., 3:-1, :], across[..., :-4, :] + across[..., 4:, :]
    frame = 0.74 * across[..., 2:-2, :] + 0.11 * one + 0.02 * two
    grey = 0.299 * frame[:, :1] + 0.587 * frame[:, 1:2] + 0.114 * frame[:, 2:]
    return torch.cat((frame, *_slopes(grey)), 1)


def _slopes(features: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives to the right and down, exact for polynomials to the fourth degree."""
    padded = functional.pad(features, (2, 2, 2, 2), mode="replicate")
    level, upright = padded[..., 2:-2, :], padded[..., 2:-2]
    right = (level[..., :-4] - level[..., 4:] + 8 * (level[..., 3:-1] - level[..., 1:-3])) / 12
    down = (upright[..., :-4, :] - upright[..., 4:, :] + 8 * (upright[..., 3:-1, :] - upright[..., 1:-3, :])) / 12
    return right, down


def _median(flow: Tensor) -> Tensor:
    """Of 3x3 pixels, by a sorting network, several times faster than torch's own median."""
    height, width = flow.shape[-2:]
    padded = functional.pad(flow, (1, 1, 1, 1), mode="replicate")
    sorting = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    for low, high in SORTING:
        one, two = sorting[low], sorting[high]
        sorting[low], sorting[high] = torch.minimum(one, two), torch.maximum(one, two)
    return sorting[4]


def _resized(picture: Tensor, height: int, width: int) -> Tensor:
    # antialias matters on the way down alone
    return functional.interpolate(picture, (height, width), mode="bilinear", align_corners=False, antialias=True)
