from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.interfaces import ClipNetwork, Upsampled


class Numbered(ClipNetwork):
    """Each frame is its own time; a frame in between is the mean of its neighbours."""

    scale = 1
    hr_channels, lr_channels = 3, 3

    def __init__(self, chunk: int, overlap: int, time_scale: int) -> None:
        super().__init__()
        self.chunk, self.overlap, self.time_scale = chunk, overlap, time_scale
        self.longest = 0

    def forward(self, clip):
        self.longest = max(self.longest, clip.shape[1])
        frames = clip
        if self.time_scale == 2:
            between = (clip[:, 1:] + clip[:, :-1]) / 2
            pairs = torch.stack((clip[:, :-1], between), 2).flatten(1, 2)
            frames = torch.cat((pairs, clip[:, -1:]), 1)
        return Upsampled(frames, frames, frames)


@given(
    length=st.integers(1, 40),
    chunk=st.integers(2, 12),
    overlap=st.integers(1, 11),
    time_scale=st.sampled_from([1, 2]),
)
def test_chunks_yield_every_frame_once_and_in_order(length, chunk, overlap, time_scale):
    overlap = min(overlap, chunk - 1)
    network = Numbered(chunk, overlap, time_scale)
    clip = torch.arange(length, dtype=torch.float32)[:, None, None, None].expand(length, 3, 2, 2)
    streamed = torch.stack(list(network.stream(iter(clip))))
    torch.testing.assert_close(streamed, network(clip[None]).frames[0])
    fresh = Numbered(chunk, overlap, time_scale)
    assert len(list(fresh.stream(iter(clip)))) == time_scale * (length - 1) + 1
    assert fresh.longest == min(length, chunk)


def test_chunks_bound_what_is_held():
    network = Numbered(6, 2, 1)
    given_out = 0

    def source():
        nonlocal given_out
        for index in range(100):
            given_out += 1
            yield torch.full((3, 2, 2), float(index))

    for count, frame in enumerate(network.stream(source())):
        assert frame[0, 0, 0] == count
        assert given_out - count <= 6 + 4 + 1
    assert network.longest == 6


@pytest.mark.parametrize(("chunk", "overlap"), [(10, 10), (4, 10), (5, 0)])
def test_chunks_that_would_lose_or_repeat_frames_are_refused(chunk, overlap):
    with pytest.raises(ValueError, match=f"overlap is {overlap}"):
        next(Numbered(chunk, overlap, 1).stream(iter([torch.zeros(3, 2, 2)])))


def test_no_frames_are_no_frames():
    assert list(Numbered(4, 1, 2).stream(iter([]))) == []


def test_fields_that_do_not_exist_stay_none():
    changed = Upsampled(torch.ones(1), None, torch.ones(2)).map(lambda field: field + 1)
    assert changed.hr_features is None
    assert changed.frames.item() == 2
