"""Exported files that take part in a profile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from distill.errors import CheckFailed, ConfigError, InputError
from distill.files import bytes_of, sha256_of
from distill.interfaces import SlidingNetwork
from distill.networks import registry
from export.exported import ExportedNetwork
from export.formats import format_of
from export.interfaces import Format
from export.latency import cold_start
from export.latency.contender import Contender, FileEntry, Opened
from export.latency.networks import _graph, _macs, _parameters
from export.latency.row import CONVERTED, FAILED, NOT_RUN, Row
from export.machine import seconds_of
from export.to_onnx.operator_times import operators


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
        exported = ExportedNetwork(self._kind.open(entry.path), entry.path)
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
            exported = ExportedNetwork(self._kind.open(self._path, threads), self._path)
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
    """`cold_start.py` as a process of its own; -P, so that a folder `export` where the user stands is not imported."""
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
    command = [sys.executable, "-P", cold_start.__file__]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CheckFailed(f"A fresh process could not load and run it: {reason}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    imported = (
        "Python, numpy and onnxruntime" if bare else f"Python, numpy and whatever opening a {kind.name} file takes"
    )
    return measured | {"cold_process": imported}
