"""Whether a step would spoil the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["largest_mean_offset", "sign_of_divergence"]

_LARGEST_OFFSET = 50.0  # pixels; a trained EDVR stays under 10, one whose loss is about to burst goes far beyond


def sign_of_divergence(losses: Mapping[str, float], gradient_norm: Tensor, network: nn.Module) -> str | None:
    """What has left its range in a step, as a clause; None where nothing has.

    Args:
        losses: each loss by name.
        gradient_norm: a scalar.
        network: whose deformable offsets of that step are looked at.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            return f"{name} is {value}"
    if not bool(torch.isfinite(gradient_norm)):
        return f"the gradient's norm is {float(gradient_norm)}"
    offset = largest_mean_offset(network)
    if not offset < _LARGEST_OFFSET:
        return f"deformable offsets are {offset:.0f} pixels long on average"
    return None


def largest_mean_offset(network: nn.Module) -> float:
    """Of all deformable convolutions in a network, the largest mean |offset| of the last training step, pixels."""
    recorded = (getattr(module, "mean_offset", None) for module in network.modules())
    return max((float(offset) for offset in recorded if isinstance(offset, Tensor)), default=0.0)
