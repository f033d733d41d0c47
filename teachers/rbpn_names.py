"""RBPN's published checkpoints: the sizes that the tensors tell, and the published head as the split one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from distill.errors import CheckpointError
from distill.interfaces import Published
from distill.networks.tensor_names import demand, stack_length
from teachers.back_projection import KERNEL_STRIDE_PADDING

__all__ = ["projection_sizes", "recognise_rbpn"]

State = Mapping[str, Tensor]
_SPLIT_CHANNELS = 64
_SIZED = ("feat0.conv.weight", "DBPN.feat1.conv.weight", "DBPN.up1.up_conv1.deconv.weight", "DBPN.output.conv.weight")


def recognise_rbpn(state: State) -> Published | None:
    """See `VideoNetwork.recognise`."""
    if not {"res_feat1.0.conv1.weight", "res_feat3.0.conv1.weight"} & set(state):
        return None
    sizes = projection_sizes("RBPN", state)
    # ours has 64 channels before the picture, where the published one has all states; a file may be of either
    split = "to_features.conv.weight" in state
    last = "to_features.conv" if split else "output.conv"
    demand(state, "RBPN", {f"{last}.weight": 4, f"{last}.bias": 1})
    channels, seen = sizes["channels"], state[f"{last}.weight"].shape[1]
    if seen % channels or (window := seen // channels + 1) % 2 == 0:
        raise CheckpointError(
            f"This RBPN makes its picture of {seen} channels, {channels} for each neighbour; "
            "expected an even number of neighbours, as many before the frame as after it."
        )
    weights = dict(state)
    if not split:
        weights |= _split(state["output.conv.weight"], state["output.conv.bias"], channels)
    return Published("rbpn-7f", {"window": window, **sizes, "base": "none", "head": "split"}, weights)


def projection_sizes(network: str, state: State) -> dict[str, int]:
    """The keywords of `RecurrentProjection`, from tensors by its names.

    Raises:
        CheckpointError: tensors are missing, or the variant is not built here; `network` says whose.
    """
    demand(state, network, dict.fromkeys(_SIZED, 4))
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
        "res_blocks": stack_length(state, "res_feat1", "conv1.weight"),
        "scale": scales[kernel],
    }


def _split(weight: Tensor, bias: Tensor, channels: int) -> dict[str, Tensor]:
    """The published convolution (3, states, 3, 3) as two with 64 channels between, which compute the same.

    The first three channels are the picture; each other is one channel's mean over all states, which the last
    convolution ignores: F^SR so holds what the network knows and not only what it shows.

    Raises:
        CheckpointError: it is no 3x3 convolution that makes three colours.
    """
    if (weight.shape[0], *weight.shape[2:]) != (3, 3, 3) or bias.shape != (3,):
        raise CheckpointError(
            f"output.conv has weights {tuple(weight.shape)} and biases {tuple(bias.shape)}; expected a 3x3 "
            "convolution that makes 3 colours."
        )
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
