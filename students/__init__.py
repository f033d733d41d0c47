"""Students: compact networks that a phone can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.interfaces import VideoNetwork
from students.fastdvdnet import FastDVDnet

__all__ = ["NETWORKS"]

NETWORKS: dict[str, tuple[type[VideoNetwork], Mapping[str, Any]]] = {
    "fastdvdnet": (FastDVDnet, {}),
    "fastdvdnet-half": (FastDVDnet, {"channels": 32}),
    "fastdvdnet-quarter": (FastDVDnet, {"channels": 16}),
}
