"""RBPN's published checkpoints: the sizes that the tensors tell, and the published head as the split one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distill.errors import CheckpointError
from distill.interfaces import Published
from teachers.back_projection import KERNEL_STRIDE_PADDING

__all__ = ["count_blocks", "projection_sizes", "recognise_rbpn", "require"]

State = Mapping[str, Tensor]
_SPLIT_CHANNELS = 64
_SIZED = ("feat0.conv.weight", "DBPN.feat1.conv.weight", "DBPN.up1.up_conv1.deconv.weight", "DBPN.output.conv.weight")


def recognise_rbpn(state: State) -> Published | None:
    """See `VideoNetwork.recognise`."""
    if not {"res_feat1.0.conv1.weight", "res_feat3.0.conv1.weight"} & set(state):
        return None
    sizes = projection_sizes("RBPN", state)
    require("RBPN", state, ("output.conv.weight", "output.conv.bias"))
    channels, seen = sizes["channels"], state["output.conv.weight"].shape[1]
    if seen % channels or (window := seen // channels + 1) % 2 == 0:
        raise CheckpointError(
            f"This RBPN makes its picture of {seen} channels, {channels} for each neighbour; "
            "expected an even number of neighbours, as many before the frame as after it."
        )
    weights = {**state, **_split(state["output.conv.weight"], state["output.conv.bias"], channels)}
    return Published("rbpn-7f", {"window": window, **sizes, "base": "none", "head": "split"}, weights)


def projection_sizes(network: str, state: State) -> dict[str, int]:
    """The keywords of `RecurrentProjection`, from tensors by its names.

    Raises:
        CheckpointError: tensors are missing, or the variant is not built here; `network` says whose.
    """
    require(network, state, _SIZED)
    base_filter, colours = state["feat0.conv.weight"].shape[:2]
    channels = state["DBPN.feat1.conv.weight"].shape[0]
    kernel = state["DBPN.up1.up_conv1.deconv.weight"].shape[-1]
    stages = state["DBPN.output.conv.weight"].shape[1] // channels
    scales = {geometry[0]: scale for scale, geometry in KERNEL_STRIDE_PADDING.items()}
    if colours != 3 or stages != 3 or kernel not in scales:
        raise CheckpointError(
            f"This {network} has {colours} colours, {stages} projection stages and kernels of {kernel}; "
            f"expected 3, 3 and one of {tuple(scales)}."
        )
    return {
        "base_filter": base_filter,
        "channels": channels,
        "res_blocks": count_blocks(state, "res_feat1"),
        "scale": scales[kernel],
    }


def count_blocks(state: State, stack: str) -> int:
    """How many residual units `stack` starts with."""
    return sum(re.fullmatch(rf"{re.escape(stack)}\.\d+\.conv1\.weight", name) is not None for name in state)


def require(network: str, state: State, names: Sequence[str]) -> None:
    """Refuse a file that lacks any of `names`.

    Raises:
        CheckpointError: naming what is missing.
    """
    missing = [name for name in names if name not in state]
    if missing:
        raise CheckpointError(f"This {network} lacks the tensors {', '.join(missing)}; is the file complete?")


def _split(weight: Tensor, bias: Tensor, channels: int) -> dict[str, Tensor]:
    """The published convolution (3, states, 3, 3) as two with 64 channels between, which compute the same.

    The first three channels are the picture; each other is one channel's mean over all states, which the last
    convolution ignores: F^SR so holds what the network knows and not only what it shows.
    """
    inside = weight.new_zeros(_SPLIT_CHANNELS, *weight.shape[1:])
    inside[:3] = weight
    for channel in range(3, _SPLIT_CHANNELS):
        states = range(channel % channels, weight.shape[1], channels)
        inside[channel, states, 1, 1] = 1 / len(states)
    last = weight.new_zeros(3, _SPLIT_CHANNELS, 3, 3)
    last[range(3), range(3), 1, 1] = 1
    return {
        "to_features.conv.weight": inside,
        "to_features.conv.bias": torch.cat((bias, bias.new_zeros(_SPLIT_CHANNELS - 3))),
        "output.conv.weight": last,
        "output.conv.bias": torch.zeros_like(bias),
    }
