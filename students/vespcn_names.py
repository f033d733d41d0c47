"""VESPCN's two published checkpoints: names rewritten onto ours, and the sizes that the tensors tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from distill.errors import CheckpointError
from distill.interfaces import Published
from distill.networks.tensor_names import demand, stack_length

__all__ = ["recognise_loseall", "recognise_vespcn"]

State = Mapping[str, Tensor]

_JUHEONYI = [
    (r"^motionCompensator\.C_flow\.", "motion.coarse."),
    (r"^motionCompensator\.F_flow\.", "motion.fine."),
    (r"^espcn\.net\.", "espcn."),
]
_COLOUR_OF = {1: "y", 3: "rgb"}


def recognise_vespcn(state: State) -> Published | None:
    """JuheonYi/VESPCN-PyTorch; see `VideoNetwork.recognise`."""
    motion, espcn = "motionCompensator.C_flow.0.weight" in state, "espcn.net.0.weight" in state
    if not (motion or espcn or "C_flow.0.weight" in state):
        return None
    if not (motion and espcn):
        present = "upsampling network" if espcn else "motion compensation"
        raise CheckpointError(
            f"This file holds VESPCN's {present} alone; expected both parts, named motionCompensator.* and espcn.net.*."
        )
    weights = {_renamed(name, _JUHEONYI): tensor for name, tensor in state.items()}
    # each convolution but the last has an activation after it, the last a pixel shuffle before it
    length = stack_length(weights, "espcn")
    names = [f"espcn.{place}.weight" for place in (*range(0, length - 2, 2), length - 1)]
    demand(weights, "VESPCN", dict.fromkeys(("motion.coarse.0.weight", "motion.fine.8.weight", *names), 4))
    convs = [weights[name] for name in names]
    if length % 2 or len(convs) < 3 or convs[-1].shape[2:] != (1, 1):
        raise CheckpointError("This VESPCN does not end in a 1x1 convolution after its pixel shuffle; is it complete?")
    colours = convs[-1].shape[0]
    keywords = {
        "colour": _colour(colours),
        "window": convs[0].shape[1] // colours,
        "widths": tuple(conv.shape[0] for conv in convs[:-2]),
        "motion_width": _motion_width(weights, colours),
        "scale": isqrt(convs[-2].shape[0] // colours),
    }
    return Published("vespcn", keywords, weights)


def recognise_loseall(state: State) -> Published | None:
    """LoSealL/VideoSuperResolution; see `VideoNetwork.recognise`."""
    if "sr.entry.body.0.weight" not in state or not any(name.startswith("mc.flownet.") for name in state):
        return None
    ends = ("sr.entry.body.0.weight", "sr.exit.body.0.weight", "sr.conv.body.0.weight")
    demand(state, "VESPCN", dict.fromkeys((*ends, "mc.flownet.coarse_flow.0.0.weight"), 4))
    weights = {_in_our_names(name): tensor for name, tensor in state.items()}
    channels, inputs = weights["entry.weight"].shape[:2]
    colours = weights["exit.weight"].shape[0]
    keywords: dict[str, Any] = {
        "colour": _colour(colours),
        "window": inputs // colours,
        "channels": channels,
        "blocks": stack_length(weights, "body"),
        "motion_width": _motion_width(weights, colours),
        "scale": isqrt(weights["expand.weight"].shape[0] // channels),
    }
    return Published("vespcn-loseall", keywords, weights)


def _in_our_names(name: str) -> str:
    # there each convolution stands in a sequence with its activation, here all of an estimator's stand in one
    flow = re.match(r"^mc\.flownet\.(coarse|fine)_flow\.(\d+)\.0\.(\w+)$", name)
    if flow:
        return f"motion.{flow[1]}.{2 * int(flow[2])}.{flow[3]}"
    return _renamed(
        name, [(r"^sr\.conv\.body\.0\.", "expand."), (r"^sr\.(entry|exit)\.body\.0\.", r"\1."), (r"^sr\.", "")]
    )


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _colour(colours: int) -> str:
    if colours not in _COLOUR_OF:
        raise CheckpointError(f"This VESPCN makes pictures of {colours} channels; expected 1 (Y) or 3 (RGB).")
    return _COLOUR_OF[colours]


def _motion_width(weights: State, colours: int) -> int:
    width, inputs = weights["motion.coarse.0.weight"].shape[:2]
    if inputs != 2 * colours:
        raise CheckpointError(
            f"This VESPCN's motion compensation sees {inputs} channels; expected two frames of {colours} each, "
            "without groups."
        )
    return width
