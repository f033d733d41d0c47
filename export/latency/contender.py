"""What takes part in a profile: an exported file, or a network in memory to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from export.interfaces import Operators
from export.latency.row import Row

__all__ = ["Contender", "Entry"]


@dataclass(frozen=True)
class Contender:
    """One entry at one size on one number of threads.

    Attributes:
        row: what is known of it without timed runs.
        run: runs once and returns the seconds; None where it does not run, as the row says.
        operators: takes the time of each operator, None where the runtime does not tell; None where nothing runs.
    """

    row: Row
    run: Callable[[], float] | None = None
    operators: Callable[[], Operators | None] | None = None


class Entry(ABC):
    """A file or a network that is measured.

    Attributes:
        sizes: (height, width) that it takes; empty where it takes any.
        precision: "fp32" and the like, "unknown" for a file that nothing here opens.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    precision: str = "unknown"

    @abstractmethod
    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        """Ready to run. Whatever keeps it from running stands in its row, nothing is raised.

        A row that the number of threads has no part in names none.
        """
