"""What takes part in a profile: files of any format, and networks in memory to compare with."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distill.errors import CheckFailed, ConfigError, InputError
from distill.files import bytes_of, sha256_of
from distill.interfaces import SlidingNetwork
from distill.networks import registry
from export import runtime
from export.exported import ExportedNetwork
from export.formats import Format, format_of
from export.graph import Graph, streaming_graph, windowed_graph
from export.operators import Operators, operators
from export.profile_row import CONVERTED, FAILED, NOT_RUN, Fidelity, Row
from export.protocol import seconds_of

__all__ = ["Contender", "FileEntry", "NetworkEntry", "Opened", "opened"]


@dataclass(frozen=True)
class FileEntry:
    """An exported file to be measured.

    Attributes:
        path: a file of any format that `distill export` wrote.
        fidelity: how good its pictures are, where that is known.
    """

    path: Path
    fidelity: Fidelity | None = None


@dataclass(frozen=True)
class NetworkEntry:
    """A network in PyTorch to be measured on the CPU: its deployed copy, as it would be exported.

    Attributes:
        network: on any device, in any mode; it is not changed.
        name: that rows give it.
        streaming: step by step with memories, instead of window by window.
        compiled: by torch.compile, instead of eager.
        fidelity: how good its pictures are, where that is known.
    """

    network: SlidingNetwork
    name: str
    streaming: bool = False
    compiled: bool = False
    fidelity: Fidelity | None = None


@dataclass(frozen=True)
class Contender:
    """One entry at one size on one number of threads.

    Attributes:
        row: what is known of it without timed runs.
        run: runs once and returns the seconds; None where it does not run, as the row says.
        operators: takes the time of each operator; None where the runtime does not tell.
    """

    row: Row
    run: Callable[[], float] | None = None
    operators: Callable[[], Operators] | None = None


class Opened(ABC):
    """An entry, looked into.

    Attributes:
        sizes: (height, width) that it takes; empty where it takes any.
        precision: "fp32" and the like, "unknown" for a file that nothing here opens.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    precision: str = "unknown"

    @abstractmethod
    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        """Ready to run. Whatever keeps it from running stands in its row, nothing is raised.

        A row that the number of threads has no part in names none.
        """


def opened(entry: FileEntry | NetworkEntry) -> Opened:
    """Look into an entry.

    Raises:
        InputError: the file cannot be used.
    """
    return _File(entry) if isinstance(entry, FileEntry) else _Network(entry)


class _File(Opened):
    def __init__(self, entry: FileEntry) -> None:
        self._path = entry.path
        self._kind = format_of(entry.path)
        self._network: SlidingNetwork | None = None
        row = Row(entry.path.name, self._kind.name, fidelity=entry.fidelity)
        if entry.path.exists() and find_spec(self._kind.runtime) is None:
            wanted = f"distill-vsr[{self._kind.extra}]" if self._kind.extra else self._kind.runtime
            row = replace(row, absent=NOT_RUN, reason=f'{self._kind.name} needs an extra: pip install "{wanted}".')
            self._row = _with_file(row, entry.path)
            return
        exported = ExportedNetwork(entry.path, self._kind)
        self.sizes = tuple((height, width) for height, width in exported.sizes)
        facts = exported.program.metadata
        self.precision = facts["precision"]
        self._network = _rebuilt(facts)
        row = replace(row, precision=self.precision, mode=facts["mode"], scale=exported.scale)
        row = replace(row, time_scale=exported.time_scale)
        if self._kind.name == "coreml" and sys.platform != "darwin":
            reason = "Core ML runs on Apple's systems only: measure this file on a Mac or an iPhone."
            row = replace(row, absent=CONVERTED, reason=reason)
        self._row = _with_file(row, entry.path)

    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        row = replace(self._row, size=size)
        if self.sizes and size not in self.sizes:
            taken = " and ".join(f"{width}x{height}" for height, width in self.sizes)
            return Contender(replace(row, absent=NOT_RUN, reason=f"The file takes frames of {taken} only."))
        row = self._with_cost(row, size)
        if row.absent is not None:
            return Contender(row)
        row = replace(row, threads=threads)
        try:
            exported = ExportedNetwork(self._path, self._kind, threads)
            feed = _Feed(exported, size)
            row = replace(row, **_of_program(exported), input_shapes=feed.shapes())
            row = replace(row, **_cold_start(self._path, self._kind, threads, feed))
        except (CheckFailed, InputError) as error:
            return Contender(replace(row, absent=FAILED, reason=str(error)))
        told = partial(operators, self._path, feed.inputs, size, threads) if self._kind.name == "onnx" else None
        return Contender(row, partial(seconds_of, feed), told)

    def _with_cost(self, row: Row, size: tuple[int, int]) -> Row:
        if self._network is None:
            return row
        graph = _graph(self._network, size, streaming=row.mode == "streaming")
        return replace(row, macs=_macs(graph), parameters=_parameters(graph))


