"""Optical flow between two frames, for the teachers that take it as an input."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from distill.layers import warp

__all__ = ["FlowMethod", "clear_flow_cache", "estimate_flow"]

FlowMethod = Literal["torch", "farneback"]


def estimate_flow(first: Tensor, second: Tensor, method: FlowMethod = "torch") -> Tensor:
    """Flow (u, v) = (right, down) in pixels with first(p) ~ second(p + flow(p)), without a gradient.

    Args:
        first: (N, 3, h, w) RGB in [0, 1].
        second: the same shape.
        method: the estimator.

    Returns:
        (N, 2, h, w) float32 on the same device; zeros on the meta device.
    """
    if method not in get_args(FlowMethod):
        raise ValueError(f"method is {method!r}, expected one of {get_args(FlowMethod)}")
    with torch.no_grad():
        return _pyramid(first.detach().float(), second.detach().float())


def clear_flow_cache() -> None:
    """Forget every flow."""


def _pyramid(first: Tensor, second: Tensor) -> Tensor:
    flow = first.new_zeros(first.shape[0], 2, *first.shape[-2:])
    if first.is_meta:
        return flow
    pairs = [(first, second)]
    while min(pairs[-1][0].shape[-2:]) >= 16:
        pairs.append(tuple(functional.avg_pool2d(frame, 2) for frame in pairs[-1]))  # type: ignore[arg-type]
    flow = pairs[-1][0].new_zeros(first.shape[0], 2, *pairs[-1][0].shape[-2:])
    for one, two in reversed(pairs):
        height, width = one.shape[-2:]
        factor = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]])[:, None, None]
        flow = functional.interpolate(flow, (height, width), mode="bilinear", align_corners=False) * factor
        for _ in range(4):
            moved = warp(two, flow, padding="border")
            mean = functional.pad((one + moved) / 2, (1, 1, 1, 1), mode="replicate")
            dx = (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2
            dy = (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2
            dt = moved - one
            products = torch.stack([(a * b).sum(1) for a, b in ((dx, dx), (dx, dy), (dy, dy), (dx, dt), (dy, dt))], 1)
            for _ in range(2):
                products = functional.avg_pool2d(products, 5, 1, 2, count_include_pad=False)
            xx, xy, yy, xt, yt = products.unbind(1)
            xx, yy = xx + 1e-4, yy + 1e-4
            det = xx * yy - xy * xy
            flow = flow - torch.stack((yy * xt - xy * yt, xx * yt - xy * xt), 1) / det[:, None]
    return flow
