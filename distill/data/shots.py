"""Where one shot ends and the next begins, so that no training window spans a cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["cuts", "shots"]

_Item = TypeVar("_Item")

_GRID = 16  # thumbnails of 16x16 colours: coarse enough that motion within a shot changes them little
_ROWS_READ = 128  # of a large frame, only about so many rows and as dense columns count: the mean needs no more
_LEAST_CHANGE = 8.0  # mean absolute change of 8 bit levels, below which nobody would call it a cut
_REACH = 4  # frames before and after one that tell whether it starts a shot
_OVER_NEIGHBOURS = 3.0  # how many times the change around it a cut must be: rules out pans and shaking


def cuts(frames: NDArray[np.uint8]) -> list[int]:
    """The hard cuts in consecutive frames.

    A cut is a change of the thumbnail that is large, much larger than the changes next to it, and lasts: after a flash
    or a single disturbed frame the picture returns. Fades and dissolves are not found.

    Args:
        frames: (T, H, W, 3) uint8 RGB.

    Returns:
        Indices i, increasing, where frame i is the first of a new shot.
    """
    return _cuts([_thumbnail(frame) for frame in frames])


def shots(items: Iterable[_Item], frame_of: Callable[[_Item], NDArray[np.uint8]]) -> Iterator[Iterator[_Item]]:
    """Split a stream of frames at its hard cuts, the same that `cuts` finds, four frames after they are read.

    Args:
        items: one a frame.
        frame_of: its pixels, (H, W, 3) uint8 RGB.

    Yields:
        The items of one shot; what is not taken from it is lost once the next shot is asked for.
    """
    for _, numbered in groupby(_numbered(items, frame_of), key=itemgetter(0)):
        yield map(itemgetter(1), numbered)


def _numbered(items: Iterable[_Item], frame_of: Callable[[_Item], NDArray[np.uint8]]) -> Iterator[tuple[int, _Item]]:
    """Each item with the number of its shot."""
    small: deque[NDArray[np.float32]] = deque(maxlen=2 * _REACH + 1)
    waiting: deque[_Item] = deque()
    shot = 0
    for item in items:
        small.append(_thumbnail(frame_of(item)))
        waiting.append(item)
        if len(waiting) > _REACH:
            shot += len(small) - 1 - _REACH in _cuts(list(small))
            yield shot, waiting.popleft()
    while waiting:
        shot += len(small) - len(waiting) in _cuts(list(small))
        yield shot, waiting.popleft()


def _cuts(thumbnails: list[NDArray[np.float32]]) -> list[int]:
    count = len(thumbnails)
    if count < 2:
        return []
    small = np.stack(thumbnails)
    change = np.abs(small[1:] - small[:-1]).mean(axis=(1, 2, 3))  # change[i - 1] leads to frame i
    lasting = change.copy()
    if count > 2:
        over_two = np.abs(small[2:] - small[:-2]).mean(axis=(1, 2, 3))
        lasting[:-1] = np.minimum(lasting[:-1], over_two)
        lasting[1:] = np.minimum(lasting[1:], over_two)
    return [
        i for i in range(1, count) if lasting[i - 1] > max(_LEAST_CHANGE, _OVER_NEIGHBOURS * _around(change, i - 1))
    ]


def _around(change: NDArray[np.float32], position: int) -> float:
    """The usual change near a position, itself left out; the median, so that a second cut nearby does not hide it."""
    near = np.concatenate([change[max(0, position - 3) : position], change[position + 1 : position + 4]])
    return float(np.median(near)) if near.size else 0.0


def _thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Means over a grid of 16x16 cells (fewer where the frame is smaller), (rows, columns, 3)."""
    sparse = max(1, min(frame.shape[:2]) // _ROWS_READ)
    frame = frame[::sparse, ::sparse]
    height, width = frame.shape[:2]
    rows = np.linspace(0, height, min(_GRID, height) + 1).astype(np.intp)
    columns = np.linspace(0, width, min(_GRID, width) + 1).astype(np.intp)
    sums = np.add.reduceat(np.add.reduceat(frame, rows[:-1], axis=0, dtype=np.float32), columns[:-1], axis=1)
    areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    means: NDArray[np.float32] = (sums / areas[..., None]).astype(np.float32)
    return means
