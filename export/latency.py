"""What one frame costs on the machine that measures: host latency, never a phone's.

Load and first run are timed apart, in a fresh process. Then, in this process, the thread settings take turns run by
run, so that a busy moment of the machine hits all of them alike: at least 10 warm-up runs, then at least 100 runs and
3 seconds each. A row that got less says so.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.errors import CheckFailed, ConfigError
from distill.interfaces import WindowNetwork
from export import runtime
from export.artifact import sha256_of
from export.deploy import deployed
from export.parity import OnnxNetwork
from export.protocol import Protocol, Timing, seconds_of, take_turns

__all__ = ["BUDGET_SECONDS", "MINIMUM_RUNS", "MINIMUM_SECONDS", "WARMUP", "Row", "document", "profile_onnx"]
__all__ += ["profile_torch", "table"]

WARMUP, MINIMUM_RUNS, MINIMUM_SECONDS = 10, 100, 3.0
"""The protocol; a row with fewer is marked as not valid."""

BUDGET_SECONDS = 120.0
"""After which a row ends with what it has, warm-up included; enough for 100 runs of a second."""

DEFAULT_SIZE = (120, 180)
"""Height and width of the low-resolution frames that are profiled: a quarter of 480x720."""


@dataclass(frozen=True)
class Row:
    """One network, in one form, on one number of threads of this host.

    Attributes:
        form: "onnx" or "pytorch".
        precision: "fp32".
        threads: that compute together.
        unit_asked: the execution provider or device asked for.
        unit_got: the one that ran.
        runtime: its name.
        runtime_version: its version.
        input_shape: (1, window, 3, h, w).
        first_ms: the first run after loading in a fresh process, or the first of all for a network in memory.
        p50_ms: median run, by nearest rank.
        p90_ms: nine runs of ten are as fast.
        p99_ms: 99 runs of 100 are as fast.
        fps: runs per second of running, slow ones included.
        warmup_runs: untimed runs.
        runs: timed runs.
        duration_seconds: the timed runs took together.
        file_mb: the file in MB (1e6 bytes); None where there is none.
        sha256: of the file; None where there is none.
        load_ms: loading the file in a fresh process; None for a network in memory.
        peak_mb: most memory resident (VmHWM) in a fresh process that imports the runtime, loads the file and runs it
            twice, in MB; None off Linux and for a network in memory.
        start_mb: of that, what stood before the file was loaded: the interpreter and the runtime.
    """

    form: str
    precision: str
    threads: int
    unit_asked: str
    unit_got: str
    runtime: str
    runtime_version: str
    input_shape: tuple[int, ...]
    first_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    fps: float
    warmup_runs: int
    runs: int
    duration_seconds: float
    file_mb: float | None = None
    sha256: str | None = None
    load_ms: float | None = None
    peak_mb: float | None = None
    start_mb: float | None = None

    @property
    def duration_met(self) -> bool:
        """The timed runs took at least `MINIMUM_SECONDS`."""
        return self.duration_seconds >= MINIMUM_SECONDS

    @property
    def query_met(self) -> bool:
        """There were at least `MINIMUM_RUNS` timed runs."""
        return self.runs >= MINIMUM_RUNS

    @property
    def valid(self) -> bool:
        """The whole protocol was kept."""
        return self.duration_met and self.query_met and self.warmup_runs >= WARMUP


def profile_onnx(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    threads: Sequence[int] = (1, 2),
    minimum_runs: int = MINIMUM_RUNS,
    minimum_seconds: float = MINIMUM_SECONDS,
    warmup: int = WARMUP,
    budget_seconds: float = BUDGET_SECONDS,
) -> list[Row]:
    """Measure an exported file with ONNX Runtime on this host's CPU, one row for each number of threads.

    Args:
        path: a file that `export_onnx` wrote.
        size: (height, width) of the low-resolution frames; None for the size that the file fixes, else 120x180.
        threads: each at least 1.
        minimum_runs: timed runs that each row needs; below `MINIMUM_RUNS` no row is valid.
        minimum_seconds: of running that each row needs; below `MINIMUM_SECONDS` a row may not be valid.
        warmup: untimed runs before; below `WARMUP` no row is valid.
        budget_seconds: after which a row ends all the same.

    Raises:
        InputError: the file cannot be used, or does not take this size.
        ConfigError: no thread, or a size that is not positive.
        CheckFailed: the fresh process that loads the file failed.
    """
    import onnxruntime

    _check_settings(threads, size)
    networks = [OnnxNetwork(path, count) for count in threads]
    height, width = size or networks[0].size or DEFAULT_SIZE
    window = networks[0].fitted(_noise(networks[0].window, height, width))
    cold = [_cold_start(path, count, window.shape) for count in threads]
    protocol = Protocol(warmup, minimum_runs, minimum_seconds, budget_seconds)
    timings = take_turns([partial(seconds_of, partial(network.run, window)) for network in networks], protocol)
    return [
        Row(
            form="onnx",
            precision=network.metadata["precision"],
            threads=count,
            unit_asked="CPUExecutionProvider",
            unit_got=network.providers[0],
            runtime="onnxruntime",
            runtime_version=onnxruntime.__version__,
            input_shape=window.shape,
            file_mb=path.stat().st_size / 1e6,
            sha256=sha256_of(path),
            **start,
            **_figures(timing),
        )
        for network, count, start, timing in zip(networks, threads, cold, timings, strict=True)
    ]


def profile_torch(
    network: WindowNetwork,
    *,
    size: tuple[int, int] | None = None,
    threads: Sequence[int] = (1, 2),
    minimum_runs: int = MINIMUM_RUNS,
    minimum_seconds: float = MINIMUM_SECONDS,
    warmup: int = WARMUP,
    budget_seconds: float = BUDGET_SECONDS,
) -> list[Row]:
    """Measure a network in eager PyTorch on this host's CPU by the same protocol, to compare with.

    The deployed copy is measured, windowed as the file is. It is in memory already, so nothing is loaded, and the
    memory of the process that trained it would say little: both stay empty.

    Args:
        network: on any device, in any mode; it is not changed.
        size: (height, width) of the low-resolution frames; None for 120x180.
        threads: as for `profile_onnx`, like what follows.
        minimum_runs: see there.
        minimum_seconds: see there.
        warmup: see there.
        budget_seconds: see there.

    Raises:
        ConfigError: no thread, or a size that is not positive.
    """
    _check_settings(threads, size)
    network = deployed(network).cpu()
    window = _noise(network.window, *(size or DEFAULT_SIZE))

    def run_on(count: int) -> float:
        torch.set_num_threads(count)
        return seconds_of(partial(network.reconstruct, window))

    runs, before = [partial(run_on, count) for count in threads], torch.get_num_threads()
    protocol = Protocol(warmup, minimum_runs, minimum_seconds, budget_seconds)
    try:
        with torch.inference_mode():
            first = [run() for run in runs]
            timings = take_turns(runs, protocol)
    finally:
        torch.set_num_threads(before)
    return [
        Row(
            form="pytorch",
            precision="fp32",
            threads=count,
            unit_asked="cpu",
            unit_got="cpu",
            runtime="torch",
            runtime_version=str(torch.__version__),
            input_shape=tuple(window.shape),
            first_ms=seconds * 1e3,
            **_figures(timing),
        )
        for count, seconds, timing in zip(threads, first, timings, strict=True)
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows for people: a line that says where they were measured, one line each, and the phone, not run.

    Times in ms, sizes in MB (1e6 bytes); "-" where a row has no figure.
    """
    head = "format | precision | status | MB | load ms | first ms | p50 | p90 | p99 | fps | peak MB | units"
    lines = [head.split(" | "), *(_cells(row) for row in rows)]
    for form, precision, file_mb in dict.fromkeys((row.form, row.precision, row.file_mb) for row in rows if row.sha256):
        lines.append([form, precision, "not run", _number(file_mb, 2), *"-" * 7, "phone"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    device = _device()
    caption = f"Host latency, not a phone's: {device['processor']}, {device['os']}"
    return "\n".join([caption, *(" | ".join(map(str.ljust, line, widths)).rstrip() for line in lines)])


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows for machines: what `table` says and what it leaves out, ready for JSON."""
    return {
        "latency": "host",
        "phone": "not run",
        "device": _device(),
        "protocol": {"warmup": WARMUP, "minimum_runs": MINIMUM_RUNS, "minimum_seconds": MINIMUM_SECONDS},
        "rows": [_json_row(row) for row in rows],
    }


def _cells(row: Row) -> list[str]:
    times = (row.load_ms, row.first_ms, row.p50_ms, row.p90_ms, row.p99_ms, row.fps)
    numbers = [_number(row.file_mb, 2), *(_number(value, 1) for value in times), _number(row.peak_mb, 0)]
    units = f"CPU, {row.threads} thread{'s' if row.threads > 1 else ''}"
    return [row.form, row.precision, "ok" if row.valid else "too short", *numbers, units]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _json_row(row: Row) -> dict[str, Any]:
    flags = {"isMinDurationMet": row.duration_met, "isMinQueryMet": row.query_met, "isResultValid": row.valid}
    return dict(vars(row)) | {"input_shape": list(row.input_shape)} | flags  # the flags' names are MLPerf Mobile's


def _device() -> dict[str, Any]:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return {
        "processor": processor,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "os": platform.platform(),
    }


def _check_settings(threads: Sequence[int], size: tuple[int, int] | None) -> None:
    if not threads or min(threads) < 1:
        raise ConfigError(f"The thread counts are {list(threads)}, but there must be one or more, each at least 1.")
    if size is not None and min(size) < 1:
        raise ConfigError(f"The size is {size[0]}x{size[1]}, but height and width must be at least 1.")


def _figures(timing: Timing) -> dict[str, Any]:
    """Those fields of a `Row` that the timed runs fill."""
    p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(timing.samples, (50, 90, 99), method="inverted_cdf"))
    return {
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "fps": len(timing.samples) / timing.seconds,
        "warmup_runs": timing.warmup_runs,
        "runs": len(timing.samples),
        "duration_seconds": timing.seconds,
    }


def _noise(window: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(1, window, 3, height, width, generator=torch.Generator().manual_seed(0))


def _cold_start(path: Path, threads: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """`runtime.py` as a process of its own; -P, so that a folder `export` where the user stands is not imported."""
    command = [sys.executable, "-P", runtime.__file__, str(path), str(threads), *map(str, shape)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CheckFailed(f"A fresh process could not load and run {path} on {threads} threads: {reason}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
