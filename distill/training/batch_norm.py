"""Batch normalisation of a student that learns with the statistics it will be deployed with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from distill.interfaces import VideoNetwork

__all__ = ["freeze_statistics", "measure_statistics"]


def freeze_statistics(network: nn.Module) -> None:
    """Let every batch normalisation use its running statistics, and leave them as they are, though the rest trains."""
    for norm in _norms(network):
        norm.eval()


def measure_statistics(network: VideoNetwork, clips: Iterable[Tensor]) -> None:
    """Give every batch normalisation that has seen nothing the statistics of real footage, averaged over the clips.

    Args:
        network: left in training mode where anything was measured.
        clips: low resolution (B, T, 3, h, w) at every moment that the network restores; not read where all is measured.
    """
    fresh = [norm for norm in _norms(network) if not int(norm.num_batches_tracked or 0)]
    if not fresh:
        return
    momenta = [norm.momentum for norm in fresh]
    for norm in fresh:
        norm.momentum = None  # a plain average
    network.train()
    with torch.no_grad():
        for clip in clips:
            network(clip[:, :: network.time_scale])
    for norm, momentum in zip(fresh, momenta, strict=True):
        norm.momentum = momentum


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
