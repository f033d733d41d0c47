"""One row of a latency report: one network, in one form, at one size, on one machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.exported import ALLOWED_LOSS_DB
from export.latency.timing import STANDARD, Timing

__all__ = ["CONVERTED", "FAILED", "NOT_RUN", "VIDEO_RATES", "Absence", "ColdStart", "Execution", "Fidelity"]
__all__ += ["Latency", "Limit", "Row", "StoredFile", "Subject", "Work", "counted_threads", "latency_of"]

VIDEO_RATES = (24, 30, 60)
"""Frames per second of video that real-time factors are told for."""

CONVERTED, NOT_RUN, FAILED = "converted, not run", "not run", "failed"
"""Why a row has no times; `Absence.reason` says more."""

_MAI_SIZE, _MAI_SCALE = (180, 320), 4


@dataclass(frozen=True)
class Subject:
    """What a row is of. None is what a file that nothing here opens does not tell.

    Attributes:
        entry: name of the file, or of the network.
        format: "onnx" and the like; "pytorch" (eager) or "torch.compile" for a network in memory.
        precision: "fp32" and the like.
        mode: "windowed" or "streaming".
        size: (height, width) of the low-resolution frames.
        scale: how many times larger the restored frame is.
        time_scale: how many frames a run restores: 2 where the frame rate is doubled.
    """

    entry: str
    format: str
    precision: str | None = None
    mode: str | None = None
    size: tuple[int, int] | None = None
    scale: int | None = None
    time_scale: int | None = None

    @property
    def form(self) -> str:
        """Format, precision and, where it is the special one, mode: "onnx fp16 streaming"."""
        return " ".join(filter(None, (self.format, self.precision, self.mode if self.mode == "streaming" else None)))


@dataclass(frozen=True)
class Absence:
    """That there are no times.

    Attributes:
        status: `CONVERTED`, `NOT_RUN` or `FAILED`.
        reason: why, as a sentence.
    """

    status: str
    reason: str


@dataclass(frozen=True)
class StoredFile:
    """An exported file.

    Attributes:
        file_mb: in MB (1e6 bytes).
        sha256: hexadecimal.
    """

    file_mb: float
    sha256: str


@dataclass(frozen=True)
class Work:
    """What a run computes.

    Attributes:
        parameters: numbers in the network's weights as deployed.
        macs: multiply-accumulates of one run: all convolutions and matrix products, fixed interpolating ones too.
    """

    parameters: int
    macs: int

    def gflops(self, run_ms: float | None) -> float | None:
        """1e9 operations a second, two for each multiply-accumulate, of a run of so many ms."""
        return 2 * self.macs / run_ms / 1e6 if run_ms else None


@dataclass(frozen=True)
class Execution:
    """Who computed what.

    Attributes:
        unit_asked: the execution provider, delegate or device asked for.
        unit_got: the one that ran, as the runtime says.
        runtime: its name.
        runtime_version: its version; None where a phone's program does not tell.
        input_shapes: of each input, by name; None where a phone's program does not tell.
    """

    unit_asked: str
    unit_got: str
    runtime: str
    runtime_version: str | None = None
    input_shapes: dict[str, list[int]] | None = None


@dataclass(frozen=True)
class ColdStart:
    """The first run, and for a file what a fresh process that has imported the runtime pays before it.

    Attributes:
        first_ms: the first run there; for a network in memory the first of all, with compiling.
        load_ms: loading the file; None for a network in memory, as all that follows.
        peak_mb: most memory resident in that process, which loads the file and runs it twice, in MB; None where the
            system does not tell.
        start_mb: of that, what stood before the file was loaded: the interpreter and the runtime.
        cold_process: what that process had imported.
    """

    first_ms: float
    load_ms: float | None = None
    peak_mb: float | None = None
    start_mb: float | None = None
    cold_process: str | None = None


@dataclass(frozen=True)
class Latency:
    """What timed runs took; a percentile is None where a phone's program does not tell it.

    Attributes:
        p50_ms: median run, by nearest rank.
        p90_ms: nine runs of ten are as fast.
        p99_ms: 99 runs of 100 are as fast.
        fps: runs per second of running, slow ones included.
        warmup_runs: untimed runs.
        runs: timed runs.
        duration_seconds: the timed runs took together.
    """

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    fps: float
    warmup_runs: int
    runs: int
    duration_seconds: float

    @property
    def duration_met(self) -> bool:
        """The timed runs took the standard protocol's minimum of seconds."""
        return self.duration_seconds >= STANDARD.minimum_seconds

    @property
    def query_met(self) -> bool:
        """There were the standard protocol's minimum of timed runs."""
        return self.runs >= STANDARD.minimum_runs

    @property
    def valid(self) -> bool:
        """The whole protocol was kept."""
        return self.duration_met and self.query_met and self.warmup_runs >= STANDARD.warmup


@dataclass(frozen=True)
class Limit:
    """The most that as many threads of the machine reach.

    Attributes:
        peak_gflops: in 1e9 operations a second.
        peak_kind: "fp32" or "int8": what arithmetic that is.
        peak_reached_by: the row of the same report that reached it, in words; None where it was the measuring kernels.
    """

    peak_gflops: float
    peak_kind: str
    peak_reached_by: str | None = None


