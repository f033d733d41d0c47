from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from distill.data import DEGRADATIONS, Batch, Clip, CropSampler, degrade, find_clips, sample_clips
from distill.data.segments import Segment, SegmentCache, read_segment
from distill.errors import DataError
from tests.stand_ins.clips import ArrayClip


def map_of_places(length: int, height: int, width: int) -> NDArray[np.uint8]:
    """Red is the column, green the row, blue noise over the number of the frame in its low four bits."""
    frames = np.empty((length, height, width, 3), np.uint8)
    frames[..., 0] = np.arange(width)
    frames[..., 1] = np.arange(height)[:, None]
    frames[..., 2] = np.random.default_rng(0).integers(16, size=(length, height, width)) * 16
    frames[..., 2] += (np.arange(length) % 16).astype(np.uint8)[:, None, None]
    return frames


def samples_of(sampler: CropSampler, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(steps):
        batch = sampler.batch(step)
        yield from zip(batch.lr, batch.hr, strict=True)


def symmetries(whole: Tensor) -> Iterator[Tensor]:
    for vertical, horizontal, transposed in product((False, True), repeat=3):
        turned = whole.flip(-2) if vertical else whole
        turned = turned.flip(-1) if horizontal else turned
        yield turned.transpose(-1, -2) if transposed else turned


def located(hr: Tensor, whole: Tensor) -> tuple[int, Tensor, int, int]:
    """Which symmetry of the whole frames holds the crop: its number, the turned frames, and the crop's corner."""
    size = hr.shape[-1]
    for number, turned in enumerate(symmetries(whole)):
        for top, left in (turned[0, :2] == hr[0, :2, :1, :1]).all(dim=0).nonzero().tolist():
            if torch.equal(turned[..., top : top + size, left : left + size], hr):
                return number, turned, top, left
    pytest.fail("the sample is no crop of the frames in any of the eight symmetries")


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.lr, b.lr) and torch.equal(a.hr, b.hr)


@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_low_resolution_is_that_of_the_whole_turned_frame(degradation: str) -> None:
    """Crops of 32 pixels from 70x54: most touch a border of the frame, and the size is no multiple of four."""
    frames = map_of_places(12, 70, 54)
    sampler = CropSampler([ArrayClip(frames)], frames=3, crop=32, degradation=degradation, seed=3, batch_size=4)
    whole = torch.from_numpy(frames[:, :68, :52]).permute(0, 3, 1, 2).float() / 255
    seen = set()
    for lr, hr in samples_of(sampler, 12):
        numbers = [round(value * 255) % 16 for value in hr[:, 2, 0, 0].tolist()]
        symmetry, turned, top, left = located(hr, whole[numbers])
        expected = degrade(turned, degradation)[..., top // 4 : top // 4 + 8, left // 4 : left // 4 + 8]
        assert (top % 4, left % 4) == (0, 0)
        assert torch.allclose(lr, expected, atol=1e-6)
        assert sorted(numbers) in ([n, n + 1, n + 2] for n in range(10))
        seen.add((symmetry, numbers[0] < numbers[-1]))
    assert len(seen) > 12  # of the 16 augmentations in 48 samples


def test_a_batch_has_the_promised_shapes_and_range() -> None:
    sampler = CropSampler(find_clips(sample_clips("train")), frames=5, crop=64, batch_size=3)
    batch = sampler.batch(0)
    assert batch.lr.shape == (3, 5, 3, 16, 16)
    assert batch.hr.shape == (3, 5, 3, 64, 64)
    for frames in (batch.lr, batch.hr):
        assert frames.dtype == torch.float32
        assert frames.is_contiguous()
        assert frames.min() >= 0
        assert frames.max() <= 1


def drawn(clips: list[Clip], first: int, count: int, workers: int) -> list[Batch]:
    sampler = CropSampler(clips, frames=3, crop=32, batch_size=3, seed=5)
    batches = sampler.batches(first, workers)
    taken = list(islice(batches, count))
    batches.close()  # type: ignore[attr-defined]
    return taken


def all_same(some: list[Batch], others: list[Batch]) -> bool:
    return all(same(a, b) for a, b in zip(some, others, strict=True))


def test_workers_beginning_and_cache_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clips: list[Clip] = [ArrayClip(map_of_places(40, 48, side), str(side)) for side in (40, 64)]
    reference = drawn(clips, 0, 40, 0)
    assert all_same(reference, drawn(clips, 0, 40, 1))
    assert all_same(reference, drawn(clips, 0, 40, 3))
    assert all_same(reference[13:], drawn(clips, 13, 27, 2))
    monkeypatch.setattr("distill.data.crops._CACHE_BYTES", 1)  # the gigabyte would hold all of these small clips
    assert all_same(reference, drawn(clips, 0, 40, 2))


def test_workers_change_nothing_with_real_videos() -> None:
    clips = find_clips(sample_clips("train"))
    assert all_same(drawn(clips, 0, 6, 0), drawn(clips, 0, 6, 3))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**40), steps=st.permutations([0, 7, 40, 10**9]))
