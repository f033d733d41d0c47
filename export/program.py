"""What an exported file becomes when it is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from distill.errors import CheckFailed, InputError

__all__ = ["OWN_KEYS", "Array", "Program", "check_own", "first_line"]

OWN_KEYS = frozenset({"distill_vsr_version", "scale", "window", "mode"})
"""What every file of this project tells of itself, and others do not."""

Array: TypeAlias = NDArray[np.floating[Any]]


class Program(ABC):
    """What a runtime made of a file.

    Attributes:
        metadata: what the file says of itself, see `export.interfaces.Order.facts`.
        runtime: that runs it, such as "onnxruntime".
        runtime_title: as its makers write it, for messages.
        runtime_version: its version.
        unit_asked: the execution provider, delegate or compute unit asked for.
        unit_got: the one that runs, as the runtime tells.
    """

    metadata: Mapping[str, str]
    runtime: str
    runtime_title: str
    runtime_version: str
    unit_asked: str
    unit_got: str

    @final
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run: inputs and outputs by the names of `export.graphs.graph.Graph`, (1, C, H, W) each.

        Frames are float32, RGB in [0, 1]; memories have the type that the metadata's `memory_type` names. The sizes
        must be what the file takes: `ExportedNetwork` sees to that.

        Raises:
            CheckFailed: the runtime cannot compute it.
        """
        try:
            return self._run(inputs)
        except CheckFailed:
            raise
        except Exception as error:  # the runtimes' exceptions have no other base
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise CheckFailed(f"{self.runtime_title} fails on {shapes}: {first_line(error)}") from error

    @abstractmethod
    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As `run`; whatever it raises is told with the inputs' shapes."""

    def forget(self) -> None:
        """Start a new shot, where the runtime itself holds the memories (metadata `memories_inside`: "yes")."""
        return


def check_own(
    metadata: Mapping[str, str], path: Path, called: str, wanted: str, keys: Collection[str] = OWN_KEYS
) -> None:
    """Refuse a file that this project did not write.

    Args:
        metadata: what it says of itself.
        path: the file, for the message.
        called: what it is all the same, such as "an ONNX model".
        wanted: what to do, such as "give the .onnx file that `distill export` wrote."
        keys: that the metadata must have.

    Raises:
        InputError: one is missing.
    """
    if not metadata.keys() >= set(keys):
        raise InputError(f"{path} is {called} that this version of distill-vsr did not write: {wanted}")


def first_line(error: Exception) -> str:
    """The first line of what a library's exception says; its type's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
