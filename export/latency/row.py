"""One row of a latency report: one network, in one form, at one size, on one machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.latency.timing import STANDARD, Timing

__all__ = ["ALLOWED_LOSS_DB", "CONVERTED", "FAILED", "NOT_RUN", "VIDEO_RATES", "Fidelity", "Row"]
__all__ += ["counted_threads", "figures"]

VIDEO_RATES = (24, 30, 60)
"""Frames per second of video that real-time factors are told for."""

ALLOWED_LOSS_DB = 0.1
"""A file that loses more PSNR than this against its PyTorch network is marked."""

CONVERTED, NOT_RUN, FAILED = "converted, not run", "not run", "failed"
"""Why a row has no times; `Row.reason` says more."""

_MAI_SIZE, _MAI_SCALE = (180, 320), 4


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
        entry: name of the file, or of the network.
        format: "onnx" and the like; "pytorch" (eager) or "torch.compile" for a network in memory.
        precision: "fp32" and the like.
        mode: "windowed" or "streaming".
        size: (height, width) of the low-resolution frames.
        scale: how many times larger the restored frame is.
        threads: that compute together.
        where: "host", or "phone" for figures from a phone; the one is never called the other.
        device: that ran it, in words.
        absent: None for a row with times, else `CONVERTED`, `NOT_RUN` or `FAILED`.
        reason: why, as a sentence.
        unit_asked: the execution provider, delegate or device asked for.
        unit_got: the one that ran, as the runtime says.
        runtime: its name.
        runtime_version: its version.
        input_shapes: of each input, by name.
        file_mb: the file in MB (1e6 bytes); None where there is none.
        sha256: of the file, hexadecimal.
        load_ms: loading the file in a fresh process that has imported the runtime; None for a network in memory.
        first_ms: the first run there; for a network in memory the first of all, with compiling.
        peak_mb: most memory resident in that process, which loads the file and runs it twice, in MB.
        start_mb: of that, what stood before the file was loaded: the interpreter and the runtime.
        cold_process: what that process had imported.
        p50_ms: median run, by nearest rank.
        p90_ms: nine runs of ten are as fast.
        p99_ms: 99 runs of 100 are as fast.
        fps: runs per second of running, slow ones included.
        warmup_runs: untimed runs.
        runs: timed runs.
        duration_seconds: the timed runs took together.
        parameters: numbers in the network's weights as deployed.
        macs: multiply-accumulates of one run: all convolutions and matrix products, fixed interpolating ones too.
        peak_gflops: the most that as many threads of the machine reach, in 1e9 operations a second.
        peak_kind: "fp32" or "int8": what arithmetic that is.
        fidelity: how good the pictures are.
        time_scale: how many frames a run restores: 2 where the frame rate is doubled.
    """

    entry: str
    format: str
    precision: str | None = None
    mode: str | None = None
    size: tuple[int, int] | None = None
    scale: int | None = None
    threads: int | None = None
    where: str = "host"
    device: str = ""
    absent: str | None = None
    reason: str | None = None
    unit_asked: str | None = None
    unit_got: str | None = None
    runtime: str | None = None
    runtime_version: str | None = None
    input_shapes: dict[str, list[int]] | None = None
    file_mb: float | None = None
    sha256: str | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_mb: float | None = None
    start_mb: float | None = None
    cold_process: str | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    fps: float | None = None
    warmup_runs: int = 0
    runs: int = 0
    duration_seconds: float = 0.0
    parameters: int | None = None
    macs: int | None = None
    peak_gflops: float | None = None
    peak_kind: str | None = None
    fidelity: Fidelity | None = None
    time_scale: int | None = None

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
        """It was timed, and the whole protocol was kept."""
        met = self.duration_met and self.query_met and self.warmup_runs >= STANDARD.warmup
        return self.absent is None and met

    @property
    def status(self) -> str:
        """One of "ok", "too short", "not run", "converted, not run" and "failed"."""
        return self.absent or ("ok" if self.valid else "too short")

    @property
    def real_time(self) -> dict[int, float | None]:
        """Runs per second over the frames per second of the video that comes in; 1 and more keeps up."""
        return {rate: None if self.fps is None else self.fps / rate for rate in VIDEO_RATES}

    @property
    def gflops(self) -> float | None:
        """1e9 operations a second, two for each multiply-accumulate of the median run."""
        return None if self.macs is None or not self.p50_ms else 2 * self.macs / self.p50_ms / 1e6

    @property
    def share_of_peak(self) -> float | None:
        """`gflops` over `peak_gflops`: 1 is the machine's limit."""
        return None if self.gflops is None or not self.peak_gflops else self.gflops / self.peak_gflops

    @property
    def mai_2025_score(self) -> float | None:
        """2^(2 (PSNR - 27)) / runtime in ms, Mobile AI 2025; None but for its task, 320x180 to 1280x720."""
        if (self.size, self.scale) != (_MAI_SIZE, _MAI_SCALE) or self.fidelity is None or not self.p50_ms:
            return None
        return float(2 ** (2 * (self.fidelity.psnr_db - 27)) / self.p50_ms)

    @property
    def form(self) -> str:
        """Format, precision and, where it is the special one, mode: "onnx fp16 streaming"."""
        return " ".join(filter(None, (self.format, self.precision, self.mode if self.mode == "streaming" else None)))

    @property
    def units(self) -> str:
        """What computed it: "CPU, 1 thread"."""
        unit = "CPU" if self.unit_got in ("CPUExecutionProvider", "cpu") else self.unit_got or self.device or "-"
        return unit if self.threads is None else f"{unit}, {counted_threads(self.threads)}"

    def document(self) -> dict[str, Any]:
        """All of it, for JSON; what is derived too."""
        own = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        own |= {
            "size": None if self.size is None else {"height": self.size[0], "width": self.size[1]},
            "fidelity": None if self.fidelity is None else dataclasses.asdict(self.fidelity),
            "status": self.status,
            "real_time_factor": {f"{rate}_fps": factor for rate, factor in self.real_time.items()},
            "gflops": self.gflops,
            "share_of_peak": self.share_of_peak,
            "mai_2025_score": self.mai_2025_score,
        }
        del own["absent"]
        # the names are MLPerf Mobile's
        flags = {"isMinDurationMet": self.duration_met, "isMinQueryMet": self.query_met, "isResultValid": self.valid}
        return own | flags


def counted_threads(count: int) -> str:
    """Such as "2 threads"."""
    return f"{count} thread{'s' if count > 1 else ''}"


def figures(timing: Timing) -> dict[str, Any]:
    """Those fields of a `Row` that timed runs fill."""
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
