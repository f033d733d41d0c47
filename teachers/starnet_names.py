"""STARnet's published checkpoints: with or without flow refinement, and the sizes that the tensors tell."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from distill.errors import CheckpointError
from distill.interfaces import Published
from distill.networks.tensor_names import stack_length, with_counters
from teachers.rbpn_names import projection_sizes

__all__ = ["recognise_starnet"]

_INNER, _SPATIAL = "model.", "RBPN."
_VERSIONS = {(False, False): "v1", (True, False): "v2", (False, True): "v3", (True, True): "v4"}


def recognise_starnet(state: Mapping[str, Tensor]) -> Published | None:
    """See `VideoNetwork.recognise`."""
    state = {name.removeprefix(_INNER): tensor for name, tensor in state.items()}
    if not any(name.startswith("motion_up_f.") for name in state):
        return None
    spatial = {name.removeprefix(_SPATIAL): each for name, each in state.items() if name.startswith(_SPATIAL)}
    sizes = projection_sizes("STARnet", spatial)
    version = _VERSIONS["t_net_hr.0.conv.weight" in state, "t_net_lr.0.conv1.weight" in state]
    if (version == "v1") != ("warp1.0.conv1.weight" in state):
        raise CheckpointError(
            "This STARnet has neither of t_net_hr and t_net_lr nor warp1, or both kinds; expected version v1 to v4."
        )
    refine_flow = any(name.startswith("flow_net.") for name in state)
    name = f"starnet-{version}-ref" if version == "v4" and refine_flow else f"starnet-{version}"
    keywords = {
        "version": version,
        "base_filter": sizes["base_filter"],
        "channels": sizes["channels"],
        "res_blocks": stack_length(state, "motion_up_f", "conv1.weight"),
        "spatial_blocks": sizes["res_blocks"],
        "scale": sizes["scale"],
        "refine_flow": refine_flow,
        "base": "none",
    }
    return Published(name, keywords, with_counters(state))
