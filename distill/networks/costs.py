"""What each network costs: parameters, and multiply-accumulates counted on tensors without content."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distill.interfaces import ClipNetwork, SlidingNetwork, VideoNetwork
from distill.networks import registry
from distill.text_tables import aligned

__all__ = ["HEIGHT", "WIDTH", "cost_table", "costs", "multiply_accumulates"]

log = logging.getLogger("distill")

WIDTH, HEIGHT = 180, 120
"""The paper's low-resolution frame."""


def multiply_accumulates(network: VideoNetwork) -> int:
    """Of one restored frame, or of a clip of `usual_frames` where a network restores clips as a whole.

    Of a student that doubles the frame rate, of one run of its windowed form: two windows and two restored frames. Its
    step costs about half of that.

    The frames have 180x120 low-resolution pixels. As in the field's tables, what has no weights is not counted: the
    base image (an interpolation) and conversions of colour; nor is optical flow estimated outside of the network.
    `network` must lie on the meta device.
    """
    return _count(network)[0]


def costs() -> list[dict[str, Any]]:
    """Of every network known by name, as JSON."""
    rows = []
    for entry in registry.entries():
        try:
            rows.append(_row(entry))
        except Exception as error:  # whatever code from elsewhere raises
            if not entry.elsewhere:
                raise
            log.warning("%s of an installed package cannot be counted and is left out: %r", entry.name, error)
    return rows


def cost_table(rows: list[dict[str, Any]]) -> str:
    """Lines for people."""
    cells = [("network", "role", "parameters", "GMACs", "frames", "weights")]
    for row in rows:
        frames = f"{row['frames_in']} > {row['frames_out']:<2}"
        weights = "here" if row["weights"] else f"[{row['extra']}]" if row["extra"] else "-"
        cells.append((row["name"], row["role"], f"{row['parameters']:,}", f"{row['macs'] / 1e9:.2f}", frames, weights))
    return "\n".join(
        [
            *aligned(cells, left=(0, 1, 5)),
            f"(multiply-accumulates at low resolution {WIDTH}x{HEIGHT}; frames: so many seen > so many restored;",
            ' weights: here, with pip install "distill-vsr[EXTRA]", or - where you give a file of them)',
        ]
    )


def _row(entry: registry.Entry) -> dict[str, Any]:
    with torch.device("meta"):
        network = entry.build().eval()
    macs, by_part = _count(network)
    return {
        "name": entry.name,
        "role": entry.role,
        "parameters": _parameters(network),
        "macs": macs,
        "published_macs": macs + network.spared_macs(_frames(network), HEIGHT, WIDTH),
        "parts": {
            name: {"parameters": _parameters(part), "macs": by_part[name]}
            for name, part in network.named_children()
            if _parameters(part)
        },
        "window": network.window if isinstance(network, SlidingNetwork) else None,
        "frames_in": _frames(network),
        "frames_out": _frames_out(network),
        "scale": network.scale,
        "time_scale": network.time_scale,
        "hr_channels": network.hr_channels,
        "lr_channels": network.lr_channels,
        "weights": entry.weights is not None or entry.elsewhere,
        "extra": entry.extra,
    }


def _count(network: VideoNetwork) -> tuple[int, dict[str, int]]:
    """Multiply-accumulates of all that has weights, and of each of its parts (direct children) by name."""
    clip = torch.empty(1, _frames(network), 3, HEIGHT, WIDTH, device="meta")
    counted = _AsListed(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        counted(clip)
    prefix = f"{_AsListed.__name__}.network."
    by_module = {
        name.removeprefix(prefix): sum(operations.values()) // 2
        for name, operations in counter.get_flop_counts().items()
        if name.startswith(prefix)
    }
    modules = dict(network.named_modules())
    weightless = {
        name: macs
        for name, macs in by_module.items()
        if not _parameters(modules[name]) and not any(other.startswith(f"{name}.") for other in by_module)
    }
    for name in weightless:
        for level in range(name.count(".") + 1):
            above = name.rsplit(".", level)[0]
            by_module[above] = by_module.get(above, 0) - weightless[name]
    parts = {name: _of_part(part, name, by_module) for name, part in network.named_children()}
    return int(counter.get_total_flops()) // 2 - sum(weightless.values()), parts


def _of_part(part: nn.Module, name: str, by_module: dict[str, int]) -> int:
    """What was counted in a module, or in its parts where these were called around its own `forward`."""
    inner = sum(_of_part(child, f"{name}.{own}", by_module) for own, child in part.named_children())
    return max(by_module.get(name, 0), inner)


class _AsListed(nn.Module):
    """Runs a network as its cost is told; a module, because the counter names parts from the outermost module down."""

    def __init__(self, network: VideoNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Any:
        return self.network.run(clip) if isinstance(self.network, SlidingNetwork) else self.network(clip)


def _frames(network: VideoNetwork) -> int:
    if isinstance(network, SlidingNetwork):
        return network.taken
    return network.usual_frames if isinstance(network, ClipNetwork) else 1


def _frames_out(network: VideoNetwork) -> int:
    if isinstance(network, SlidingNetwork):
        return network.time_scale
    return network.time_scale * (_frames(network) - 1) + 1


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
