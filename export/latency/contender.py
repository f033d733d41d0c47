"""What takes part in a profile: files of any format, and networks in memory to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distill.interfaces import SlidingNetwork
from export.interfaces import Operators
from export.latency.row import Fidelity, Row

__all__ = ["Contender", "FileEntry", "NetworkEntry", "Opened"]


@dataclass(frozen=True)
class FileEntry:
    """An exported file to be measured.

    Attributes:
        path: a file of any format that `distill export` wrote.
        fidelity: how good its pictures are, where that is known.
    """

    path: Path
    fidelity: Fidelity | None = None


@dataclass(frozen=True)
class NetworkEntry:
    """A network in PyTorch to be measured on the CPU: its deployed copy, as it would be exported.

    Attributes:
        network: on any device, in any mode; it is not changed.
        name: that rows give it.
        streaming: step by step with memories, instead of window by window.
        compiled: by torch.compile, instead of eager.
        fidelity: how good its pictures are, where that is known.
    """

    network: SlidingNetwork
    name: str
    streaming: bool = False
    compiled: bool = False
    fidelity: Fidelity | None = None


@dataclass(frozen=True)
class Contender:
    """One entry at one size on one number of threads.

    Attributes:
        row: what is known of it without timed runs.
        run: runs once and returns the seconds; None where it does not run, as the row says.
        operators: takes the time of each operator; None where the runtime does not tell.
    """

    row: Row
    run: Callable[[], float] | None = None
    operators: Callable[[], Operators] | None = None


class Opened(ABC):
    """An entry, looked into.

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
