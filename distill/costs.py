"""What each network costs: parameters, and multiply-accumulates counted on tensors without content."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from distill import registry
from distill.interfaces import VideoNetwork, WindowNetwork

__all__ = ["HEIGHT", "WIDTH", "cost_table", "costs", "multiply_accumulates"]

WIDTH, HEIGHT = 180, 120
"""The paper's low-resolution frame."""


def multiply_accumulates(network: VideoNetwork) -> int:
    """Of one restored frame of 180x120 low-resolution pixels; `network` must lie on the meta device."""
    frames = network.window if isinstance(network, WindowNetwork) else 1
    clip = torch.empty(1, frames, 3, HEIGHT, WIDTH, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.reconstruct(clip) if isinstance(network, WindowNetwork) else network(clip)
    return int(counter.get_total_flops()) // 2


def costs() -> list[dict[str, Any]]:
    """Of every network known by name, as JSON."""
    rows = []
    for entry in registry.entries():
        with torch.device("meta"):
            network = entry.build().eval()
        rows.append(
            {
                "name": entry.name,
                "role": entry.role,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "macs": multiply_accumulates(network),
                "window": network.window if isinstance(network, WindowNetwork) else None,
                "scale": network.scale,
                "time_scale": network.time_scale,
                "hr_channels": network.hr_channels,
                "weights": entry.weights is not None,
            }
        )
    return rows


def cost_table(rows: list[dict[str, Any]]) -> str:
    """Lines for people."""
    lines = [f"{'network':<20} {'role':<8} {'parameters':>11} {'GMACs':>9} {'frames':>6}  weights"]
    lines += [
        f"{row['name']:<20} {row['role']:<8} {row['parameters']:>11,} {row['macs'] / 1e9:>9.2f} "
        f"{row['window'] or 'all':>6}  {'ship' if row['weights'] else '-'}"
        for row in rows
    ]
    return "\n".join([*lines, f"(multiply-accumulates for one frame, low resolution {WIDTH}x{HEIGHT})"])
