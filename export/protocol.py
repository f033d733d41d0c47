"""How runs are timed: warm-up first, settings in turn, long enough to mean something."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Protocol", "Timing", "seconds_of", "take_turns"]


@dataclass(frozen=True)
class Protocol:
    """When a row has been run enough.

    Attributes:
        warmup: runs that are not counted.
        minimum_runs: that are counted.
        minimum_seconds: that the counted runs take together.
        budget_seconds: after which a row ends with what it has, at least one counted run; the warm-up ends after
            half of it.
    """

    warmup: int
    minimum_runs: int
    minimum_seconds: float
    budget_seconds: float


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

    def warm(self, protocol: Protocol) -> bool:
        """The next run counts."""
        return self.warmup_runs >= protocol.warmup or self.warmup_seconds >= protocol.budget_seconds / 2

    def finished(self, protocol: Protocol) -> bool:
        """No further run is needed, or the budget is spent."""
        if not self.samples:
            return False
        enough = len(self.samples) >= protocol.minimum_runs and self.seconds >= protocol.minimum_seconds
        return enough or self.warmup_seconds + self.seconds >= protocol.budget_seconds

    def add(self, seconds: float, protocol: Protocol) -> None:
        """Record one run."""
        if self.warm(protocol):
            self.samples.append(seconds)
            self.seconds += seconds
        else:
            self.warmup_runs += 1
            self.warmup_seconds += seconds


def seconds_of(run: Callable[[], object]) -> float:
    """The wall-clock seconds that one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def take_turns(runs: Sequence[Callable[[], float]], protocol: Protocol) -> list[Timing]:
    """Run each as often as the protocol wants, one run at a time in turn.

    Whatever else the machine does at the time so falls on all of them, and does not pick the winner.

    Args:
        runs: each runs once and returns the seconds that count.
        protocol: when a row has been run enough.
    """
    rows = [(run, Timing()) for run in runs]
    while pending := [(run, timing) for run, timing in rows if not timing.finished(protocol)]:
        for run, timing in pending:
            timing.add(run(), protocol)
    return [timing for _, timing in rows]
