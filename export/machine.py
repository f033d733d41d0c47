"""The machine that measures: what it is, and how fast it can be at most, measured rather than read off a data sheet."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

__all__ = ["Limits", "Machine", "Peak", "Reached", "best_rate", "seconds_of", "this_machine"]

_SECONDS = 0.25  # of each kernel, a round; its best run counts, as whatever else goes on can only slow it down
# each takes about a millisecond, less than a busy system lets run unbroken
_SIDE = 384  # of the matrices
_CHANNELS, _PLANE = 64, 64  # of the convolution
_COPIED = 64 << 20  # bytes, more than most caches hold


@dataclass(frozen=True)
class Machine:
    """What measures.

    Attributes:
        processor: its name.
        architecture: such as "x86_64".
        cores: logical ones.
        os: its name and version.
        python: its version.
        torch: its version.
        load_average: processes that wanted a core over the last minute, before anything was measured; None where the
            system does not tell.
    """

    processor: str
    architecture: str
    cores: int | None
    os: str
    python: str
    torch: str
    load_average: float | None

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.processor}, {self.cores} cores, {self.os}"


def this_machine() -> Machine:
    """The machine that this runs on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return Machine(
        processor=names[0] if names else platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=os.cpu_count(),
        os=platform.platform(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


@dataclass(frozen=True)
class Reached:
    """What something else than the measuring kernels reached.

    Attributes:
        threads: that computed together.
        kind: "fp32" or "int8".
        rate: 1e9 operations a second; a multiply-add is two.
        by: what it was, in words.
    """

    threads: int
    kind: str
    rate: float
    by: str


@dataclass(frozen=True)
class Peak:
    """The most that so many threads, or fewer of those that were measured, reached.

    Attributes:
        threads: that computed together.
        fp32_gflops: 1e9 floating-point operations a second: the faster of a matrix product (384x384x384) and of a 3x3
            convolution (64 channels to 64, 64x64 pixels), two libraries' best kernels; a multiply-add is two. More
            where something else reached more.
        fp32_rounds: of so many threads in each round, before, between and after the timed runs; if they differ much,
            the machine had other work.
        int8_gops: 1e9 operations a second in int8, by the fastest of several kernels, or by something else that
            reached more; None where it was not wanted.
        copy_gb_per_second: 1e9 bytes read and written a second, copying 64 MiB.
        fp32_reached_by: what reached `fp32_gflops`, in words, where it was none of those kernels.
        int8_reached_by: likewise.
    """

    threads: int
    fp32_gflops: float
    fp32_rounds: tuple[float, ...]
    int8_gops: float | None
    copy_gb_per_second: float
    fp32_reached_by: str | None = None
    int8_reached_by: str | None = None

    @property
    def worst_round(self) -> float:
        """The slowest round over the fastest; well under 1 where the machine had other work."""
        return min(self.fp32_rounds) / max(self.fp32_rounds)


class Limits:
    """Measures the peaks in rounds, in between of what they are compared with.

    Args:
        threads: counts to measure.
        int8: measures 1e9 operations a second in int8 on so many threads; None where int8 is not wanted.
    """

    def __init__(self, threads: Sequence[int], *, int8: Callable[[int], float] | None = None) -> None:
        self._rounds: dict[int, list[tuple[float, float | None, float]]] = {count: [] for count in threads}
        self._int8 = int8

    def measure(self) -> None:
        """One round, about a second for each number of threads; leaves torch's number of threads as it was."""
        before = torch.get_num_threads()
        try:
            with torch.inference_mode():
                for count, rounds in self._rounds.items():
                    torch.set_num_threads(count)
                    rounds.append((_fp32(), None if self._int8 is None else self._int8(count), _copied()))
        finally:
            torch.set_num_threads(before)

    def peaks(self, reached: Sequence[Reached] = ()) -> list[Peak]:
        """The best of all rounds so far, for each number of threads; at least one must have been measured.

        Args:
            reached: by others in the meantime: no limit is below that.
        """
        found = []
        for count, rounds in self._rounds.items():
            fewer = [each for other, measured in self._rounds.items() if other <= count for each in measured]
            kernels = max(fp32 for fp32, _, _ in fewer)
            integer = max((int8 for _, int8, _ in fewer if int8 is not None), default=None)
            others = [each for each in reached if each.threads <= count]
            fp32_gflops, fp32_by = _raised(kernels, [each for each in others if each.kind == "fp32"])
            int8_gops, int8_by = (
                (None, None) if integer is None else _raised(integer, [each for each in others if each.kind == "int8"])
            )
            found.append(
                Peak(
                    threads=count,
                    fp32_gflops=fp32_gflops,
                    fp32_rounds=tuple(fp32 for fp32, _, _ in rounds),
                    int8_gops=int8_gops,
                    copy_gb_per_second=max(copied for _, _, copied in fewer),
                    fp32_reached_by=fp32_by,
                    int8_reached_by=int8_by,
                )
            )
        return found


def _raised(kernels: float, others: Sequence[Reached]) -> tuple[float, str | None]:
    """The most of all, and who reached it where it was none of the kernels."""
    best = max(others, key=lambda each: each.rate, default=None)
    return (kernels, None) if best is None or best.rate <= kernels else (best.rate, best.by)


def _fp32() -> float:
    matrix = torch.rand(_SIDE, _SIDE)
    plane = torch.rand(1, _CHANNELS, _PLANE, _PLANE).to(memory_format=torch.channels_last)
    weight = torch.rand(_CHANNELS, _CHANNELS, 3, 3).to(memory_format=torch.channels_last)
    product = best_rate(lambda: matrix @ matrix, 2 * _SIDE**3)
    convolution = best_rate(lambda: functional.conv2d(plane, weight, padding=1), 2 * 9 * (_CHANNELS * _PLANE) ** 2)
    return max(product, convolution)


def _copied() -> float:
    source = torch.ones(_COPIED, dtype=torch.uint8)  # written to, or it would all be one page of zeros
    target = torch.empty_like(source)
    return best_rate(lambda: target.copy_(source), 2 * _COPIED)


def best_rate(run: Callable[[], object], amount: int) -> float:
    """The highest rate of any run in a quarter of a second, in 1e9 a second, where one run does `amount`."""
    end, fastest = time.perf_counter() + _SECONDS, math.inf
    while fastest == math.inf or time.perf_counter() < end:
        fastest = min(fastest, seconds_of(run))
    return amount / fastest / 1e9


def seconds_of(run: Callable[[], object]) -> float:
    """The wall-clock seconds that one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
