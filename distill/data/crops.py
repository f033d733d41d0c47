"""Training samples: random windows of frames, cropped, turned, flipped and degraded.

What is drawn is a pure function of the seed and the step, so a resumed training sees what an unbroken one would have
seen, with any number of worker threads.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from distill.data.clips import Clip
from distill.data.degradation import DEGRADATIONS, degrade, margin
from distill.data.segments import Segment, SegmentCache, read_segment
from distill.errors import DataError

__all__ = ["Batch", "CropSampler"]

_LONGEST_HOLD = 16  # steps a batch slot works on one decoded segment: spreads the cost of seeking
_LENGTH_CAP = 256  # frames beyond which a longer clip is not drawn more often
_SEGMENT_TRIES = 20
_CROP_TRIES = 4
_FLAT_BELOW = 6 / 255  # standard deviation of luma under which a crop teaches nothing: empty road, sky
_STEPS_AHEAD = 3
_CACHE_BYTES = 1 << 30  # of decoded frames; what is drawn does not depend on it
_OPENED_AT_ONCE = 8

# First words of the random seeds, so that the draws of segments and of samples never share one.
_SEGMENT_DRAW, _SAMPLE_DRAW = 0, 1


@dataclass(frozen=True)
class Batch:
    """One training step's samples, float32 RGB in [0, 1].

    Attributes:
        lr: (B, T, 3, h, w).
        hr: (B, T, 3, scale*h, scale*w); None for footage that has no high resolution.
    """

    lr: Tensor
    hr: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(self.lr.to(device), None if self.hr is None else self.hr.to(device))


class _Region(NamedTuple):
    """A crop, and the pixels around it (fewer than the margin at the frame's own edge)."""

    top: int
    left: int
    above: int
    below: int
    before: int
    behind: int


class CropSampler:
    """Batches of random crops out of clips.

    A batch slot stays on one segment, 16 + frames - 1 consecutive frames of one clip, for 16 steps and then moves to
    another; the slots move at different steps. Where the clips are short (Vimeo-90K), it stays for as many steps as
    the median clip has windows, at least one. Clips are drawn in proportion to their length, but no more than one of
    256 frames would be. Windows across a hard cut are left out; of up to four crop positions the first that is not
    flat is taken. The low resolution is made after turning and flipping, from the crop with the pixels around it, so
    it equals that of the whole frame (cropped to multiples of the scale).

    Args:
        clips: where to draw from.
        frames: T, consecutive frames a sample.
        crop: height and width of the high-resolution crops in pixels, a multiple of the scale.
        scale: how many times smaller the low resolution is.
        degradation: one of DEGRADATIONS; None for footage that is of low resolution as it is: batches are then its
            crops, without high resolution, and the scale is 1.
        batch_size: B, samples a batch.
        seed: 0 or more; another seed gives other batches.
        halve_from_height: frames of at least so many rows are halved first, because such footage carries the artefacts
            of its codec; None halves nothing.

    Raises:
        DataError: there are no clips, one has fewer frames than needed or frames smaller than the crop, or a number or
            the degradation is out of range.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        frames: int = 7,
        crop: int = 256,
        scale: int = 4,
        degradation: str | None = "bi",
        batch_size: int = 2,
        seed: int = 0,
        halve_from_height: int | None = None,
    ) -> None:
        _check_numbers(frames, crop, scale, batch_size, seed)
        if degradation is not None and degradation not in DEGRADATIONS:
            raise DataError(f"The degradation {degradation!r} is unknown; choose one of {', '.join(DEGRADATIONS)}.")
        self.clips = list(clips)
        self.frames, self.crop, self.scale, self.degradation = frames, crop, scale, degradation
        self.batch_size, self.seed, self.halve_from_height = batch_size, seed, halve_from_height
        lengths = self._checked_lengths()
        self._hold = min(_LONGEST_HOLD, int(statistics.median(lengths)) - frames + 1)
        weights = np.minimum(lengths, _LENGTH_CAP).astype(np.float64)
        self._cumulated = np.cumsum(weights / weights.sum())
        self._cache = SegmentCache(_CACHE_BYTES)

    def batch(self, step: int) -> Batch:
        """The batch of a step, from 0; the same for the same seed, whatever was asked before.

        Raises:
            DataError: a frame cannot be decoded, or 20 segments in a row have no window without a cut.
        """
        samples = [self._sample(step, slot) for slot in range(self.batch_size)]
        low, high = (torch.stack(part) for part in zip(*samples, strict=True))
        return Batch(low, None) if self.degradation is None else Batch(low, high)

    def batches(self, first_step: int = 0, workers: int = 1) -> Iterator[Batch]:
        """The batches of all steps from `first_step` on, in order and without end.

        Args:
            first_step: the step to begin with.
            workers: threads that prepare batches a few steps ahead; 0 prepares each when it is asked for. They end
                when the iterator is closed.

        Raises:
            DataError: as `batch`, when the failing batch's turn comes.
        """
        if workers <= 0:
            step = first_step
            while True:
                yield self.batch(step)
                step += 1
        pool = ThreadPoolExecutor(workers, thread_name_prefix="crops")
        ahead: deque[Future[Batch]] = deque()
        try:
            for step in range(first_step, first_step + workers + _STEPS_AHEAD):
                ahead.append(pool.submit(self.batch, step))
            step = first_step + len(ahead)
            while True:
                ready = ahead.popleft().result()
                ahead.append(pool.submit(self.batch, step))
                step += 1
                yield ready
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, step: int, slot: int) -> tuple[Tensor, Tensor]:
        """One sample: low resolution (T, 3, h, w) and high resolution (T, 3, scale*h, scale*w)."""
        segment = self._segment(step, slot)
        random = np.random.default_rng([_SAMPLE_DRAW, self.seed, step, slot])
        start = segment.starts[int(random.integers(len(segment.starts)))]
        window = segment.frames[start : start + self.frames]
        region = self._region(random, window[self.frames // 2])
        pixels = window[
            :,
            region.top - region.above : region.top + self.crop + region.below,
            region.left - region.before : region.left + self.crop + region.behind,
        ]
        pixels, region = _augmented(random, pixels, region)
        around = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255
        if self.degradation is None:
            return around, around
        lr = degrade(around, self.degradation, self.scale)
        small, scale = self.crop // self.scale, self.scale
        lr = lr[..., region.above // scale :, region.before // scale :][..., :small, :small]
        hr = around[..., region.above :, region.before :][..., : self.crop, : self.crop]
        return lr, hr

    def _region(self, random: Generator, middle: NDArray[np.uint8]) -> _Region:
        """Where to crop: the first of four positions that shows something, else the one that shows most."""
        rows, columns = ((side - self.crop) // self.scale + 1 for side in middle.shape[:2])
        best, best_contrast = (0, 0), -1.0
        for _ in range(_CROP_TRIES):
            top, left = (int(random.integers(count)) * self.scale for count in (rows, columns))
            contrast = _contrast(middle[top : top + self.crop, left : left + self.crop])
            if contrast > best_contrast:
                best, best_contrast = (top, left), contrast
            if contrast >= _FLAT_BELOW:
                break
        # The frame ends where the whole frame's low resolution would: at the last multiple of the scale.
        height, width = (side // self.scale * self.scale for side in middle.shape[:2])
        (top, left), reach = best, 0 if self.degradation is None else margin(self.scale)
        return _Region(
            top,
            left,
            above=min(reach, top),
            below=min(reach, height - top - self.crop),
            before=min(reach, left),
            behind=min(reach, width - left - self.crop),
        )

    def _segment(self, step: int, slot: int) -> Segment:
        group = (step + slot * self._hold // self.batch_size) // self._hold
        return self._cache.get((slot, group), lambda: self._draw_segment(slot, group))

    def _draw_segment(self, slot: int, group: int) -> Segment:
        wanted = self.frames + self._hold - 1
        for attempt in range(_SEGMENT_TRIES):
            random = np.random.default_rng([_SEGMENT_DRAW, self.seed, slot, group, attempt])
            drawn = int(np.searchsorted(self._cumulated, random.random(), side="right"))
            clip = self.clips[min(drawn, len(self.clips) - 1)]
            start = int(random.integers(max(0, clip.length - wanted) + 1))
            segment = read_segment(clip, start, wanted, self.frames, self.halve_from_height)
            if segment.starts:
                return segment
        raise DataError(
            f"{_SEGMENT_TRIES} stretches drawn from the clips (the last from {clip.name}) have no {self.frames} frames "
            "without a cut; give longer shots or set data.frames lower."
        )

    def _checked_lengths(self) -> list[int]:
        """How many frames each clip has, after all clips proved fit to draw from."""
        if not self.clips:
            raise DataError("No clips were given to train on; give a folder that holds some.")
        # Opening tens of thousands of clips is mostly waiting for the disk, so several are opened at once.
        with ThreadPoolExecutor(_OPENED_AT_ONCE, thread_name_prefix="clips") as pool:
            lengths = list(pool.map(lambda clip: clip.length, self.clips))
            sizes = list(pool.map(self._working_size, self.clips))
        for clip, length, (height, width) in zip(self.clips, lengths, sizes, strict=True):
            if length < self.frames:
                raise DataError(
                    f"{clip.name} is a clip with fewer frames than needed: it has {length} and a sample takes "
                    f"{self.frames}; leave it out or set data.frames lower."
                )
            if min(height, width) < self.crop:
                raise DataError(
                    f"{clip.name} has frames smaller than the crop: {width}x{height} against {self.crop}x{self.crop}; "
                    f"leave it out or set data.crop {self._fitting(min(height, width))}."
                )
        return lengths

    def _fitting(self, side: int) -> str:
        """How data.crop, which is of high resolution, would fit frames with that shorter side."""
        return "lower" if self.degradation is None else f"to {side // self.scale * self.scale} or less"

    def _working_size(self, clip: Clip) -> tuple[int, int]:
        height, width = clip.size
        if self.halve_from_height is not None and height >= self.halve_from_height:
            return height // 2, width // 2
        return height, width


def _check_numbers(frames: int, crop: int, scale: int, batch_size: int, seed: int) -> None:
    for name, value in (("frames", frames), ("crop", crop), ("scale", scale), ("batch_size", batch_size)):
        if value < 1:
            raise DataError(f"{name} is {value}; it must be 1 or more.")
    if crop % scale:
        raise DataError(f"The crop of {crop} pixels is no multiple of the scale {scale}; set data.crop to one.")
    if seed < 0:
        raise DataError(f"The seed is {seed}; it must be 0 or more.")


def _contrast(pixels: NDArray[np.uint8]) -> float:
    """Standard deviation of luma (BT.601) in [0, 1]."""
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return float(luma.std()) / 255


def _augmented(random: Generator, pixels: NDArray[np.uint8], region: _Region) -> tuple[NDArray[np.uint8], _Region]:
    """One of the eight symmetries of the square, and time reversed or not; the margins go along."""
    upside_down, mirrored, transposed, backwards = (bool(bit) for bit in random.integers(2, size=4))
    if upside_down:
        pixels, region = pixels[:, ::-1], region._replace(above=region.below, below=region.above)
    if mirrored:
        pixels, region = pixels[:, :, ::-1], region._replace(before=region.behind, behind=region.before)
    if transposed:
        pixels = pixels.transpose(0, 2, 1, 3)
        region = region._replace(above=region.before, before=region.above, below=region.behind, behind=region.below)
    return (pixels[::-1] if backwards else pixels), region
