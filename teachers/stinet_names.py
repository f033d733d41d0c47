"""STINet's published checkpoints: names rewritten onto ours, and the sizes that the tensors tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from distill.errors import CheckpointError
from distill.interfaces import Published
from distill.networks.tensor_names import demand, stack_length

__all__ = ["recognise_stinet"]

State = Mapping[str, Tensor]
_RANKS = {
    "motion_feat.conv.weight": 4,
    "motion_down.1.conv.weight": 4,
    "layersAtB.conv_offset_mask.weight": 4,
    "DBPN.feat0.conv.weight": 4,
    "DBPN.feat1.conv.weight": 4,
    "DBPN.output_conv1.conv.weight": 4,
    "SAG1.fc_neigh.weight": 2,
}
_NAMES = [
    (r"^(motion_feat|motion)\.", r"interpolation.\1."),
    (r"^(h_down|h_up|offsetdown|layers[AC]tB|layers[AC]tBOffset|layersFusion|([lh]_)?conv11AtB)\.", r"local.\1."),
    (r"\.conv_offset_mask\.", ".conv_offset."),
    (r"^(h_down_gcn|SAG\d)\.", r"graph.\1."),
    # where the bias stood in dgl before 0.8
    (r"^(graph\.SAG\d)\.fc_neigh\.bias$", r"\1.bias"),
]


def recognise_stinet(state: State) -> Published | None:
    """See `VideoNetwork.recognise`."""
    if not any(name.startswith("SAG1.") for name in state):
        return None
    demand(state, "STINet", _RANKS)
    channels, _, kernel, _ = state["motion_down.1.conv.weight"].shape
    if kernel != 8:
        raise CheckpointError(f"This STINet changes the resolution with kernels of {kernel}; expected 8, which is x4.")
    motion_channels, flow_channels = state["motion_feat.conv.weight"].shape[:2]
    if flow_channels != 4:
        raise CheckpointError(f"This STINet sees {flow_channels} channels of optical flow; expected 4.")
    blocks = _shared_blocks(state)
    projection_channels = state["DBPN.feat1.conv.weight"].shape[0]
    keywords = {
        "channels": channels,
        "motion_channels": motion_channels,
        "blocks": blocks,
        "graph_channels": state["SAG1.fc_neigh.weight"].shape[0],
        "offset_groups": state["layersAtB.conv_offset_mask.weight"].shape[0] // 27,
        "projection_filter": state["DBPN.feat0.conv.weight"].shape[0],
        "projection_channels": projection_channels,
        "projection_stages": state["DBPN.output_conv1.conv.weight"].shape[1] // projection_channels,
        "base": "none",
        "edges": "unweighted",
        "flow": "farneback",
    }
    return Published("stinet-l", keywords, {_own_name(name, blocks): tensor for name, tensor in state.items()})


def _shared_blocks(state: State) -> int:
    """How many residual blocks both branches of the interpolation share."""
    # the last layer of each branch stands behind one or two blocks that are its own
    for branch, before in (("interp_h", 2), ("interp_l", 3)):
        if (length := stack_length(state, branch, "conv.weight")) > before:
            return length - 1 - before
    raise CheckpointError("This STINet lacks the last layers of interp_h and interp_l; is the file complete?")


def _own_name(name: str, blocks: int) -> str:
    """Shared blocks stand in a file twice, as interp_l.2 and interp_h.1 and so on, or once; here once.

    Where the two should differ, the later one counts, interp_h, as when the published code loads them.
    """
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    match = re.match(r"interp_([lh])\.(\d+)\.(.+)", name)
    if match is None:
        return name
    branch, index, rest = match[1], int(match[2]), match[3]
    entering = 2 if branch == "l" else 1
    if index < entering:
        stack = f"enter_l.{index}" if branch == "l" else "enter_h"
    elif index < entering + blocks:
        stack = f"shared.{index - entering}"
    else:
        stack = f"leave_{branch}.{index - entering - blocks}"
    return f"interpolation.{stack}.{rest}"
