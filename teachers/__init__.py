"""Teachers: heavy networks, exactly as published, and the weights of the one that ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.interfaces import VideoNetwork
from teachers.edvr import EDVR

__all__ = ["ALIASES", "NETWORKS", "shipped_weights"]

NETWORKS: dict[str, tuple[type[VideoNetwork], Mapping[str, Any]]] = {
    "edvr-s": (
        EDVR,
        {"channels": 32, "offset_groups": 4, "extract_blocks": 3, "reconstruct_blocks": 10, "base": "bicubic"},
    ),
    "edvr-m": (EDVR, {}),
    "edvr-l": (EDVR, {"window": 7, "channels": 128, "reconstruct_blocks": 40}),
}
ALIASES = {"edvr": "edvr-s"}


def shipped_weights(name: str) -> Path | None:
    """The weights of `name` that came with this package, or None."""
    path = Path(__file__).parent / "shipped" / f"{name}.safetensors"
    return path if path.is_file() else None