@dataclass(frozen=True)
class Fidelity:
    """How good the pictures are, as measured elsewhere (`distill eval`, `export.delivery.quality`).

    Attributes:
        psnr_db: against truth.
        change_db: PSNR less that of the PyTorch network; negative is a loss. None where there is nothing to compare.
        convention: what the figures depend on: channel, border cropped, degradation, footage.
        blamed: the layers that the loss is put down to, in words, the worst first.
    """

    psnr_db: float
    change_db: float | None
    convention: str
    blamed: tuple[str, ...] = ()

    @property
    def lossy(self) -> bool:
        """More is lost than `ALLOWED_LOSS_DB`."""
        return self.change_db is not None and self.change_db < -ALLOWED_LOSS_DB


@dataclass(frozen=True)
class Row:
    """What is known of one network in one form on one number of threads of one machine; None is not known.

    One run restores one frame: windowed, from its window of frames; streaming, from one new frame and the memories
    that the run before left. Where `time_scale` is 2 it restores two, that frame and the one half-way before it, and
    all figures of a run are of both.

    Attributes:
        subject: what it is of.
        threads: that compute together; None where they have no part in it.
        where: "host", or "phone" for figures from a phone; the one is never called the other.
        device: that ran it, in words.
        absence: why there are no times; None for a row that has some.
        file: None for a network in memory.
        work: None where it is not known here what the file computes.
        execution: None for what did not run.
        cold_start: likewise.
        latency: likewise.
        limit: None where `threads` is, and for what another machine ran.
        fidelity: None where it was not measured.
    """

    subject: Subject
    threads: int | None = None
    where: str = "host"
    device: str = ""
    absence: Absence | None = None
    file: StoredFile | None = None
    work: Work | None = None
    execution: Execution | None = None
    cold_start: ColdStart | None = None
    latency: Latency | None = None
    limit: Limit | None = None
    fidelity: Fidelity | None = None

    @property
    def valid(self) -> bool:
        """It was timed, and the whole protocol was kept."""
        return self.absence is None and self.latency is not None and self.latency.valid

    @property
    def status(self) -> str:
        """One of "ok", "too short", "not run", "converted, not run" and "failed"."""
        if self.absence is not None:
            return self.absence.status
        return "ok" if self.valid else "too short"

    @property
    def p50_ms(self) -> float | None:
        """The median run."""
        return None if self.latency is None else self.latency.p50_ms

    @property
    def real_time(self) -> dict[int, float | None]:
        """Runs per second over the frames per second of the video that comes in; 1 and more keeps up."""
        return {rate: None if self.latency is None else self.latency.fps / rate for rate in VIDEO_RATES}

    @property
    def gflops(self) -> float | None:
        """1e9 operations a second, two for each multiply-accumulate, of the median run."""
        return None if self.work is None else self.work.gflops(self.p50_ms)

    @property
    def share_of_peak(self) -> float | None:
        """`gflops` over those of the limit: 1 is what the machine can."""
        return None if self.gflops is None or self.limit is None else self.gflops / self.limit.peak_gflops

    @property
    def mai_2025_score(self) -> float | None:
        """2^(2 (PSNR - 27)) / runtime in ms, Mobile AI 2025; None but for its task, 320x180 to 1280x720."""
        task = (self.subject.size, self.subject.scale) == (_MAI_SIZE, _MAI_SCALE)
        if not task or self.fidelity is None or not self.p50_ms:
            return None
        return float(2 ** (2 * (self.fidelity.psnr_db - 27)) / self.p50_ms)

    @property
    def units(self) -> str:
        """What computed it: "CPU, 1 thread"."""
        got = "" if self.execution is None else self.execution.unit_got
        unit = "CPU" if got in ("CPUExecutionProvider", "cpu") else got or self.device or "-"
        return unit if self.threads is None else f"{unit}, {counted_threads(self.threads)}"

    def document(self) -> dict[str, Any]:
        """All of it on one level, for JSON; what is derived too."""
        latency, size = self.latency, self.subject.size
        return {
            **_level(Subject, self.subject),
            "size": None if size is None else {"height": size[0], "width": size[1]},
            "threads": self.threads,
            "where": self.where,
            "device": self.device,
            "status": self.status,
            "reason": None if self.absence is None else self.absence.reason,
            **_level(StoredFile, self.file),
            **_level(Execution, self.execution),
            **_level(ColdStart, self.cold_start),
            **_level(Latency, latency or Latency(None, None, None, 0.0, 0, 0, 0.0)),
            "fps": None if latency is None else latency.fps,
            "real_time_factor": {f"{rate}_fps": factor for rate, factor in self.real_time.items()},
            # the names are MLPerf Mobile's
            "isMinDurationMet": latency is not None and latency.duration_met,
            "isMinQueryMet": latency is not None and latency.query_met,
            "isResultValid": self.valid,
            **_level(Work, self.work),
            "gflops": self.gflops,
            **_level(Limit, self.limit),
            "share_of_peak": self.share_of_peak,
            "fidelity": None if self.fidelity is None else dataclasses.asdict(self.fidelity),
            "mai_2025_score": self.mai_2025_score,
        }


def counted_threads(count: int) -> str:
    """Such as "2 threads"."""
    return f"{count} thread{'s' if count > 1 else ''}"


def latency_of(timing: Timing) -> Latency:
    """What timed runs come to."""
    p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(timing.samples, (50, 90, 99), method="inverted_cdf"))
    runs = len(timing.samples)
    return Latency(p50, p90, p99, runs / timing.seconds, timing.warmup_runs, runs, timing.seconds)


def _level(kind: type[Any], part: object | None) -> dict[str, Any]:
    """The fields of a part by name, all null where there is none."""
    return {field.name: None if part is None else getattr(part, field.name) for field in dataclasses.fields(kind)}
