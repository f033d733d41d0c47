"""The form of a network that is deployed: the same function with fewer layers."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn

from distill.interfaces import VideoNetwork

__all__ = ["deployed"]

Network = TypeVar("Network", bound=VideoNetwork)


def deployed(network: Network) -> Network:
    """A copy in eval mode whose convolutions have swallowed batch normalisations and groups.

    Every `Conv2d` directly followed by a `BatchNorm2d` in an `nn.Sequential` is folded, grouped ones too; an
    `nn.Identity` takes the normalisation's place, so that the other layers keep their names. A normalisation without
    running statistics cannot be folded and stays.

    A `Conv2d` of a few groups becomes one of none, zeros between the groups: ONNX Runtime's half-precision grouped
    convolutions were wrong on ARM, and vector units are faster on the dense form. Depthwise ones stay.

    Args:
        network: left as it is, in whatever mode it is.

    Returns:
        A copy, on the same device, equal to `network.eval()` up to rounding (1e-5).
    """
    network = copy.deepcopy(network).eval()
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for position, (conv, norm) in enumerate(pairwise(list(sequence))):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                sequence[position] = _folded(conv, norm)
                sequence[position + 1] = nn.Identity()
    for conv in [module for module in network.modules() if isinstance(module, nn.Conv2d)]:
        if 1 < conv.groups < conv.in_channels:
            _make_dense(conv)
    return network


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution for the pair, a new one: `conv` may stand elsewhere too."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # in double, so that only the last rounding is lost
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.detach().double()
    bias = -norm.running_mean.double() * gain
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double() * gain
    if norm.bias is not None:
        bias = bias + norm.bias.detach().double()
    folded = copy.deepcopy(conv)
    weight = folded.weight.detach()
    folded.weight = nn.Parameter((weight.double() * gain[:, None, None, None]).to(weight.dtype))
    folded.bias = nn.Parameter(bias.to(weight.dtype))
    return folded


def _make_dense(conv: nn.Conv2d) -> None:
    blocks = conv.weight.detach().chunk(conv.groups)
    outputs, inputs = blocks[0].shape[:2]
    dense = conv.weight.new_zeros(conv.out_channels, conv.in_channels, *conv.kernel_size)
    for group, block in enumerate(blocks):
        dense[group * outputs : (group + 1) * outputs, group * inputs : (group + 1) * inputs] = block
    conv.weight = nn.Parameter(dense)
    conv.groups = 1
