from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from PIL import Image
from torch import Tensor

from distill.data import VideoClip, sample_clips
from distill.errors import DataError
from distill.interfaces import Upsampled, WindowNetwork
from distill.upscale import upscale
from tests.stand_ins.networks import Doubling
from tests.stand_ins.videos import (
    TAGS,
    decoded,
    moving_frames,
    plain_frame,
    rgb_of,
    sound_packets,
    times,
    write_tone,
    write_video,
)


class Nearest(WindowNetwork):
    """Makes every pixel a 4x4 block; looks two frames ahead."""

    window, hr_channels, lr_channels = 5, 3, 3

    def reconstruct(self, window: Tensor) -> Upsampled:
        middle = window[:, self.window // 2]
        up = middle.repeat_interleave(4, -1).repeat_interleave(4, -2)
        return Upsampled(up, up, middle)


def folder_of_frames(folder: Path, count: int) -> list[np.ndarray]:
    folder.mkdir()
    pictures = [frame.to_ndarray() for frame in moving_frames(count, 12, 10)]
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"frame{index}.png")
    return pictures


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_timing_and_sound_survive(tmp_path: Path, suffix: str) -> None:
    rate = Fraction(30000, 1001)
    source = write_video(tmp_path / "in.mp4", moving_frames(24), rate=rate, sound="aac")
    target = tmp_path / f"out{suffix}"
    counted: list[int] = []
    result = upscale(Nearest(), source, target, progress=counted.append)
    assert (result.frames, result.size, result.frame_rate, result.audio) == (24, (128, 192), rate, True)
    assert result.seconds > 0
    assert counted == [1] * 24
    assert [(frame.width, frame.height) for frame in decoded(target)] == [(192, 128)] * 24
    before, after = sound_packets(source), sound_packets(target)
    assert [data for _, data in after] == [data for _, data in before]
    # Matroska counts in milliseconds and cannot begin below zero, so there both tracks move by the encoder's delay.
    lag = after[0][0] - before[0][0]
    assert lag == pytest.approx(0, abs=0.03)
    assert times(target) == pytest.approx([time + lag for time in times(source)], abs=0.0015)
    with av.open(str(source)) as first, av.open(str(target)) as second:
        assert second.duration == pytest.approx(first.duration, abs=60_000)  # microseconds
        assert float(second.streams.video[0].average_rate) == pytest.approx(float(rate), rel=2e-3)


