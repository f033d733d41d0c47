"""Where mixed precision must not reach: colour, base images, and whatever tells where to sample."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["full_precision"]


def full_precision(device: str) -> AbstractContextManager[object]:
    """Suspends mixed precision where it is on; exporting and counting know no such context."""
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
