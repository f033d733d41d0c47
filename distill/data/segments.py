"""Short stretches of decoded frames, kept so that one costly seek serves many training samples."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from distill.data.clips import Clip
from distill.data.shots import cuts

__all__ = ["Segment", "SegmentCache", "read_segment"]


class Segment(NamedTuple):
    """Consecutive frames, (T, H, W, 3) uint8 RGB, and the starts of those windows that lie within one shot."""

    frames: NDArray[np.uint8]
    starts: Sequence[int]


def read_segment(clip: Clip, start: int, length: int, window: int, halve_from_height: int | None) -> Segment:
    """Decode up to `length` frames of a clip from `start` on and find the windows that no cut crosses.

    Frames of at least `halve_from_height` rows are halved first, each 2x2 block to its rounded mean.

    Raises:
        DataError: a frame cannot be decoded.
    """
    halved = halve_from_height is not None and clip.size[0] >= halve_from_height
    read = [_halved(frame) if halved else frame for frame in clip.frames(start, start + length)]
    if not read:
        return Segment(np.empty((0, 0, 0, 3), np.uint8), ())
    frames = np.stack(read)
    bounds = [0, *cuts(frames), len(frames)]
    return Segment(frames, [first for a, b in pairwise(bounds) for first in range(a, b - window + 1)])


def _halved(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    wide = frame[:height, :width].astype(np.uint16)
    rows = wide[0::2] + wide[1::2]
    halved: NDArray[np.uint8] = ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    return halved


class SegmentCache:
    """The segments used last, at most so many bytes of them, shared by threads.

    A segment that several threads ask for at once is decoded by the first of them; the others wait for it.

    Args:
        limit: bytes of frames to keep; the segment read last is kept even if it alone is larger.
    """

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._reading: dict[Hashable, Future[Segment]] = {}
        self._read: LRUCache[Hashable, Segment] = LRUCache(limit, lambda segment: min(segment.frames.nbytes, limit))

    def get(self, key: Hashable, read: Callable[[], Segment]) -> Segment:
        """The segment of this key, read if it is not kept; an error while reading reaches all that wait for it."""
        with self._lock:
            if key in self._read:
                return self._read[key]
            promise = self._reading.get(key)
            is_first = promise is None
            if promise is None:
                promise = self._reading[key] = Future()
        if is_first:
            self._fulfil(key, promise, read)
        return promise.result()

    def _fulfil(self, key: Hashable, promise: Future[Segment], read: Callable[[], Segment]) -> None:
        try:
            segment = read()
        except BaseException as error:  # those who wait must wake, whatever happened
            with self._lock:
                del self._reading[key]
            promise.set_exception(error)
            return
        with self._lock:
            del self._reading[key]
            self._read[key] = segment
        promise.set_result(segment)
