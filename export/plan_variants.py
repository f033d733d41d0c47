"""Narrower and wider variants of a student: how its keywords grow with one factor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill import checkpoint, registry
from distill.errors import InputError
from distill.interfaces import SlidingNetwork, VideoNetwork
from students.d3dnet import D3DNet
from students.fastdvdnet import FastDVDnet
from students.fastdvdnet_mobile import FastDVDnetMobile
from students.sofvsr import SOFVSR
from students.vdsr import VDSR
from students.vespcn import VESPCN, VESPCNLoSealL
from students.vespcn_mobile import VESPCNMobile
from students.vespcn_std import VESPCNStd
from students.vsrnet import VSRNet

__all__ = ["Named", "Variant", "named", "variants"]

_FACTORS = (0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)

# Keywords that are channels, and what they stay multiples of: 16 fills a vector unit; VESPCN has 20 and 24 of them.
_FAMILIES: Mapping[type[VideoNetwork], Mapping[str, int]] = {
    FastDVDnet: {"channels": 16, "widths": 16, "frame_channels": 2},
    FastDVDnetMobile: {"widths": 16},
    VESPCN: {"widths": 4, "motion_width": 8},
    VESPCNLoSealL: {"channels": 16, "motion_width": 8},
    VESPCNStd: {"channels": 16, "motion_width": 8},
    VESPCNMobile: {"features": 16, "widths": 16, "channels": 16},
    VDSR: {"channels": 16},
    VSRNet: {"widths": 16},
    D3DNet: {"channels": 16},
    SOFVSR: {"channels": 32},
}


@dataclass(frozen=True)
class Named:
    """A network by its name or file, with the keywords that it is built with beyond those of its name."""

    entry: registry.Entry
    keywords: Mapping[str, Any]

    def build(self, **keywords: Any) -> SlidingNetwork:
        """A fresh one, `keywords` going before its own.

        Raises:
            InputError: it is no network of fixed windows.
        """
        network = self.entry.build(**{**self.keywords, **keywords})
        if not isinstance(network, SlidingNetwork):
            raise InputError(f"{self.entry.name} is not a network of fixed windows, which alone can be exported.")
        return network


@dataclass(frozen=True)
class Variant:
    """A student of other widths.

    Attributes:
        factor: of the widths, about; 1 is the student as it was named.
        options: keywords that make it, without those that its name stands for.
    """

    factor: float
    options: Mapping[str, Any]

    def setting(self) -> str:
        """The options as `--set` takes them."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        return (
            f"student_options={yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False).strip()}"
        )


def named(student: str) -> Named:
    """The network that a name, a file of weights or a run folder stands for.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: there is no such name.
    """
    path = Path(student)
    is_file = path.suffix in (".pt", ".pth", ".safetensors") or len(path.parts) > 1 or path.exists()
    if student in registry.names() or not is_file:
        return Named(registry.find(student), {})
    described = checkpoint.read(path).described
    entry = registry.find(described.name, typed=False)
    return Named(entry, {key: value for key, value in described.keywords.items() if entry.keywords.get(key) != value})


def variants(student: Named) -> list[Variant]:
    """From the narrowest to the widest, the student itself among them; it alone where no widths are known."""
    itself = Variant(1.0, dict(student.keywords))
    multiples = _FAMILIES.get(student.entry.network)
    if multiples is None:
        return [itself]
    built = inspect.signature(student.entry.network).parameters
    given = {**student.entry.keywords, **student.keywords}
    base = {name: _scaled(given.get(name, built[name].default), 1, 1) for name in multiples}
    found: list[Variant] = []
    for factor in _FACTORS:
        widths = {name: _scaled(base[name], factor, multiple) for name, multiple in multiples.items()}
        if factor == 1:
            found.append(itself)
        elif widths != base and all(widths != _widths(other, base) for other in found):
            found.append(Variant(factor, {**student.keywords, **widths}))
    return found


def _widths(variant: Variant, base: Mapping[str, Any]) -> dict[str, Any]:
    return {name: variant.options.get(name, base[name]) for name in base}


def _scaled(value: Any, factor: float, multiple: int) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_scaled(each, factor, multiple) for each in value)
    return max(multiple, round(value * factor / multiple) * multiple)
