from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from distill.data import VideoClip, cuts, find_clips, sample_clips, shots
from tests.places import CLIPS

SAMPLES = {clip.name: np.stack(list(clip.frames())) for clip in find_clips(sample_clips("train").parent)}

with_footage = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"{CLIPS} is not on this machine")


def read(name: str, start: int, stop: int) -> NDArray[np.uint8]:
    return np.stack(list(VideoClip(CLIPS / name).frames(start, stop)))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_clips_are_single_shots(name: str) -> None:
    assert cuts(SAMPLES[name]) == []


@pytest.mark.parametrize(("first", "second"), list(permutations(SAMPLES, 2)))
@pytest.mark.parametrize("at", [1, 8, 15])
def test_a_joint_of_two_clips_is_found(first: str, second: str, at: int) -> None:
    joined = np.concatenate([SAMPLES[first][:at], SAMPLES[second][: 16 - at]])
    assert cuts(joined) == [at]


def test_two_cuts_close_together_are_both_found() -> None:
    a, b, c = SAMPLES["train/street"], SAMPLES["held_out/flower"], SAMPLES["held_out/road"]
    assert cuts(np.concatenate([a[:6], b[:3], c[:6]])) == [6, 9]


@pytest.mark.parametrize("at", [1, 9, 14])
def test_a_flash_is_no_cut(at: int) -> None:
    frames = SAMPLES["train/highway"][:16].copy()
    frames[at] = np.minimum(frames[at].astype(np.int64) + 90, 255).astype(np.uint8)
    assert cuts(frames) == []


def test_a_fast_pan_is_no_cut() -> None:
    wide = np.concatenate([SAMPLES["train/street"][0], SAMPLES["train/highway"][0]], axis=1)
    frames = np.stack([wide[:, 40 * i : 40 * i + 300] for i in range(14)])
    assert cuts(frames) == []


def test_small_and_few_frames_are_taken() -> None:
    assert cuts(np.zeros((0, 8, 8, 3), np.uint8)) == []
    assert cuts(np.zeros((1, 8, 8, 3), np.uint8)) == []
    assert cuts(np.stack([np.zeros((5, 9, 3), np.uint8), np.full((5, 9, 3), 200, np.uint8)])) == [1]


@with_footage
def test_two_real_clips_joined_have_one_cut() -> None:
    first = read("sam2/03_blocks.mp4", 100, 112)
    second = read("vide/vide_ocean.mp4", 20, 30)
    assert cuts(np.concatenate([first, second])) == [12]


@with_footage
def test_the_cuts_of_edited_footage_are_found() -> None:
    assert cuts(read("kivy/cityCC0.mpg", 100, 130)) == [16]
    assert cuts(read("tears_of_steel/tears-of-steel-battle-clip-medium.webm", 40, 62)) == [12]


@with_footage
@pytest.mark.parametrize(
    "name", ["sam2/05_default_juggle.mp4", "gopro/max-heromode.mp4", "mapillary_tools/sample-5s.mp4"]
)
def test_moving_single_shots_have_no_cut(name: str) -> None:
    assert cuts(read(name, 30, 60)) == []


@pytest.mark.parametrize("order", list(permutations(["train/street", "held_out/flower", "held_out/road"])))
@pytest.mark.parametrize("lengths", [(6, 3, 6), (1, 9, 2), (12, 1, 5), (2, 2, 2), (14, 14, 1)])
def test_a_stream_is_split_where_cuts_are(order: tuple[str, ...], lengths: tuple[int, ...]) -> None:
    joined = np.concatenate([SAMPLES[name][:length] for name, length in zip(order, lengths, strict=True)])
    split = [list(shot) for shot in shots(enumerate(joined), lambda item: item[1])]
    assert [number for shot in split for number, _ in shot] == list(range(len(joined)))
    assert [shot[0][0] for shot in split] == [0, *cuts(joined)]


def test_a_stream_of_nothing_has_no_shots() -> None:
    assert list(shots([], lambda frame: frame)) == []
