"""Clips whose frames are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from distill.data import Clip


class MemoryClip(Clip):
    """Frames in memory; counts how many were handed out."""

    def __init__(self, name: str, pictures: list[np.ndarray]) -> None:
        self.name, self.pictures, self.given = name, pictures, 0

    @property
    def size(self) -> tuple[int, int]:
        return self.pictures[0].shape[:2]

    @property
    def frame_rate(self) -> Fraction | None:
        return None

    @property
    def length(self) -> int:
        return len(self.pictures)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        for picture in self.pictures[start:stop]:
            self.given += 1
            yield picture


class ArrayClip(Clip):
    """Frames that are in memory, and a count of how often each was read."""

    def __init__(self, frames: np.ndarray, name: str = "array", announced: int | None = None) -> None:
        self.name, self._frames, self.reads = name, frames, 0
        self._announced = len(frames) if announced is None else announced

    @property
    def size(self) -> tuple[int, int]:
        return self._frames.shape[1], self._frames.shape[2]

    @property
    def frame_rate(self) -> Fraction | None:
        return None

    @property
    def length(self) -> int:
        return self._announced

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        for frame in self._frames[start:stop]:
            self.reads += 1
            yield frame


def noise_clip(name: str, length: int, height: int = 48, width: int = 64) -> MemoryClip:
    rng = np.random.default_rng(sum(name.encode()))
    frames = []
    for _ in range(length):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        frames.append(coarse.repeat(8, 0).repeat(8, 1)[:height, :width].copy())
    return MemoryClip(name, frames)