def test_a_batch_is_a_function_of_seed_and_step(seed: int, steps: list[int]) -> None:
    frames = map_of_places(40, 48, 56)
    sampler = CropSampler([ArrayClip(frames)], frames=2, crop=16, seed=seed)
    in_this_order = {step: sampler.batch(step) for step in steps}
    for step in steps:
        fresh = CropSampler([ArrayClip(frames)], frames=2, crop=16, seed=seed)
        assert same(fresh.batch(step), in_this_order[step])
    other = CropSampler([ArrayClip(frames)], frames=2, crop=16, seed=seed + 1)
    assert not all(same(other.batch(step), in_this_order[step]) for step in steps)


def test_slots_and_steps_differ() -> None:
    sampler = CropSampler([ArrayClip(map_of_places(40, 64, 64))], frames=2, crop=16, batch_size=4)
    drawn = [hr.numpy().tobytes() for _, hr in samples_of(sampler, 10)]
    assert len(set(drawn)) == len(drawn)


def test_a_segment_is_decoded_once_for_sixteen_steps() -> None:
    clip = ArrayClip(map_of_places(100, 32, 32))
    sampler = CropSampler([clip], frames=7, crop=16, batch_size=2)
    for step in range(16):
        sampler.batch(step)
    # slot 0 stays on one segment, slot 1 changes half way: three segments of 7 + 15 frames
    assert clip.reads == 3 * 22


def test_short_clips_are_left_after_as_many_steps_as_they_have_windows() -> None:
    clips = [ArrayClip(map_of_places(7, 32, 32), str(i)) for i in range(20)]
    sampler = CropSampler(clips, frames=7, crop=16, batch_size=1)
    for step in range(30):
        sampler.batch(step)
    assert sum(clip.reads for clip in clips) == 30 * 7
    assert sum(clip.reads > 0 for clip in clips) > 10


def test_longer_clips_are_drawn_more_often_up_to_a_point() -> None:
    clips = [ArrayClip(map_of_places(length, 16, 16), str(length)) for length in (32, 256, 2560)]
    sampler = CropSampler(clips, frames=1, crop=16, batch_size=8)
    for step in range(160):
        sampler.batch(step)
    short, long, longest = (clip.reads for clip in clips)
    assert short < long / 2
    assert 0.5 < long / longest < 2


def test_windows_do_not_cross_a_cut() -> None:
    road, street = (
        np.stack(list(clip.frames(0, 10)))[:, 60:220, 60:220]
        for clip in find_clips(sample_clips("train").parent)
        if clip.name in ("held_out/road", "train/street")
    )
    frames = np.concatenate([road, street])
    frames[..., 2] = np.where(np.arange(20) < 10, 0, 1)[:, None, None]  # blue tells the shot
    sampler = CropSampler([ArrayClip(frames)], frames=4, crop=64, batch_size=2)
    shots = [set((hr[:, 2] * 255).round().flatten().tolist()) for _, hr in samples_of(sampler, 20)]
    assert all(len(shot) == 1 for shot in shots)
    assert {0.0} in shots
    assert {1.0} in shots