class _Feed:
    """Runs a file on noise again and again; what a run remembers, the next one takes."""

    def __init__(self, exported: ExportedNetwork, size: tuple[int, int]) -> None:
        self._program = exported.program
        frames = torch.rand(exported.window, 3, *size, generator=torch.Generator().manual_seed(0))
        self.inputs = next(iter(exported.inputs_of(frames)))

    def shapes(self) -> dict[str, list[int]]:
        return {name: list(array.shape) for name, array in self.inputs.items()}

    def __call__(self) -> None:
        outputs = self._program.run(self.inputs)
        self.inputs |= {name: outputs[f"next_{name}"] for name in self.inputs if f"next_{name}" in outputs}


class _Network(Opened):
    precision = "fp32"

    def __init__(self, entry: NetworkEntry) -> None:
        self._entry = entry

    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        entry = self._entry
        graph = _graph(entry.network, size, streaming=entry.streaming)
        row = Row(
            entry.name,
            "torch.compile" if entry.compiled else "pytorch",
            precision=self.precision,
            mode="streaming" if entry.streaming else "windowed",
            size=size,
            scale=entry.network.scale,
            time_scale=entry.network.time_scale,
            threads=threads,
            unit_asked="cpu",
            unit_got="cpu",
            runtime="torch",
            runtime_version=str(torch.__version__),
            input_shapes={name: list(tensor.shape) for name, tensor in graph.inputs.items()},
            parameters=_parameters(graph),
            macs=_macs(graph),
            fidelity=entry.fidelity,
        )
        steps = _Steps(graph, threads, compiled=entry.compiled)
        try:
            with warnings.catch_warnings():  # of torch about itself
                warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
                first = steps()
        except Exception as error:  # whatever a compiler raises, such as that there is no C++ compiler
            reason = " ".join(str(error).split("\n\n")[0].split()) or repr(error)
            return Contender(replace(row, absent=FAILED, reason=reason))
        return Contender(replace(row, first_ms=first * 1e3), steps)


_SPINNING_SECONDS = 0.01
"""So long OpenMP's threads wait busily for more work, and would slow down whatever runs next."""


class _Steps:
    """Runs a graph in PyTorch, as `_Feed` does a file, and returns the seconds."""

    def __init__(self, graph: Graph, threads: int, *, compiled: bool) -> None:
        self._module: Callable[..., Any] = graph.module
        if compiled:  # as a whole or not at all: what stays eager must not be called compiled
            self._module = torch.compile(graph.module, dynamic=False, fullgraph=True)
        draw = torch.Generator().manual_seed(0)
        with torch.inference_mode():  # as the memories that come back are: compiled code is for one kind of tensors
            self._tensors = [
                torch.rand(tensor.shape, generator=draw) if name.partition("_")[0] == "frame" else tensor.clone()
                for name, tensor in graph.inputs.items()
            ]
        self._threads, self._pictures = threads, len(graph.pictures)

    def __call__(self) -> float:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            seconds = seconds_of(self._step)
        if self._threads > 1:
            time.sleep(_SPINNING_SECONDS)
        return seconds

    def _step(self) -> None:
        memories = self._module(*self._tensors)[self._pictures :]
        self._tensors[len(self._tensors) - len(memories) :] = memories


def _graph(network: SlidingNetwork, size: tuple[int, int], *, streaming: bool) -> Graph:
    return (streaming_graph if streaming else windowed_graph)(network, size)


def _parameters(graph: Graph) -> int:
    return sum(parameter.numel() for parameter in graph.module.parameters())


def _macs(graph: Graph) -> int:
    """Multiply-accumulates of one run, counted on tensors without content."""
    module = copy.deepcopy(graph.module).to("meta")
    inputs: list[Tensor] = [tensor.to("meta") for tensor in graph.inputs.values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def _rebuilt(facts: Mapping[str, str]) -> SlidingNetwork | None:
    """The network that a file was made of, with other weights; None for one that is not known here."""
    try:
        network = registry.find(facts["network"], typed=False).build(**json.loads(facts["keywords"]))
    except (ConfigError, KeyError, ValueError):
        return None
    return network if isinstance(network, SlidingNetwork) else None


def _with_file(row: Row, path: Path) -> Row:
    return replace(row, file_mb=bytes_of(path) / 1e6, sha256=sha256_of(path))


def _of_program(exported: ExportedNetwork) -> dict[str, Any]:
    names = ("unit_asked", "unit_got", "runtime", "runtime_version")
    return {name: getattr(exported.program, name) for name in names}


def _cold_start(path: Path, kind: Format, threads: int, feed: _Feed) -> dict[str, Any]:
    """`runtime.py` as a process of its own; -P, so that a folder `export` where the user stands is not imported."""
    bare = kind.name == "onnx"
    # whatever of the runtime was imported to run the file here
    package = kind.runtime
    modules = sorted(name for name in sys.modules if name == package or name.startswith(f"{package}."))
    order = {
        "path": str(path),
        "threads": threads,
        "inputs": {name: [array.shape, str(array.dtype)] for name, array in feed.inputs.items()},
        "opener": None if bare else kind.opener,
        "modules": ["onnxruntime"] if bare else modules,
    }
    command = [sys.executable, "-P", runtime.__file__]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CheckFailed(f"A fresh process could not load and run it: {reason}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    imported = (
        "Python, numpy and onnxruntime" if bare else f"Python, numpy and whatever opening a {kind.name} file takes"
    )
    return measured | {"cold_process": imported}
