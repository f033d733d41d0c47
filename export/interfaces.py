"""What an export is ordered by, what a format is, and what is told of an exported file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from distill import __version__
from distill.errors import ConfigError, InputError

# the command's parser knows all formats, so what imports torch is imported by the functions that need it
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from torch import Tensor

    from distill.interfaces import SlidingNetwork
    from export.graphs.graph import Graph
    from export.program import Array, Program

__all__ = [
    "GIVEN_METADATA",
    "Artifact",
    "Finding",
    "Format",
    "LayerCost",
    "Node",
    "OperatorType",
    "Operators",
    "Order",
]


GIVEN_METADATA = ("network", "keywords", "degradation", "provenance")
"""What the caller must tell of a network, because only its checkpoint knows."""


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be exported, and how; each is its own, whatever it asks for.

    Attributes:
        network: on any device, in any mode; it is not changed.
        metadata: `GIVEN_METADATA` and whatever else should stand in the file, as text (`keywords` as JSON).
        precision: one of the format's.
        streaming: one new frame and memories in, instead of a window of frames.
        sizes: (height, width) of the low-resolution frames. None leaves both free, multiples of `SIZE_MULTIPLE`, to be
            padded by repeating the last row and column; several are enumerated where the format can.
        clips: real low-resolution clips (T, 3, h, w), RGB in [0, 1], that ranges of activations are measured on; for
            precisions that the format calls `calibrated`.
        options: what the format alone knows, by name, see `Format.options_of`.
    """

    network: SlidingNetwork
    metadata: Mapping[str, str]
    precision: str = "fp32"
    streaming: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    clips: Sequence[Tensor] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def graph(self) -> Graph:
        """The network's deployed copy, of the first size, or of free size."""
        from export.graphs.graph import streaming_graph, windowed_graph

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
        import torch

        from export.graphs.graph import SIZE_MULTIPLE

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


class Format(ABC):
    """A kind of file: one folder, `to_NAME/`, whose `format.py` holds a subclass, and one line in `export.formats`.

    Its module imports neither torch nor any runtime before a method needs it.

    Attributes:
        name: as typed after `--to`.
        suffix: of the files that are exported.
        other_suffixes: of other forms of these files that can be opened too.
        precisions: that it has, the default first.
        calibrated: those of them that need an order's clips.
        needs: the package that writes it.
        runtime: the package that runs it.
        extra: of this project that brings it; None where it is always there.
        sizes: how many sizes a file can have: "free", "several" (enumerated) or "one".
        is_folder: whether its files are folders.
        opener: "module:function", called with a path and a number of threads, returns something whose `run` takes and
            gives arrays by name. What loading a file costs is measured of this, in a process that has imported no more.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    other_suffixes: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]]
    calibrated: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str]
    runtime: ClassVar[str]
    extra: ClassVar[str | None] = None
    sizes: ClassVar[Literal["free", "several", "one"]]
    is_folder: ClassVar[bool] = False
    opener: ClassVar[str]

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of all files that it opens."""
        return (self.suffix, *self.other_suffixes)

    @property
    def cold_process(self) -> str:
        """What a process has imported that measures what loading a file costs, in words."""
        return f"Python, numpy and whatever opening a {self.name} file takes"

    @final
    def write(self, order: Order, target: Path) -> None:
        """Write the file, or the folder that is one.

        Raises:
            ConfigError: the format has no such precision or sizes, or the order's options do not go together.
            InputError: what it needs is not installed.
            CheckFailed: the network cannot be expressed in it.
        """
        self.check_precisions([order.precision])
        if not order.sizes and self.sizes != "free":
            raise ConfigError(f"{self.name} needs a size: give --size WIDTHxHEIGHT.")
        if len(order.sizes) > 1 and self.sizes != "several":
            raise ConfigError(f"A {self.name} file has one size, not {len(order.sizes)}.")
        self._demand(self.needs)
        self._write(order, target)

    @final
    def open(self, path: Path, threads: int | None = None) -> Program:
        """Load a file.

        Args:
            path: of a name that ends in one of `suffixes`.
            threads: that compute together; None leaves the choice to the runtime.

        Raises:
            InputError: it cannot be used, or what runs it is not installed.
        """
        if not path.exists():
            raise InputError(f"{path} does not exist: give a file that `distill export` wrote.")
        self._demand(self.runtime)
        return self._open(path, threads)

    @final
    def check_precisions(self, precisions: Sequence[str]) -> None:
        """Refuse a precision that the format does not have.

        Raises:
            ConfigError: it has not.
        """
        for precision in precisions:
            if precision not in self.precisions:
                raise ConfigError(f"{self.name} has no precision {precision!r}; it has {', '.join(self.precisions)}.")

    @abstractmethod
    def _write(self, order: Order, target: Path) -> None:
        """As `write`, which has checked the order by the format's attributes."""

    @abstractmethod
    def _open(self, path: Path, threads: int | None) -> Program:
        """As `open`, which has seen that the file is there and its runtime is installed."""

    def add_options(self, command: ArgumentParser) -> None:
        """Add the options of `distill export` that are for this format alone, each with a default."""
        return

    def options_of(self, given: Namespace, precisions: Sequence[str]) -> Mapping[str, Any]:
        """`Order.options` of a command line.

        Args:
            given: with the options of `add_options`, and `size` and `streaming`.
            precisions: that are exported.

        Raises:
            ConfigError: they do not go together.
        """
        return {}

    def name_parts(self, order: Order) -> Sequence[str]:
        """What the name of a file says besides its sizes, mode and precision."""
        return ()

    def write_companions(self, path: Path, options: Mapping[str, Any]) -> None:
        """Write what goes with a proven file, beside it.

        Args:
            path: the file.
            options: of its order.
        """
        return

    def findings(self, path: Path) -> Sequence[Finding]:
        """What is to be known before the file goes to a phone."""
        return ()

    def layer_costs(self, order: Order, *, lossy: bool) -> Sequence[LayerCost]:
        """What layers cost in a compressed file, the costliest first; none where that is not known.

        Args:
            order: that the file is written by.
            lossy: a clip lost more than is allowed; else only what the order's options want is told.
        """
        return ()

    def operator_times(
        self, path: Path, inputs: Mapping[str, Array], size: tuple[int, int], threads: int
    ) -> Operators | None:
        """The time of each operator of a file; None where the runtime does not tell.

        Args:
            path: the file.
            inputs: of a run, by name.
            size: (height, width) of the low-resolution frames in them.
            threads: that compute together.
        """
        return None

    def not_run_here(self, path: Path) -> str | None:
        """Why this machine cannot time the file although it can open it, as a sentence; None where it can."""
        return None

    def _demand(self, package: str) -> None:
        if find_spec(package) is not None:
            return
        if self.extra is not None:
            raise InputError(f'{self.name} needs an extra: pip install "distill-vsr[{self.extra}]".')
        raise InputError(f"{self.name} needs the package {package}, which is not installed, or not to be had here.")


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
