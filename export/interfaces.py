"""What an export is ordered by, what a format is, and what an exported file becomes when it is opened."""

from __future__ import annotations

import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill import __version__
from distill.errors import ConfigError, InputError
from distill.interfaces import SlidingNetwork
from export.graphs.graph import SIZE_MULTIPLE, Graph, streaming_graph, windowed_graph

__all__ = [
    "GIVEN_METADATA",
    "OWN_KEYS",
    "Array",
    "Artifact",
    "Finding",
    "Format",
    "LayerCost",
    "Node",
    "OperatorType",
    "Operators",
    "Order",
    "Program",
]


GIVEN_METADATA = ("network", "keywords", "degradation", "provenance")
"""What the caller must tell of a network, because only its checkpoint knows."""

OWN_KEYS = frozenset({"distill_vsr_version", "scale", "window", "mode"})
"""What every file of this project tells of itself, and others do not."""


@dataclass(frozen=True)
class Order:
    """What is to be exported, and how.

    Attributes:
        network: on any device, in any mode; it is not changed.
        metadata: `GIVEN_METADATA` and whatever else should stand in the file, as text (`keywords` as JSON).
        precision: one of the format's.
        streaming: one new frame and memories in, instead of a window of frames.
        sizes: (height, width) of the low-resolution frames. None leaves both free, multiples of `SIZE_MULTIPLE`, to be
            padded by repeating the last row and column; several are enumerated where the format can.
        clips: real low-resolution clips (T, 3, h, w), RGB in [0, 1], that ranges of activations are measured on.
        ios: 16 or 18, the oldest system that a Core ML file is for.
        images: Core ML frames are images instead of tensors.
    """

    network: SlidingNetwork
    metadata: Mapping[str, str]
    precision: str = "fp32"
    streaming: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    clips: Sequence[Tensor] = ()
    ios: int = 16
    images: bool = False

    def graph(self) -> Graph:
        """The network's deployed copy, of the first size, or of free size."""
        make = streaming_graph if self.streaming else windowed_graph
        return make(self.network, self.sizes[0] if self.sizes else None)

    def facts(self) -> dict[str, str]:
        """What the file is to say of itself.

        Besides `metadata`: `scale`, `time_scale`, `window`, `mode` ("windowed" or "streaming"), `memories` (JSON, for
        each [name, channels of one entry, entries, enlarged, multiple], see `distill.interfaces.Memory`),
        `memory_type` ("float32" or "float16"), `memories_inside` ("yes" where the runtime keeps them itself),
        `frame_type` ("float32", "float16" or "image"), `colour_range` ("RGB 0..1"), `layout` ("N C H W"), `precision`,
        `distill_vsr_version`, `torch_version`; `size_multiple` where height and width are free, else `sizes` ("HxW",
        several divided by blanks).
        """
        memories = list(self.network.step().memories) if self.streaming else []
        facts = dict(self.metadata) | {
            "scale": str(self.network.scale),
            "time_scale": str(self.network.time_scale),
            "window": str(self.network.window),
            "mode": "streaming" if self.streaming else "windowed",
            "memories": json.dumps(memories),
            "memory_type": "float32",
            "memories_inside": "no",
            "frame_type": "float32",
            "colour_range": "RGB 0..1",
            "layout": "N C H W",
            "precision": self.precision,
            "distill_vsr_version": __version__,
            "torch_version": str(torch.__version__),
        }
        if self.sizes:
            return facts | {"sizes": " ".join(f"{height}x{width}" for height, width in self.sizes)}
        return facts | {"size_multiple": str(SIZE_MULTIPLE)}


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as typed after `--to`.
        suffix: of its files.
        precisions: that it has, the default first.
        writer: "module:function", called with an order and the path to write.
        opener: "module:function", called with a path and a number of threads (None: the runtime's choice), returns a
            `Program`.
        needs: the package that writes it.
        runtime: the package that runs it.
        extra: of this project that brings it; None where it is always there.
        sizes: how many sizes a file can have: "free", "several" (enumerated) or "one".
        is_folder: whether its files are folders.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    writer: str
    opener: str
    needs: str
    runtime: str
    extra: str | None
    sizes: str
    is_folder: bool = False

    def write(self, order: Order, target: Path) -> None:
        """Write the file, or the folder that is one.

        Raises:
            ConfigError: the format has no such precision or sizes.
            InputError: what it needs is not installed.
            CheckFailed: the network cannot be expressed in it.
        """
        if order.precision not in self.precisions:
            raise ConfigError(f"{self.name} has no precision {order.precision!r}; it has {', '.join(self.precisions)}.")
        if not order.sizes and self.sizes != "free":
            raise ConfigError(f"{self.name} needs a size: give --size WIDTHxHEIGHT.")
        if len(order.sizes) > 1 and self.sizes != "several":
            raise ConfigError(f"A {self.name} file has one size, not {len(order.sizes)}.")
        self._demand(self.needs)
        pkgutil.resolve_name(self.writer)(order, target)

    def open(self, path: Path, threads: int | None = None) -> Program:
        """Load a file.

        Raises:
            InputError: it cannot be used, or what runs it is not installed.
        """
        if not path.exists():
            raise InputError(f"{path} does not exist: give a file that `distill export` wrote.")
        self._demand(self.runtime)
        program: Program = pkgutil.resolve_name(self.opener)(path, threads)
        return program

    def _demand(self, package: str) -> None:
        if find_spec(package) is not None:
            return
        if self.extra is not None:
            raise InputError(f'{self.name} needs an extra: pip install "distill-vsr[{self.extra}]".')
        raise InputError(f"{self.name} needs the package {package}, which is not installed, or not to be had here.")


Array = NDArray[np.floating[Any]]


class Program(ABC):
    """What a runtime made of a file.

    Attributes:
        metadata: what the file says of itself, see `export.interfaces.Order.facts`.
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
        """One run: inputs and outputs by the names of `export.graphs.graph.Graph`, (1, C, H, W) each.

        Frames are float32, RGB in [0, 1]; memories have the type that the metadata's `memory_type` names. The sizes
        must be what the file takes: `ExportedNetwork` sees to that.

        Raises:
            CheckFailed: the runtime cannot compute it.
        """

    def forget(self) -> None:
        """Start a new shot, where the runtime itself holds the memories (metadata `memories_inside`: "yes")."""
        return


@dataclass(frozen=True)
class Artifact:
    """One exported file, or folder where the format is one.

    Attributes:
        path: where it lies.
        format: "onnx" and the like.
        precision: "fp32" and the like.
        bytes: its size.
        sha256: of its bytes, hexadecimal; see `sha256_of`.
        seconds: the export took.
    """

    path: Path
    format: str
    precision: str
    bytes: int
    sha256: str
    seconds: float


Severity = Literal["error", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to know before the file goes to a phone.

    Attributes:
        severity: "error" where an accelerator would take the network in parts, not at all, or compute it wrongly;
            "note" for the rest.
        operator: of ONNX; or what else it is about, such as the accelerator's interface.
        count: how many nodes or inputs it is about.
        advice: what is the matter and what to do, one sentence.
    """

    severity: Severity
    operator: str
    count: int
    advice: str


@dataclass(frozen=True)
class LayerCost:
    """What one layer of an 8-bit file costs.

    Attributes:
        layer: as the network calls it, "tail.conv"; an ONNX node where that cannot be told.
        psnr_db: of the restored frames against the float32 file's with all layers in 8 bits but this one.
        gain_db: so much is that more than with all of them.
    """

    layer: str
    psnr_db: float
    gain_db: float


@dataclass(frozen=True)
class OperatorType:
    """All nodes of one type.

    Attributes:
        type: as the runtime calls it, after its own optimisations.
        count: nodes.
        ms: of a run, on average.
        share: of all nodes' time.
    """

    type: str
    count: int
    ms: float
    share: float


@dataclass(frozen=True)
class Node:
    """One node; attributes as of `OperatorType`, and `name`, as the runtime calls it."""

    name: str
    type: str
    ms: float
    share: float


@dataclass(frozen=True)
class Operators:
    """The operators of a file. Profiling itself takes time, so the sum is more than an unprofiled run.

    Attributes:
        entry: the file's name.
        size: (height, width) of the low-resolution frames.
        threads: that compute together.
        runs: profiled.
        ms: of all nodes of a run, on average.
        types: the most expensive first.
        nodes: the `NODES` most expensive ones.
    """

    entry: str
    size: tuple[int, int]
    threads: int
    runs: int
    ms: float
    types: tuple[OperatorType, ...]
    nodes: tuple[Node, ...]
