"""Students: compact networks that a phone can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.interfaces import VideoNetwork
from distill.networks.registry import Entry
from students.d3dnet import D3DNet
from students.fastdvdnet import FastDVDnet
from students.fastdvdnet_denoiser import FastDVDnetDenoiser
from students.fastdvdnet_mobile import FastDVDnetMobile
from students.sofvsr import SOFVSR
from students.vdsr import VDSR
from students.vespcn import VESPCN, VESPCNLoSealL
from students.vespcn_mobile import VESPCNMobile
from students.vespcn_std import VESPCNStd
from students.vsrnet import VSRNet

__all__ = ["NETWORKS", "entries"]

# What differs from a class's defaults, which are the published network: by name a student is fresh, and trains within
# minutes only if it starts at the bicubic frame. Published files say that they have no such base when they are opened.
NETWORKS: dict[str, tuple[type[VideoNetwork], Mapping[str, Any]]] = {
    "fastdvdnet": (FastDVDnet, {}),
    "fastdvdnet-half": (FastDVDnet, {"channels": 32}),
    "fastdvdnet-quarter": (FastDVDnet, {"channels": 16}),
    "fastdvdnet-mobile": (FastDVDnetMobile, {}),
    "fastdvdnet-denoiser": (FastDVDnetDenoiser, {}),
    "vespcn": (VESPCN, {}),
    "vespcn-loseall": (VESPCNLoSealL, {}),
    "vespcn-std": (VESPCNStd, {}),
    "vespcn-mobile": (VESPCNMobile, {}),
    "vdsr": (VDSR, {}),
    "vdsr-rgb": (VDSR, {"colour": "rgb"}),
    "vsrnet": (VSRNet, {"base": "bicubic"}),
    "vsrnet-std": (VDSR, {"colour": "rgb", "window": 7}),
    "d3dnet": (D3DNet, {}),
    "sofvsr": (SOFVSR, {"base": "bicubic"}),
}


def entries() -> list[Entry]:
    """Every student by name."""
    return [Entry(name, "student", network, keywords) for name, (network, keywords) in NETWORKS.items()]
