"""What fresh networks that add a base image start from, so that they learn within minutes."""

from __future__ import annotations

from torch import nn

__all__ = ["blind_to_brightness"]


def blind_to_brightness(conv: nn.Conv2d | nn.Conv3d, gain: float = 1.0) -> None:
    """Give each filter of a first layer a mean of zero on every channel, and multiply it by `gain`.

    What is missing from a base image are edges and texture. A stack that carries the brightness along has features
    that all point the same way, each step of training moves the whole picture, and the first hundreds of steps are
    lost on unlearning the features.
    """
    weight = conv.weight.data
    weight.sub_(weight.mean(tuple(range(2, weight.ndim)), keepdim=True)).mul_(gain)
