from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from distill.data import FrameFolder, VideoClip, sample_clips
from distill.errors import DataError
from tests.places import CLIPS

STREET = sample_clips("train") / "street.mp4"
STREET_FRAMES = np.stack(list(VideoClip(STREET).frames()))


with_footage = pytest.mark.skipif(not CLIPS.is_dir(), reason=f"{CLIPS} is not on this machine")


def write_image(path: Path, height: int = 24, width: int = 32, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


def write_video(path: Path, stamps: list[int]) -> NDArray[np.uint8]:
    """A lossless video whose frame i has the grey level 10 * i and is shown at the given stamp (1/25 s)."""
    frames = np.stack([np.full((48, 64, 3), 10 * i, np.uint8) for i in range(len(stamps))])
    frames[:, :8, :8] = 255  # one bright corner, so that turning shows
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for pixels, stamp in zip(frames, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return frames


def test_video_says_what_it_holds() -> None:
    clip = VideoClip(STREET)
    assert (clip.name, clip.size, clip.length) == ("street", (240, 432), 40)
    assert clip.frame_rate == 25
    assert STREET_FRAMES.shape == (40, 240, 432, 3)
    assert STREET_FRAMES.dtype == np.uint8


@settings(deadline=None, max_examples=15)
@given(start=st.integers(0, 45), count=st.integers(0, 6))
def test_any_stretch_of_a_video_is_exactly_that_stretch(start: int, count: int) -> None:
    read = list(VideoClip(STREET).frames(start, start + count))
    expected = STREET_FRAMES[start : start + count]
    assert len(read) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(read, expected, strict=True))


def test_variable_frame_rate_keeps_indices_exact(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    frames = write_video(path, [0, 1, 5, 6, 7, 20, 21, 50, 51, 60, 61, 62])
    clip = VideoClip(path)
    assert clip.length == 12
    for start in range(12):
        assert np.array_equal(next(clip.frames(start)), frames[start])


def test_video_without_usable_time_stamps_is_counted_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "raw.h264"  # a bare stream: no container, no stamps, no frame count
    frames = write_video(path, list(range(10)))
    clip = VideoClip(path)
    assert clip.length == 10
    assert np.array_equal(np.stack(list(clip.frames(7))), frames[7:])


@with_footage
@pytest.mark.parametrize(
    "name",
    [
        "openh264/VID_1920x1080_cavlc_temporal_direct.mp4",  # time stamps in the order of decoding
        "kivy/cityCC0.mpg",  # no index, no frame count
        "intel_sample_videos/car-detection.mp4",
    ],
)
def test_stretches_of_awkward_footage_are_exact(name: str) -> None:
    clip = VideoClip(CLIPS / name)
    frames = [frame[::8, ::8] for frame in clip.frames()]
    assert len(frames) == clip.length
    for start in (1, 13, 37, len(frames) - 1):
        for offset, frame in enumerate(clip.frames(start, start + 3)):
            assert np.array_equal(frame[::8, ::8], frames[start + offset])


@with_footage
def test_a_real_phone_video_is_upright() -> None:
    assert VideoClip(CLIPS / "androidx_media" / "mv_with_2_top_shots.mp4").size == (1440, 1080)


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)], ids=["90", "180", "270"]
)
def test_a_video_taken_on_a_turned_phone_comes_out_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], turns: int
) -> None:
    path = tmp_path / "turned.mp4"
    frames = write_video(path, [0, 1, 2])
    data = bytearray(path.read_bytes())
    # The display matrix of the track header: QuickTime File Format, "tkhd", 40 bytes into the atom's data.
    a, b, c, d = (value << 16 for value in matrix)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    clip = VideoClip(path)
    upright = np.rot90(frames[2], turns)
    assert clip.size == upright.shape[:2]
    read = list(clip.frames())
    assert np.array_equal(read[2], upright)
    assert read[2].flags.c_contiguous


@pytest.mark.parametrize("content", [b"just some text\n" * 200, b""], ids=["text", "empty"])
@pytest.mark.parametrize("suffix", [".mp4", ".txt"])
def test_a_file_that_is_no_video_is_refused_by_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(path.name)):
        _ = VideoClip(path).size


def test_a_missing_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        _ = VideoClip(tmp_path / "gone.mp4").length


def test_damage_in_the_middle_names_file_and_frame(tmp_path: Path) -> None:
    data = STREET.read_bytes()
    half = len(data) // 2
    path = tmp_path / "scratched.mp4"
    path.write_bytes(data[:half] + bytes(20_000) + data[half + 20_000 :])
    read: list[NDArray[np.uint8]] = []
    with pytest.raises(DataError, match=r"Frame \d+ of .*scratched\.mp4 is damaged"):
        read.extend(VideoClip(path).frames())  # extend keeps what came before the error
    assert 0 < len(read) < 40


def test_a_video_that_breaks_off_yields_what_it_has(tmp_path: Path) -> None:
    data = STREET.read_bytes()
    path = tmp_path / "cut_off.mp4"
    path.write_bytes(data[: len(data) // 2])
    clip = VideoClip(path)
    read = list(clip.frames())
    assert 0 < len(read) <= clip.length < 40
    assert np.array_equal(read[0], STREET_FRAMES[0])
    assert list(clip.frames(clip.length + 3)) == []


def test_frames_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1, 30):
        write_image(tmp_path / f"frame{number}.png", value=number)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("ignored")
    clip = FrameFolder(tmp_path)
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == [1, 2, 10, 30]
    assert [int(frame[0, 0, 0]) for frame in clip.frames(1, 3)] == [2, 10]
    assert (clip.size, clip.length, clip.frame_rate) == ((24, 32), 4, None)


def test_a_list_of_frames_keeps_its_order(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number}.png", value=number) for number in (3, 1, 2)]
    clip = FrameFolder(paths, "chosen")
    assert clip.name == "chosen"
    assert [int(frame[0, 0, 0]) for frame in clip.frames()] == [3, 1, 2]


def test_sixteen_bit_grey_frames_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x80FF, np.uint16)).save(tmp_path / "1.png")
    frame = next(FrameFolder(tmp_path).frames())
    assert frame.shape == (8, 8, 3)
    assert np.unique(frame).tolist() == [0x80]


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    write_image(tmp_path / "2.png", height=25)
    with pytest.raises(DataError, match=r"2\.png is 32x25 but 1\.png is 32x24"):
        list(FrameFolder(tmp_path).frames())


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.png")
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "2.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "3.png").write_bytes(b"no image at all")
    clip = FrameFolder(tmp_path)
    with pytest.raises(DataError, match=r"2\.png is damaged"):
        list(clip.frames())
    with pytest.raises(DataError, match=r"3\.png cannot be read as an image"):
        list(clip.frames(2))


def test_a_missing_listed_frame_is_named(tmp_path: Path) -> None:
    clip = FrameFolder([write_image(tmp_path / "im1.png"), tmp_path / "im2.png"], "00001/0001")
    with pytest.raises(DataError, match=r"im2\.png is missing"):
        list(clip.frames())


def test_a_folder_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no frames"):
        FrameFolder(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        FrameFolder(tmp_path / "gone")
    with pytest.raises(DataError, match="empty list"):
        FrameFolder([])


@pytest.mark.parametrize("clip", [VideoClip(STREET), FrameFolder([STREET])], ids=["video", "folder"])
def test_a_negative_start_is_refused(clip: VideoClip | FrameFolder) -> None:
    with pytest.raises(DataError, match="counted from 0"):
        next(clip.frames(-1))
