"""What one restored frame costs: formats, precisions, sizes and numbers of threads, measured side by side.

Everything measured here is host latency, never a phone's. Load and first run are timed apart, in a fresh process.
Then, in this process, all entries and thread settings of one size take turns run by run, so that a busy moment of the
machine hits all of them alike: at least 10 warm-up runs, then at least 100 runs and 3 seconds each. A row that got less
says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from distill import __version__
from distill.errors import ConfigError
from export.interfaces import Operators
from export.latency.contender import Contender, Entry
from export.latency.row import Latency, Limit, Row, counted_threads, latency_of
from export.latency.table import table
from export.latency.timing import STANDARD, TimingProtocol, sustained, take_turns
from export.machine import Limits, Machine, Peak, Reached, this_machine
from export.to_onnx.peak import int8_gops

__all__ = ["DEFAULT_SIZE", "SCHEMA", "Profile", "Sustained", "check_settings", "profile"]

DEFAULT_SIZE = (120, 180)
"""Height and width of the low-resolution frames that are profiled: a quarter of 480x720."""

SCHEMA = {"id": "distill-vsr/profile", "version": 1}
"""What `Profile.document` keeps to; `profile_schema.json` beside this file tells every field."""


@dataclass(frozen=True)
class Sustained:
    """A long run without a pause.

    Attributes:
        entry: name of the file or network.
        form: its format, precision and mode.
        size: (height, width) of the low-resolution frames.
        threads: that compute together.
        seconds: asked for.
        fps: runs per second in equal slices of the time.
    """

    entry: str
    form: str
    size: tuple[int, int]
    threads: int
    seconds: float
    fps: tuple[float, ...]

    @property
    def last_over_first(self) -> float:
        """Under 1 where the machine got slower, as warm ones do."""
        return self.fps[-1] / self.fps[0]


@dataclass(frozen=True)
class Profile:
    """A latency report's content.

    Attributes:
        rows: one for each entry at each size on each number of threads.
        machine: that measured.
        peaks: the most it can, for each number of threads.
        protocol: that was kept to.
        operators: of files whose runtime tells them, if asked for.
        sustained: long runs, if asked for.
        date: when it began, UTC, ISO 8601.
    """

    rows: tuple[Row, ...]
    machine: Machine
    peaks: tuple[Peak, ...]
    protocol: TimingProtocol
    operators: tuple[Operators, ...]
    sustained: tuple[Sustained, ...]
    date: str

    def with_rows(self, rows: Sequence[Row]) -> Profile:
        """The same and rows that come from elsewhere, such as a phone."""
        return replace(self, rows=(*self.rows, *rows))

    @property
    def phones(self) -> str:
        """What is known of phones, in a sentence."""
        if any(row.where == "phone" for row in self.rows):
            return "Phones: the rows that name one; all others are host latency."
        return "Phones: not run. All figures are host latency, not a phone's."

    def table(self) -> str:
        """The rows for people, and what they are measured against."""
        return "\n".join(
            [
                f"{self.phones} Host: {self.machine.name}",
                table(self.rows),
                *(_limit_line(peak) for peak in self.peaks),
            ]
        )

    def document(self, command: str) -> dict[str, Any]:
        """The whole for machines, ready for JSON, as `profile_schema.json` describes it.

        Args:
            command: that made it.
        """
        return {
            "schema": SCHEMA,
            "distill_vsr_version": __version__,
            "date": self.date,
            "command": command,
            "phones": self.phones,
            "machine": dataclasses.asdict(self.machine),
            "peaks": [_plain(peak) for peak in self.peaks],
            "protocol": dataclasses.asdict(self.protocol),
            "standard_protocol": dataclasses.asdict(STANDARD),
            "rows": [row.document() for row in self.rows],
            "operators": [_plain(each) for each in self.operators],
            "sustained": [_plain(each) | {"last_over_first": each.last_over_first} for each in self.sustained],
        }


def profile(
    entries: Sequence[Entry],
    *,
    sizes: Sequence[tuple[int, int]] = (),
    threads: Sequence[int] = (1, 2),
    protocol: TimingProtocol = STANDARD,
    with_operators: bool = False,
    sustained_seconds: float | None = None,
    progress: Callable[[int], object] | None = None,
) -> Profile:
    """Measure entries on this host's CPU, each at each size on each number of threads.

    Args:
        entries: files of any format, windowed or streaming, and networks in memory.
        sizes: (height, width) of the low-resolution frames; none: those that the files fix, else `DEFAULT_SIZE`.
        threads: each at least 1.
        protocol: when a row has been run enough; what gets less than `STANDARD` is marked as not valid.
        with_operators: profile the operators too, where the runtime tells them, at every size, on the first number of
            threads.
        sustained_seconds: run each entry so long without a pause too, at the first size that it runs at, on the most
            threads.
        progress: called with 1 after every timed run.

    Raises:
        ConfigError: no entry, no thread, or a size or time that is not positive.
    """
    if not entries:
        raise ConfigError("There is nothing to profile: give exported files, or a network.")
    check_settings(sizes, threads, sustained_seconds)
    date, machine, before = datetime.now(UTC).isoformat(timespec="seconds"), this_machine(), torch.get_num_threads()
    fixed = tuple(dict.fromkeys(size for each in entries for size in each.sizes))
    limits = Limits(threads, int8=int8_gops if any(each.precision == "int8" for each in entries) else None)
    timed: list[tuple[Row, Latency | None]] = []
    operated: list[Operators] = []
    long: list[Sustained] = []
    try:
        for size in sizes or fixed or (DEFAULT_SIZE,):
            limits.measure()
            torch.compiler.reset()  # what was compiled for other sizes would count against the limit of variants
            contenders = [each.contender(size, count) for each in entries for count in threads]
            timed += _timed(contenders, protocol, progress)
            if with_operators:
                firsts = (each for each in contenders if each.row.threads == threads[0])
                operated += [times for each in firsts if each.operators and (times := each.operators())]
            if sustained_seconds is not None:
                long += _sustained(
                    contenders, max(threads), sustained_seconds, {(each.entry, each.form) for each in long}
                )
        limits.measure()
    finally:
        torch.set_num_threads(before)
    peaks = tuple(limits.peaks(_reached(timed)))
    rows = tuple(replace(row, device=machine.name, latency=latency, limit=_limit(row, peaks)) for row, latency in timed)
    return Profile(rows, machine, peaks, protocol, tuple(operated), tuple(long), date)


def _timed(
    contenders: Sequence[Contender], protocol: TimingProtocol, progress: Callable[[int], object] | None
) -> list[tuple[Row, Latency | None]]:
    runs = [each.run for each in contenders if each.run is not None]
    timings = iter(take_turns(runs, protocol, progress))
    found: list[tuple[Row, Latency | None]] = []
    for each in contenders:
        latency = None if each.run is None else latency_of(next(timings))
        if (each.row, latency) not in found:  # what does not run, once
            found.append((each.row, latency))
    return found


def _sustained(
    contenders: Sequence[Contender], threads: int, seconds: float, done: set[tuple[str, str]]
) -> list[Sustained]:
    found = []
    for row, run in ((each.row, each.run) for each in contenders):
        if run is not None and row.threads == threads and (row.subject.entry, row.subject.form) not in done:
            assert row.subject.size is not None
            fps = tuple(sustained(run, seconds))
            found.append(Sustained(row.subject.entry, row.subject.form, row.subject.size, threads, seconds, fps))
    return found


def _kind(row: Row) -> str:
    """The arithmetic whose limit a row is held against."""
    return "int8" if row.subject.precision == "int8" else "fp32"


def _reached(timed: Sequence[tuple[Row, Latency | None]]) -> list[Reached]:
    found = []
    for row, latency in timed:
        rate = None if row.work is None or latency is None else row.work.gflops(latency.p50_ms)
        if rate is not None and row.threads is not None and row.subject.size is not None:
            height, width = row.subject.size
            words = f"{row.subject.entry}, {row.subject.form}, {width}x{height}, {counted_threads(row.threads)}"
            found.append(Reached(row.threads, _kind(row), rate, words))
    return found


def _limit(row: Row, peaks: Sequence[Peak]) -> Limit | None:
    """The machine's peak for the row's number of threads."""
    peak = next((each for each in peaks if each.threads == row.threads), None)
    if peak is None:
        return None
    if _kind(row) == "int8" and peak.int8_gops is not None:
        return Limit(peak.int8_gops, "int8", peak.int8_reached_by)
    return Limit(peak.fp32_gflops, "fp32", peak.fp32_reached_by)


def _limit_line(peak: Peak) -> str:
    parts = [_rate(peak.fp32_gflops, "GFLOP/s fp32", peak.fp32_reached_by)]
    if peak.int8_gops:
        parts.append(_rate(peak.int8_gops, "GOP/s int8", peak.int8_reached_by))
    parts.append(f"{peak.copy_gb_per_second:.0f} GB/s copying")
    return f"limit on {counted_threads(peak.threads)}: {', '.join(parts)}"


def _rate(rate: float, unit: str, reached_by: str | None) -> str:
    return f"{rate:.0f} {unit}" + (f" (reached by {reached_by})" if reached_by else "")


def _plain(each: Peak | Operators | Sustained) -> dict[str, Any]:
    found = dataclasses.asdict(each)
    if "size" in found:
        height, width = found["size"]
        found["size"] = {"height": height, "width": width}
    return found


def check_settings(sizes: Sequence[tuple[int, int]], threads: Sequence[int], sustained_seconds: float | None) -> None:
    """Refuse settings that `profile` does not take, before anything is opened.

    Raises:
        ConfigError: no thread, or a size or time that is not positive.
    """
    if not threads or min(threads) < 1:
        raise ConfigError(f"The thread counts are {list(threads)}, but there must be one or more, each at least 1.")
    for height, width in sizes:
        if min(height, width) < 1:
            raise ConfigError(f"The size is {width}x{height}, but width and height must be at least 1.")
    if sustained_seconds is not None and not sustained_seconds > 0:
        raise ConfigError(f"A sustained run of {sustained_seconds:g} seconds is none: give a time above 0.")
