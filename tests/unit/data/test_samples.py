from __future__ import annotations

import numpy as np
import pytest

from distill import data
from distill.data import find_clips, sample_clips


@pytest.mark.parametrize(("split", "count", "length"), [("train", 3, 40), ("held_out", 2, 16)])
def test_the_shipped_clips_are_what_the_docstring_says(split: str, count: int, length: int) -> None:
    clips = find_clips(sample_clips(split))  # type: ignore[arg-type]
    assert len(clips) == count
    for clip in clips:
        assert (clip.size, clip.length) == ((240, 432), length)
        frames = list(clip.frames())
        assert len(frames) == length
        assert np.abs(np.diff(np.stack(frames).astype(np.float32), axis=0)).mean() > 2  # they move
        assert frames[0].std() > 30  # and show something


def test_the_shipped_clips_are_small_and_licensed() -> None:
    folder = sample_clips("train").parent
    clips = sorted(folder.rglob("*.mp4"))
    assert sum(path.stat().st_size for path in clips) <= 4 << 20
    licences = (folder / "LICENCES.md").read_text(encoding="utf-8")
    for path in clips:
        assert path.relative_to(folder).as_posix() in licences
    for holder in ("The Flutter Authors", "Cisco Systems", "Udacity, Inc."):
        assert holder in licences


def test_everything_promised_is_there() -> None:
    assert sorted(data.__all__) == sorted(set(data.__all__))
    for name in data.__all__:
        assert hasattr(data, name)