def test_clips_with_nothing_but_cuts_are_refused() -> None:
    frames = np.zeros((7, 32, 32, 3), np.uint8)
    frames[4:] = 200
    sampler = CropSampler([ArrayClip(frames, "strobe")], frames=7, crop=16)
    with pytest.raises(DataError, match=r"20 stretches .*strobe.* have no 7 frames without a cut"):
        sampler.batch(0)


def test_a_clip_that_breaks_off_early_is_passed_over() -> None:
    sound = ArrayClip(map_of_places(30, 32, 32), "sound")
    broken = ArrayClip(map_of_places(3, 32, 32), "broken", announced=30)
    sampler = CropSampler([broken, sound], frames=5, crop=16)
    for step in range(40):
        sampler.batch(step)
    assert sound.reads > 0


def test_flat_crops_are_mostly_avoided() -> None:
    frames = map_of_places(10, 32, 200)
    frames[:, :, :150] = 90  # three quarters show nothing
    sampler = CropSampler([ArrayClip(frames)], frames=2, crop=32, batch_size=4)
    flat = [hr.std() < 1e-3 for _, hr in samples_of(sampler, 40)]
    # One random position is flat in about two cases of three, four in a row in one of five.
    assert 0.05 < np.mean(flat) < 0.35


def test_a_clip_without_any_contrast_still_gives_samples() -> None:
    sampler = CropSampler([ArrayClip(np.full((10, 32, 32, 3), 51, np.uint8))], frames=2, crop=16)
    assert torch.allclose(sampler.batch(0).hr, torch.tensor(0.2))


def test_tall_frames_are_halved_by_the_mean_of_two_by_two() -> None:
    frames = np.random.default_rng(0).integers(256, size=(3, 65, 67, 3), dtype=np.uint8)
    segment = read_segment(ArrayClip(frames), 0, 3, 1, halve_from_height=65)
    blocks = frames[:, :64, :66].reshape(3, 32, 2, 33, 2, 3).astype(np.float64).mean(axis=(2, 4))
    assert segment.frames.shape == (3, 32, 33, 3)
    assert np.abs(segment.frames - blocks).max() <= 0.5
    assert read_segment(ArrayClip(frames), 0, 3, 1, halve_from_height=66).frames.shape == frames.shape
    with pytest.raises(DataError, match="33x32 against 40x40"):
        CropSampler([ArrayClip(frames)], frames=2, crop=40, halve_from_height=65)


