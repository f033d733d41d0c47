"""An exported file, loaded: named arrays in, named arrays out, whatever runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Program"]

Array = NDArray[np.floating[Any]]


class Program(ABC):
    """What a runtime made of a file.

    Attributes:
        metadata: what the file says of itself, see `export.formats.Order.facts`.
        runtime: that runs it, such as "onnxruntime".
        runtime_version: its version.
        unit_asked: the execution provider, delegate or compute unit asked for.
        unit_got: the one that runs, as the runtime tells.
    """

    metadata: Mapping[str, str]
    runtime: str
    runtime_version: str
    unit_asked: str
    unit_got: str

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run: inputs and outputs by the names of `export.graph.Graph`, (1, C, H, W) each.

        Frames are float32, RGB in [0, 1]; memories have the type that the metadata's `memory_type` names. The sizes
        must be what the file takes: `ExportedNetwork` sees to that.

        Raises:
            CheckFailed: the runtime cannot compute it.
        """

    def forget(self) -> None:
        """Start a new shot, where the runtime itself holds the memories (metadata `memories_inside`: "yes")."""
        return