def test_variable_frame_rate_keeps_every_time_stamp(tmp_path: Path) -> None:
    stamps = [0, 33, 66, 200, 233, 500, 1500, 1533, 1566, 3000]
    source = write_video(tmp_path / "in.mp4", moving_frames(10), stamps=stamps, time_base=Fraction(1, 1000))
    result = upscale(Nearest(), source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx([stamp / 1000 for stamp in stamps], abs=1e-9)
    assert not result.audio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("sound", ["mp2", "aac"])
def test_a_clock_that_does_not_begin_at_zero(tmp_path: Path, sound: str, suffix: str) -> None:
    stamps = list(range(250, 262))
    source = write_video(tmp_path / "in.ts", moving_frames(12), stamps=stamps, sound=sound, sound_start=9.9)
    target = tmp_path / f"out{suffix}"
    assert upscale(Nearest(), source, target).audio
    starts = [(times(path)[0], sound_packets(path)[0][0]) for path in (source, target)]
    assert starts[0][0] > starts[0][1] > 9
    assert starts[1] == pytest.approx((starts[0][0] - starts[0][1], 0), abs=2e-3)
    assert np.diff(times(target)) == pytest.approx([0.04] * 11, abs=2e-3)
    assert len(sound_packets(target)) == len(sound_packets(source))


def test_equal_time_stamps_are_told_apart(tmp_path: Path) -> None:
    stamps = [0, 400, 403, 800]  # Matroska counts in milliseconds
    source = write_video(tmp_path / "in.mkv", moving_frames(4), stamps=stamps, time_base=Fraction(1, 10000))
    assert times(source) == [0, 0.04, 0.04, 0.08]
    upscale(Nearest(), source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx([0, 0.04, 0.041, 0.08], abs=1e-9)


def test_a_stream_without_time_stamps(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.h264", moving_frames(9), rate=Fraction(50))
    assert upscale(Nearest(), source, tmp_path / "out.mkv").frames == 9
    after = times(tmp_path / "out.mkv")
    assert len(after) == 9
    assert all(late > early for early, late in pairwise(after))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("rgb", [(210, 40, 30), (60, 190, 80), (25, 60, 200), (240, 235, 220), (12, 10, 14)])
def test_colours_stay(tmp_path: Path, rgb: tuple[int, int, int], matrix: str, full: bool) -> None:
    frames = [plain_frame(rgb, matrix, full) for _ in range(3)]
    source = write_video(tmp_path / "in.mp4", frames, matrix=TAGS[matrix], color_range=2 if full else 1)
    trained_on = next(VideoClip(source).frames())
    assert trained_on.mean((0, 1)) == pytest.approx(rgb, abs=3), "training sees other colours than upscaling"
    upscale(Nearest(), source, tmp_path / "out.mp4")
    for frame in decoded(tmp_path / "out.mp4"):
        assert (frame.colorspace, frame.color_range) == (1, 1)
        assert rgb_of(frame) == pytest.approx(rgb, abs=3)


def test_full_range_is_seen_where_the_pixel_format_does_not_tell(tmp_path: Path) -> None:
    frames = [plain_frame((210, 40, 30), "bt709", full=True)] * 2
    source = write_video(tmp_path / "in.mkv", frames, encoder="ffv1", matrix=1, color_range=2)
    assert decoded(source)[0].format.name == "yuv420p"
    upscale(Nearest(), source, tmp_path / "out.mp4")
    assert rgb_of(decoded(tmp_path / "out.mp4")[0]) == pytest.approx((210, 40, 30), abs=3)


def test_untagged_small_video_is_taken_as_bt601(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", [plain_frame((210, 40, 30), "bt601")] * 2)
    upscale(Nearest(), source, tmp_path / "out.mp4")
    assert rgb_of(decoded(tmp_path / "out.mp4")[0]) == pytest.approx((210, 40, 30), abs=3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_the_shape_of_pixels_stays(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / "in.mkv", moving_frames(2), aspect=Fraction(16, 15))
    upscale(Nearest(), source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 15)


@pytest.mark.parametrize(("clockwise", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_turned_videos_come_out_upright(tmp_path: Path, clockwise: int, corner: tuple[int, int]) -> None:
    picture = np.full((32, 48, 3), 40, np.uint8)
    picture[:16, :16] = 220  # the stored top left
    frames = [VideoFrame.from_ndarray(picture, format="rgb24")] * 2
    source = write_video(tmp_path / "in.mp4", frames, aspect=Fraction(4, 3))
    note_rotation(source, clockwise)
    turned = clockwise != 180
    result = upscale(Nearest(), source, tmp_path / "out.mp4")
    assert result.size == ((192, 128) if turned else (128, 192))
    grey = decoded(tmp_path / "out.mp4")[0].to_ndarray(format="gray")
    bright = {place for place in [(0, 0), (0, -1), (-1, 0), (-1, -1)] if grey[place] > 150}
    assert bright == {corner}
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert next(container.decode(stream)).rotation == 0
        assert stream.codec_context.sample_aspect_ratio == (Fraction(3, 4) if turned else Fraction(4, 3))


def note_rotation(path: Path, clockwise: int) -> None:
    """Write the display matrix of an MP4 track header, as phones do instead of turning the pixels."""
    turn = math.radians(clockwise)
    cosine, sine = round(math.cos(turn)), round(math.sin(turn))
    entries = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data = path.read_bytes()
    start = data.index(b"tkhd") + 4 + 40
    matrix = b"".join(entry.to_bytes(4, "big", signed=True) for entry in entries)
    path.write_bytes(data[:start] + matrix + data[start + 36 :])


def test_folder_to_folder_is_exact(tmp_path: Path) -> None:
    pictures = folder_of_frames(tmp_path / "in", 12)
    result = upscale(Nearest(), tmp_path / "in", tmp_path / "out")
    assert (result.frames, result.size, result.audio) == (12, (40, 48), False)
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [f"{number:06d}.png" for number in range(1, 13)]
    for path, picture in zip(written, pictures, strict=True):
        assert np.array_equal(np.array(Image.open(path)), picture.repeat(4, 0).repeat(4, 1))


def test_folder_to_video_has_25_frames_per_second(tmp_path: Path) -> None:
    folder_of_frames(tmp_path / "in", 6)
    assert upscale(Nearest(), tmp_path / "in", tmp_path / "out.mov").frame_rate == 25
    assert times(tmp_path / "out.mov") == pytest.approx([index / 25 for index in range(6)])


def test_video_to_an_empty_folder(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", moving_frames(3), sound="aac")
    (tmp_path / "out.frames").mkdir()
    assert not upscale(Nearest(), source, tmp_path / "out.frames").audio
    assert len(list((tmp_path / "out.frames").iterdir())) == 3


def test_frames_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    folder_of_frames(tmp_path / "in", 12)
    given = np.full((10, 12, 3), 77, np.uint8)
    counted: list[int] = []

    def progress(count: int) -> None:
        counted.append(count)
        if len(counted) == 4:  # two frames more are in the window by now, and four wait for whether a cut comes
            Image.fromarray(given).save(tmp_path / "in" / "frame11.png")

    upscale(Nearest(), tmp_path / "in", tmp_path / "out", progress=progress)
    assert counted == [1] * 12
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "000012.png")), given.repeat(4, 0).repeat(4, 1))


def test_the_network_is_left_in_evaluation_mode(tmp_path: Path) -> None:
    folder_of_frames(tmp_path / "in", 2)
    network = Nearest().train()
    upscale(network, tmp_path / "in", tmp_path / "out")
    assert not network.training


class Failing(Nearest):
    """Raises at the third frame."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error, self.done = error, 0

    def reconstruct(self, window: Tensor) -> Upsampled:
        self.done += 1
        if self.done == 3:
            raise self.error
        return super().reconstruct(window)


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_an_interruption_leaves_the_target_alone(tmp_path: Path, name: str) -> None:
    folder_of_frames(tmp_path / "in", 6)
    (tmp_path / "out.mp4").write_bytes(b"what was there")
    with pytest.raises(KeyboardInterrupt):
        upscale(Failing(KeyboardInterrupt), tmp_path / "in", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"what was there"


def test_an_existing_video_is_replaced_when_done(tmp_path: Path) -> None:
    folder_of_frames(tmp_path / "in", 3)
    (tmp_path / "out.mp4").write_bytes(b"what was there")
    upscale(Nearest(), tmp_path / "in", tmp_path / "out.mp4")
    assert len(decoded(tmp_path / "out.mp4")) == 3


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    folder_of_frames(tmp_path / "in", 6)
    with pytest.raises(DataError, match="The memory of cpu does not hold"):
        upscale(Failing(torch.OutOfMemoryError), tmp_path / "in", tmp_path / "out.mp4")


def test_a_full_disk_is_said_and_cleaned_up(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    source = write_video(tmp_path / "in.mp4", moving_frames(20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # stands in for a full disk
    try:
        with pytest.raises(DataError, match=r"out\.mp4 cannot be written \(File too large\)"):
            upscale(Nearest(), source, tmp_path / "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_sound_that_does_not_fit_is_said_before_any_work(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mov", moving_frames(4), sound="pcm_mulaw")
    counted: list[int] = []
    with pytest.raises(DataError, match=r"pcm_mulaw.* cannot be copied into a \.mp4 file; give .* \.mkv or \.mov,"):
        upscale(Nearest(), source, tmp_path / "out.mp4", progress=counted.append)
    assert counted == []
    assert upscale(Nearest(), source, tmp_path / "out.mov").audio


def test_damage_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", moving_frames(40, 160, 96))
    data = bytearray(source.read_bytes())
    half = len(data) // 2
    data[half : half + 3000] = np.random.default_rng(0).bytes(3000)
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"Frame \d+ of .*in\.mkv is damaged"):
        upscale(Nearest(), source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_recording_that_breaks_off_is_upscaled_as_far_as_it_goes(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    data = (sample_clips("train") / "street.mp4").read_bytes()
    source.write_bytes(data[: len(data) // 2])
    trained_on = len(list(VideoClip(source).frames()))
    assert 0 < trained_on < 40
    assert upscale(Nearest(), source, tmp_path / "out").frames == trained_on


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("none.mp4", "out.mp4", r"none\.mp4 does not exist"),
        ("text.mp4", "out.mp4", r"text\.mp4 cannot be opened as a video"),
        ("text.txt", "out.mp4", r"text\.txt holds no video"),
        ("tone.mp4", "out.mp4", r"tone\.mp4 holds no video"),
        ("empty", "out.mp4", "empty holds no frames"),
        ("text.mp4", "text.mp4", "source and target at once"),
        ("text.mp4", "empty/../text.mp4", "source and target at once"),
        ("text.mp4", "missing/out.mp4", "missing is no folder; create it first"),
        ("text.mp4", "text.txt/out.mp4", r"text\.txt is no folder"),
        ("text.mp4", "out.avi", r"out\.avi ends in \.avi; give a name ending in \.mp4, \.mkv, \.mov"),
        ("text.mp4", "full", "full exists and is not an empty folder"),
        ("text.mp4", "plain", "plain exists and is not an empty folder"),
    ],
)
def test_wrong_paths_are_said_in_one_sentence(tmp_path: Path, source: str, target: str, message: str) -> None:
    for name in ("text.mp4", "text.txt", "plain"):
        (tmp_path / name).write_text("no video at all\n" * 50)
    with av.open(str(tmp_path / "tone.mp4"), "w") as output:
        write_tone(output, output.add_stream("aac", rate=44100, layout="mono"), 0.5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.png").write_bytes(b"precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        upscale(Nearest(), tmp_path / source, tmp_path / target)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_doubled_frame_rate_keeps_sound_and_duration(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    source = write_video(tmp_path / "in.mp4", moving_frames(9), rate=rate, sound="aac")
    counted: list[int] = []
    result = upscale(Doubling(), source, tmp_path / "out.mp4", progress=counted.append)
    assert (result.frames, result.frame_rate, result.audio) == (18, 2 * rate, True)
    assert counted == [1] * 18
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(source)
    before, after = times(source), times(tmp_path / "out.mp4")
    assert after[::2] == pytest.approx(before, abs=1e-4)
    assert np.diff(after) == pytest.approx([float(1 / (2 * rate))] * 17, abs=1e-4)
    with av.open(str(source)) as first, av.open(str(tmp_path / "out.mp4")) as second:
        durations = [
            float(each.streams.video[0].duration * each.streams.video[0].time_base) for each in (first, second)
        ]
        assert durations[1] == pytest.approx(durations[0], abs=1e-3)
        assert float(second.streams.video[0].average_rate) == pytest.approx(float(2 * rate), rel=2e-3)


def test_a_doubled_variable_frame_rate(tmp_path: Path) -> None:
    stamps = [0, 33, 66, 200, 233, 500, 1500, 1533, 1566, 3000]
    source = write_video(tmp_path / "in.mp4", moving_frames(10), stamps=stamps, time_base=Fraction(1, 1000))
    upscale(Doubling(), source, tmp_path / "out.mp4")
    halfway = [(early + late) / 2 for early, late in pairwise(stamps)]
    expected = sorted([*stamps, *halfway, 3000 + (3000 - 1566) / 2])
    assert times(tmp_path / "out.mp4") == pytest.approx([stamp / 1000 for stamp in expected], abs=1e-9)


def test_nothing_is_put_between_two_shots(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    generator = np.random.default_rng(0)
    shots = [generator.integers(0, 100, (40, 48, 3)), generator.integers(150, 240, (40, 48, 3))]
    pictures = [(shot + place).astype(np.uint8) for shot in shots for place in (0, 2, 4, 6, 8)]
    for place, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "in" / f"{place:02d}.png")
    result = upscale(Doubling(), tmp_path / "in", tmp_path / "out")
    assert (result.frames, result.frame_rate) == (20, 50)
    written = [np.array(Image.open(path))[::4, ::4] for path in sorted((tmp_path / "out").iterdir())]
    levels = [(shot + place).astype(np.uint8) for shot in shots for place in (*range(9), 8)]
    assert len(written) == len(levels)
    for ours, theirs in zip(written, levels, strict=True):
        assert np.array_equal(ours, theirs)


def test_one_frame_is_shown_for_its_time(tmp_path: Path) -> None:
    folder_of_frames(tmp_path / "in", 1)
    assert upscale(Doubling(), tmp_path / "in", tmp_path / "out.mp4").frames == 2
    assert times(tmp_path / "out.mp4") == pytest.approx([0, 1 / 50])
