"""A stretch of a clip, as a clip."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil

from distill.data.clips import Clip, Frame
from distill.errors import DataError

__all__ = ["Excerpt", "parts"]


class Excerpt(Clip):
    """Frames `start` to `stop` (excluded) of another clip, under its name.

    Args:
        clip: the whole.
        start: index of the first frame, from 0.
        stop: index after the last one, at most the clip's length.

    Raises:
        DataError: the stretch is empty or goes beyond the clip.
    """

    def __init__(self, clip: Clip, start: int, stop: int) -> None:
        if not 0 <= start < stop <= clip.length:
            raise DataError(f"Frames {start} to {stop} of {clip.name} were asked for; it has {clip.length}.")
        self.name, self.clip, self.start, self.stop = clip.name, clip, start, stop

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.size

    @property
    def frame_rate(self) -> Fraction | None:
        return self.clip.frame_rate

    @property
    def length(self) -> int:
        return self.stop - self.start

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        if start < 0:
            raise DataError(f"Frame {start} of {self.name} was asked for; frames are counted from 0.")
        last = self.stop if stop is None else min(self.start + stop, self.stop)
        return self.clip.frames(min(self.start + start, self.stop), last)


def parts(clip: Clip, share: float) -> tuple[Clip, Clip | None]:
    """A clip cut in two: that share of its frames from the start, rounded up, and the rest, None where there is none.

    Args:
        clip: the whole.
        share: more than 0, at most 1.
    """
    length = ceil(round(clip.length * share, 6))
    return Excerpt(clip, 0, length), Excerpt(clip, length, clip.length) if length < clip.length else None
