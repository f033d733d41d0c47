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

import torch

from distill.errors import CheckFailed, ConfigError, InputError
from distill.files import bytes_of, sha256_of
from distill.interfaces import SlidingNetwork
from distill.networks import registry
from export.exported import ExportedNetwork
from export.formats import format_of, open_exported
from export.interfaces import Format
from export.latency import cold_start
from export.latency.contender import Contender, Entry
from export.latency.networks import graph_of, work_of
from export.latency.row import (
    CONVERTED,
    FAILED,
    NOT_RUN,
    Absence,
    ColdStart,
    Execution,
    Fidelity,
    Row,
    StoredFile,
    Subject,
    Work,
)
from export.machine import seconds_of

__all__ = ["FileEntry"]


class FileEntry(Entry):
    """An exported file to be measured, opened once for each number of threads.

    Args:
        path: a file of any format that `distill export` wrote.
        fidelity: how good its pictures are, where that is known.
        threads: that compute together while it is looked into; None leaves the choice to the runtime.

    Attributes:
        fidelity: as above.
        exported: the file as a network; None where what runs it is not installed.

    Raises:
        InputError: the file cannot be used.
    """

    def __init__(self, path: Path, fidelity: Fidelity | None = None, threads: int | None = None) -> None:
        self._path, self.fidelity = path, fidelity
        self._kind = format_of(path)
        self._opened: dict[int | None, ExportedNetwork] = {}
        self._works: dict[tuple[int, int], Work] = {}
        self._network: SlidingNetwork | None = None
        self._absence: Absence | None = None
        self.exported: ExportedNetwork | None = None
        if path.exists() and find_spec(self._kind.runtime) is None:
            wanted = f"distill-vsr[{self._kind.extra}]" if self._kind.extra else self._kind.runtime
            self._absence = Absence(NOT_RUN, f'{self._kind.name} needs an extra: pip install "{wanted}".')
            self._subject = Subject(path.name, self._kind.name)
        else:
            self.exported = self._open(threads)
            self._subject = self._look_into(self.exported)
        self._file = StoredFile(bytes_of(path) / 1e6, sha256_of(path))

    def _look_into(self, exported: ExportedNetwork) -> Subject:
        facts = exported.program.metadata
        self.sizes = tuple((height, width) for height, width in exported.sizes)
        self.precision = facts["precision"]
        self._network = _rebuilt(facts)
        if reason := self._kind.not_run_here(self._path):
            self._absence = Absence(CONVERTED, reason)
        return Subject(
            self._path.name,
            self._kind.name,
            self.precision,
            facts["mode"],
            scale=exported.scale,
            time_scale=exported.time_scale,
        )

    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        row = partial(Row, replace(self._subject, size=size), file=self._file, fidelity=self.fidelity)
        if self.sizes and size not in self.sizes:
            taken = " and ".join(f"{width}x{height}" for height, width in self.sizes)
            return Contender(row(absence=Absence(NOT_RUN, f"The file takes frames of {taken} only.")))
        row = partial(row, work=self._work(size))
        if self._absence is not None:
            return Contender(row(absence=self._absence))
        row = partial(row, threads=threads)
        try:
            exported = self._open(threads)
            feed = _Feed(exported, size)
            row = partial(row, execution=_execution(exported, feed))
            cold = _cold_start(self._path, self._kind, threads, feed)
        except (CheckFailed, InputError) as error:
            return Contender(row(absence=Absence(FAILED, str(error))))
        times = partial(self._kind.operator_times, self._path, feed.inputs, size, threads)
        return Contender(row(cold_start=cold), partial(seconds_of, feed), times)

    def _open(self, threads: int | None) -> ExportedNetwork:
        if threads not in self._opened:
            self._opened[threads] = open_exported(self._path, threads)
        return self._opened[threads]

    def _work(self, size: tuple[int, int]) -> Work | None:
        if self._network is None:
            return None
        if size not in self._works:
            graph = graph_of(self._network, size, streaming=self._subject.mode == "streaming")
            self._works[size] = work_of(graph)
        return self._works[size]


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


def _execution(exported: ExportedNetwork, feed: _Feed) -> Execution:
    ran = exported.program
    return Execution(ran.unit_asked, ran.unit_got, ran.runtime, ran.runtime_version, feed.shapes())


def _cold_start(path: Path, kind: Format, threads: int, feed: _Feed) -> ColdStart:
    """`cold_start.py` as a process of its own; -P, so that a folder `export` where the user stands is not imported."""
    # whatever of the runtime was imported to run the file here
    package = kind.runtime
    modules = sorted(name for name in sys.modules if name == package or name.startswith(f"{package}."))
    order = {
        "path": str(path),
        "threads": threads,
        "inputs": {name: [array.shape, str(array.dtype)] for name, array in feed.inputs.items()},
        "opener": kind.opener,
        "modules": modules,
    }
    command = [sys.executable, "-P", cold_start.__file__]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CheckFailed(f"A fresh process could not load and run it: {reason}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return ColdStart(
        first_ms=measured["first_ms"],
        load_ms=measured["load_ms"],
        peak_mb=measured["peak_mb"],
        start_mb=measured["start_mb"],
        cold_process=kind.cold_process,
    )