def test_workers_end_with_the_iterator() -> None:
    sampler = CropSampler([ArrayClip(map_of_places(20, 32, 32))], frames=2, crop=16)
    batches = sampler.batches(0, workers=3)
    next(batches)
    assert any(thread.name.startswith("crops") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("crops") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_reaches_the_consumer_in_its_turn(workers: int) -> None:
    class Damaged(ArrayClip):
        def frames(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
            if self.reads:  # the first segment is sound, all later ones are not
                raise DataError("Frame 5 of damaged cannot be decoded")
            return super().frames(start, stop)

    sampler = CropSampler([Damaged(map_of_places(60, 32, 32))], frames=2, crop=16, batch_size=1)
    batches = sampler.batches(0, workers)
    assert len(list(islice(batches, 16))) == 16
    with pytest.raises(DataError, match="Frame 5 of damaged"):
        next(batches)
    assert not any(thread.name.startswith("crops") for thread in threading.enumerate())


def segment_of(size: int) -> Segment:
    return Segment(np.zeros((1, 1, size, 3), np.uint8), [0])


def test_threads_that_want_one_segment_share_one_reading() -> None:
    cache = SegmentCache(1 << 20)
    reads: list[int] = []
    together = threading.Barrier(6)
    results: list[Segment] = []

    def slow() -> Segment:
        reads.append(1)
        time.sleep(0.05)
        return segment_of(4)

    def ask() -> None:
        together.wait()
        results.append(cache.get("key", slow))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert len(results) == 6
    assert all(result is results[0] for result in results)


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    cache = SegmentCache(2 * 30)
    reads: list[str] = []

    def get(key: str, size: int = 10) -> None:
        def read() -> Segment:
            reads.append(key)
            return segment_of(size)

        cache.get(key, read)

    for key in "abaca":  # c takes the place of b
        get(key)
    assert reads == ["a", "b", "c"]
    get("b")
    assert reads == ["a", "b", "c", "b"]
    get("large", 1000)
    get("large", 1000)  # kept although it alone is over the limit
    get("a")
    assert reads[4:] == ["large", "a"]


def test_a_failed_reading_is_tried_again() -> None:
    cache = SegmentCache(1 << 20)

    def fail() -> Segment:
        raise DataError("unreadable")

    with pytest.raises(DataError, match="unreadable"):
        cache.get("key", fail)
    assert cache.get("key", lambda: segment_of(1)).starts == [0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frames": 13}, "twelve is a clip with fewer frames than needed: it has 12 and a sample takes 13"),
        ({"crop": 36}, "twelve has frames smaller than the crop: 40x32 against 36x36.*data.crop to 32 or less"),
        ({"crop": 30}, "30 pixels is no multiple of the scale 4"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"degradation": "bx"}, "'bx' is unknown; choose one of bi, bd, bd-centred"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"frames": 5, "crop": 16, **changed}
    with pytest.raises(DataError, match=message):
        CropSampler([ArrayClip(map_of_places(12, 32, 40), "twelve")], **settings)


def test_no_clips_are_refused() -> None:
    with pytest.raises(DataError, match="No clips"):
        CropSampler([])


def test_footage_without_high_resolution_is_cropped_turned_and_nothing_else() -> None:
    frames = map_of_places(12, 30, 22)
    sampler = CropSampler([ArrayClip(frames)], frames=3, crop=15, scale=1, degradation=None, seed=3, batch_size=4)
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    seen, corners = set(), set()
    for step in range(12):
        batch = sampler.batch(step)
        assert batch.hr is None
        assert batch.lr.shape == (4, 3, 3, 15, 15)
        assert batch.lr.is_contiguous()
        for lr in batch.lr:
            numbers = [round(value * 255) % 16 for value in lr[:, 2, 0, 0].tolist()]
            symmetry, _, top, left = located(lr, whole[numbers])
            seen.add((symmetry, numbers[0] < numbers[-1]))
            corners.add((top, left))
    assert len(seen) > 12
    assert {place % 4 for corner in corners for place in corner} == {0, 1, 2, 3}, "crops keep to a grid"


def test_footage_without_high_resolution_is_a_function_of_seed_and_step_for_any_workers() -> None:
    settings: dict[str, Any] = {"frames": 2, "crop": 8, "scale": 1, "degradation": None, "batch_size": 2}
    clips: list[Clip] = [ArrayClip(map_of_places(40, 24, 24))]
    wanted = [CropSampler(clips, **settings).batch(step).lr for step in range(3, 20)]
    batches = CropSampler(clips, **settings).batches(3, workers=2)
    assert all(torch.equal(next(batches).lr, lr) for lr in wanted)
    batches.close()  # type: ignore[attr-defined]


def test_footage_smaller_than_the_crop_of_low_resolution_is_told_what_to_set() -> None:
    with pytest.raises(DataError, match=r"small has frames smaller than the crop: 40x20 against 24x24; .*crop lower"):
        CropSampler([ArrayClip(map_of_places(12, 20, 40), "small")], frames=3, crop=24, scale=1, degradation=None)


def test_a_batch_without_high_resolution_moves_without_it() -> None:
    moved = Batch(torch.zeros(1, 1, 3, 2, 2), None).to(torch.device("meta"))
    assert (moved.lr.device.type, moved.hr) == ("meta", None)
