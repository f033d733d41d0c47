"""Stopping a training without losing it: the first Ctrl-C or SIGTERM lets the step finish, a second one does not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from distill.training.run_folder import log

__all__ = ["Interrupted", "Interruption"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the state was saved."""


class Interruption:
    """Whether a signal to stop has come.

    Attributes:
        number: of the signal; None before it.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Within the block, the first Ctrl-C or SIGTERM is noted for `check`; a second one stops at once."""

        def note(number: int, _: FrameType | None) -> None:
            self.number = number
            signal.signal(number, previous[signal.Signals(number)])
            log.info("stopping after this step; once more to stop without saving")

        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Stop here if a signal has come.

        Raises:
            Interrupted: it has.
        """
        if self.number is not None:
            raise Interrupted(f"stopped by {signal.Signals(self.number).name}")
