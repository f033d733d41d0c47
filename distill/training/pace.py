"""How fast a training goes."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass
class Pace:
    """How fast the loop goes, and how much of that is waiting for data.

    Attributes:
        started: when, in `time.perf_counter()`'s seconds.
        steps: since then.
        waited: seconds for data.
    """

    started: float
    steps: int = 0
    waited: float = 0.0

    def line(self, remaining: int) -> str:
        """Rate, time for the remaining steps, share of waiting and memory, for people."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        rate = self.steps / elapsed
        left = remaining / rate if rate else math.inf
        waiting = 100 * self.waited / elapsed
        return f"{rate:.2f} it/s  {left / 60:.1f} min left  {waiting:.0f}% waiting for data{_peak_memory()}"


def _peak_memory() -> str:
    """This process's largest memory so far, where the system tells it."""
    if sys.platform == "win32":
        return ""
    import resource

    unit = 1 << 30 if sys.platform == "darwin" else 1 << 20  # bytes there, kilobytes elsewhere
    return f"  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GB"
