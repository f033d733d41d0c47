"""How runs are timed: warm-up first, settings in turn, long enough to mean something."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["SLICES", "STANDARD", "Timing", "TimingProtocol", "sustained", "take_turns"]

SLICES = 10
"""Equal parts of time that a sustained run is told in."""


@dataclass(frozen=True)
class TimingProtocol:
    """When a row has been run enough.

    Attributes:
        warmup: runs that are not counted.
        minimum_runs: that are counted.
        minimum_seconds: that the counted runs take together.
        budget_seconds: after which a row ends with what it has, at least one counted run; the warm-up ends after
            half of it. The default is enough for 100 runs of a second.
    """

    warmup: int = 10
    minimum_runs: int = 100
    minimum_seconds: float = 3.0
    budget_seconds: float = 120.0


STANDARD = TimingProtocol()
"""A row that got less is marked as not valid."""


@dataclass
class Timing:
    """The runs of one row so far.

    Attributes:
        warmup_runs: how many were not counted.
        warmup_seconds: they took together.
        samples: seconds of each counted run.
        seconds: they took together.
    """

    warmup_runs: int = 0
    warmup_seconds: float = 0.0
    samples: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def warm(self, protocol: TimingProtocol) -> bool:
        """The next run counts."""
        return self.warmup_runs >= protocol.warmup or self.warmup_seconds >= protocol.budget_seconds / 2

    def finished(self, protocol: TimingProtocol) -> bool:
        """No further run is needed, or the budget is spent."""
        if not self.samples:
            return False
        enough = len(self.samples) >= protocol.minimum_runs and self.seconds >= protocol.minimum_seconds
        return enough or self.warmup_seconds + self.seconds >= protocol.budget_seconds

    def add(self, seconds: float, protocol: TimingProtocol) -> None:
        """Record one run."""
        if self.warm(protocol):
            self.samples.append(seconds)
            self.seconds += seconds
        else:
            self.warmup_runs += 1
            self.warmup_seconds += seconds


def take_turns(
    runs: Sequence[Callable[[], float]], protocol: TimingProtocol, progress: Callable[[int], object] | None = None
) -> list[Timing]:
    """Run each as often as the protocol wants, one run at a time in turn.

    Whatever else the machine does at the time so falls on all of them, and does not pick the winner. Each round has
    an order of its own, drawn by a fixed seed, so that none always runs behind the same other one.

    Args:
        runs: each runs once and returns the seconds that count.
        protocol: when a row has been run enough.
        progress: called with 1 after every run.
    """
    timings = [Timing() for _ in runs]
    draw = random.Random(0)
    while pending := [place for place, timing in enumerate(timings) if not timing.finished(protocol)]:
        draw.shuffle(pending)
        for place in pending:
            timings[place].add(runs[place](), protocol)
            if progress is not None:
                progress(1)
    return timings


def sustained(run: Callable[[], object], seconds: float) -> list[float]:
    """Run without a pause; what gets too warm gets slower.

    Args:
        run: runs once.
        seconds: at least this long; the run that is under way then is finished.

    Returns:
        Runs per second in each of `SLICES` equal slices of the time. A run that spans two counts in both by its share.
    """
    ends, started = [0.0], time.perf_counter()
    while ends[-1] < seconds:
        run()
        ends.append(time.perf_counter() - started)
    edges = np.linspace(0, ends[-1], SLICES + 1)
    done = np.interp(edges, ends, np.arange(len(ends)))
    return [float(rate) for rate in np.diff(done) / np.diff(edges)]
