"""What can go wrong, as one tree.

DistillError                 everything this project raises on purpose
|-- InputError               the user's input is wrong (exit code 2)
|   |-- ConfigError          a key, value or name in a recipe or on the command line
|   |-- DataError            a video, folder or frame that cannot be used
|   `-- CheckpointError      a file of weights that cannot be used
`-- CheckFailed              a check did not hold: parity, accuracy (exit code 1)
`-- TrainingDiverged     the loss or the offsets left their range; the last good state is kept
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckFailed",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DistillError",
    "InputError",
    "TrainingDiverged",
    "did_you_mean",
]


class DistillError(Exception):
    """Base of every error raised on purpose; its text is one sentence meant for the user."""


class InputError(DistillError):
    """What the user gave cannot be used as given."""


class ConfigError(InputError):
    """A key, a value or a name in a recipe or on the command line is wrong."""


class DataError(InputError):
    """A video, a folder or a frame cannot be used."""


class CheckpointError(InputError):
    """A file of weights cannot be used."""


class CheckFailed(DistillError):
    """A check that the command promises did not hold."""


class TrainingDiverged(CheckFailed):
    """The loss became infinite or not a number, or deformable offsets exploded."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest known word, of equally near ones the first, or nothing."""
    scores = {word: difflib.SequenceMatcher(None, word, given).ratio() for word in known}
    nearest = max(scores, key=scores.__getitem__, default=None)
    return f" Did you mean {nearest!r}?" if nearest is not None and scores[nearest] >= 0.5 else ""
