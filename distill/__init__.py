"""Space-time distillation of video super-resolution networks."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.networks.checkpoint import load

__all__ = ["__version__", "load"]

__version__ = metadata.version("distill-vsr")


def __getattr__(name: str) -> Any:
    # torch is imported at first use, so that `distill --help` answers at once
    if name == "load":
        from distill.networks.checkpoint import load

        return load
    raise AttributeError(name)
