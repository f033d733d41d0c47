"""A video in, a larger video out: timing, sound, orientation and colours stay as they were."""

from __future__ import annotations

import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from distill.data import FrameFolder, shots
from distill.data.decoded import UNSPECIFIED, UprightRgb, quarter_turns
from distill.errors import DataError
from distill.interfaces import VideoNetwork
from distill.metrics import to_8_bit

__all__ = ["UpscaleResult", "upscale"]

_Item = TypeVar("_Item")
_Pixels = NDArray[np.uint8]

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
_FOLDER_RATE = Fraction(25)
_ENCODER_OPTIONS = {"crf": "16", "preset": "medium"}

_BT709 = 1  # of ITU-T H.273


@dataclass(frozen=True)
class UpscaleResult:
    """What was written.

    Attributes:
        frames: how many.
        size: their height and width in pixels.
        frame_rate: frames per second on average: the source's, 25 for a folder of frames, or twice that where the
            network doubles it.
        audio: whether the target has the source's sound.
        seconds: how long it took.
    """

    frames: int
    size: tuple[int, int]
    frame_rate: Fraction
    audio: bool
    seconds: float


def upscale(
    network: VideoNetwork,
    source: Path,
    target: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> UpscaleResult:
    """Upscale a video or a folder of frames, a few frames in memory at a time.

    Shots are restored apart: at a hard cut the network starts anew. Every frame keeps its time stamp, also at a
    variable frame rate, and the main sound track is copied bit by bit. A network that doubles the frame rate puts a
    frame half-way between two, in time too. Nothing is made up across a cut or after the end: there the last frame of
    the shot stands once more in its place, half-way to the next shot, or half a frame after the last one. So twice as
    many frames come out as go in, and the rate and the duration stay even.

    Frames noted as turned are written upright. A video is encoded as H.264 (CRF 16, 4:2:0, 8 bit) with the BT.709
    matrix in limited range, so tagged, whatever the source's; its primaries and transfer function stay. Subtitles and
    further sound tracks are left out. What is written appears at `target` only when it is complete.

    Args:
        network: what upscales; it is moved to `device` and left in evaluation mode.
        source: a video, or a folder of frames, which count as 25 per second.
        target: a video to write or replace (.mp4, .mkv or .mov); or, without suffix, a new or empty folder that gets
            PNG frames 000001.png, 000002.png, ..., without sound; a folder that becomes a folder of twice as many
            frames is one of 50 per second.
        device: where the network runs.
        progress: called with 1 after every frame written.

    Raises:
        DataError: the source cannot be read, the target cannot be written or does not take the source's sound, both
            are the same, or the frames are too large for the device's memory.
    """
    started = time.perf_counter()
    _check_paths(source, target)
    network.to(device).eval()
    count, size = 0, (0, 0)
    try:
        with ExitStack() as stack:
            footage = stack.enter_context(_footage(source))
            made = footage.quickened(network.time_scale)
            partial = stack.enter_context(_renamed_when_complete(target))
            folder = _is_folder(target)
            writer = _FolderWriter(partial) if folder else stack.enter_context(_video_writer(partial, made))
            stack.enter_context(torch.inference_mode())
            for pixels, stamp in _upscaled(network, footage, device):
                writer.write(pixels, stamp)
                count, size = count + 1, pixels.shape[:2]
                if progress is not None:
                    progress(1)
            writer.finish()
    except torch.OutOfMemoryError as error:
        raise DataError(
            f"The memory of {device} does not hold the network's work on a frame of {source}; take a smaller network "
            "or video, or another device."
        ) from error
    except (FFmpegError, OSError) as error:
        raise DataError(f"{target} cannot be written ({_reason(error)}); make room or give another place.") from error
    return UpscaleResult(count, size, made.rate, writer.audio, time.perf_counter() - started)


def _check_paths(source: Path, target: Path) -> None:
    if not source.exists():
        raise DataError(f"{source} does not exist; give a video or a folder of frames.")
    if source.resolve() == target.resolve():
        raise DataError(f"{target} is source and target at once; give the target another name.")
    if not target.parent.is_dir():
        raise DataError(f"{target} cannot be written because {target.parent} is no folder; create it first.")
    if _is_folder(target):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise DataError(f"{target} exists and is not an empty folder; give a new one for the frames.")
    elif target.suffix.lower() not in _VIDEO_SUFFIXES:
        raise DataError(
            f"{target} ends in {target.suffix}; give a name ending in {', '.join(_VIDEO_SUFFIXES)} for a video, or "
            "without suffix for a folder of PNG frames."
        )


def _is_folder(target: Path) -> bool:
    return target.is_dir() or not target.suffix


@contextmanager
def _renamed_when_complete(target: Path) -> Iterator[Path]:
    """A path beside the target that becomes the target at the end, and vanishes on an error or Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix=".upscale-", dir=target.parent) as folder:
        partial = Path(folder) / target.name
        yield partial
        if target.is_dir():
            target.rmdir()  # empty, or else this fails and nothing is lost
        partial.replace(target)


def _upscaled(network: VideoNetwork, footage: _Footage, device: torch.device | str) -> Iterator[tuple[_Pixels, int]]:
    """Larger frames with their time stamps, in units of the target's time base."""
    restored = _restored(network, footage, device)
    return restored if network.time_scale == 1 else _doubled(restored, footage)


def _restored(network: VideoNetwork, footage: _Footage, device: torch.device | str) -> Iterator[tuple[_Pixels, int]]:
    """Larger frames with the time stamps of those they were made from, or come after; as many for each given one."""
    stamps: deque[int] = deque()

    def low_resolution(shot: Iterator[tuple[_Pixels, int]]) -> Iterator[Tensor]:
        for pixels, stamp in shot:
            stamps.append(stamp)
            yield torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() / 255

    # a window that spans a cut would mix two pictures
    for shot in shots(footage.frames, itemgetter(0)):
        larger: tuple[_Pixels, int] | None = None
        for place, frame in enumerate(network.stream(low_resolution(shot))):
            stamp = stamps.popleft() if larger is None or place % network.time_scale == 0 else larger[1]
            larger = to_8_bit(frame).permute(1, 2, 0).contiguous().cpu().numpy(), stamp
            yield larger
        if larger is not None and network.time_scale == 2:
            yield larger


def _doubled(frames: Iterator[tuple[_Pixels, int]], footage: _Footage) -> Iterator[tuple[_Pixels, int]]:
    """Frames, every other one given, with time stamps of half the unit: what is not given lies half-way."""
    step = max(1, round(1 / (footage.rate * footage.time_base)))
    held: tuple[_Pixels, int] | None = None
    for given, between in zip(frames, frames, strict=True):
        pixels, stamp = given
        if held is not None:
            step = stamp - held[1]
            yield held[0], held[1] + stamp
        yield pixels, 2 * stamp
        held = between
    if held is not None:
        yield held[0], 2 * held[1] + step  # players show the last frame as long as the one before it


# --- reading ---


@dataclass(frozen=True)
class _Footage:
    """Frames (H, W, 3) RGB, each with its time stamp in units of `time_base`, and what the copy takes over."""

    frames: Iterator[tuple[_Pixels, int]]
    rate: Fraction = _FOLDER_RATE
    time_base: Fraction = 1 / _FOLDER_RATE
    pixel_aspect: Fraction = Fraction(1)
    primaries: int = _BT709
    transfer: int = _BT709
    video: Path | None = None

    def quickened(self, times: int) -> _Footage:
        """With so many times the frames."""
        return replace(self, rate=self.rate * times, time_base=self.time_base / times)


@contextmanager
def _footage(source: Path) -> Iterator[_Footage]:
    if source.is_dir():
        yield _Footage((pixels, index) for index, pixels in enumerate(FrameFolder(source).frames()))
        return
    with _opened(source) as container:
        stream = container.streams.best("video")
        # FFmpeg's "tty" draws text files as pictures.
        if not isinstance(stream, VideoStream) or stream.codec_context is None or container.format.name == "tty":
            raise DataError(f"{source} holds no video that can be decoded; give a video or a folder of frames.")
        stream.thread_type = "AUTO"
        decoded = _read(container.decode(stream), source)
        first = next(decoded, None)
        if first is None:
            raise DataError(f"{source} holds no decodable frame; give a video that plays.")
        codec, aspect = stream.codec_context, stream.sample_aspect_ratio or Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or _FOLDER_RATE
        base = stream.time_base or 1 / rate
        step, start = round(1 / (rate * base)), round(_start(container) / base)
        yield _Footage(
            frames=_read(_stamped(chain([first], decoded), step, start, source), source),
            rate=rate,
            time_base=base,
            pixel_aspect=1 / aspect if quarter_turns(first) % 2 else aspect,
            primaries=_BT709 if codec.color_primaries in (0, UNSPECIFIED) else codec.color_primaries,
            transfer=_BT709 if codec.color_trc in (0, UNSPECIFIED) else codec.color_trc,
            video=source,
        )


def _opened(source: Path) -> InputContainer:
    try:
        return av.open(str(source))
    except (FFmpegError, OSError) as error:
        raise DataError(f"{source} cannot be opened as a video ({_reason(error)}); give a video that plays.") from error


def _read(items: Iterator[_Item], source: Path) -> Iterator[_Item]:
    """The items; what fails while reading is told apart from what fails while writing."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            raise DataError(f"{source} is damaged ({_reason(error)}); re-encode it or cut it before there.") from error
        yield item


def _start(container: InputContainer) -> Fraction:
    """Seconds on the source's clock that become zero on the target's."""
    return Fraction(container.start_time or 0, av.time_base)


def _stamped(frames: Iterator[VideoFrame], step: int, start: int, source: Path) -> Iterator[tuple[_Pixels, int]]:
    """Upright pixels with time stamps that increase, as encoders need; a missing one follows at the frame rate."""
    to_rgb = UprightRgb()
    last: int | None = None
    shape: tuple[int, ...] | None = None
    for frame in frames:
        if frame.is_corrupt:
            raise DataError(f"{source} is damaged at {frame.time} s; re-encode it or cut it before there.")
        stamp = frame.pts - start if frame.pts is not None else 0 if last is None else last + step
        last = stamp if last is None else max(stamp, last + 1)
        pixels = to_rgb(frame)
        if shape is not None and pixels.shape != shape:
            raise DataError(f"The frames of {source} change their size; split the video where they do.")
        shape = pixels.shape
        yield pixels, last


# --- writing ---


@contextmanager
def _video_writer(path: Path, footage: _Footage) -> Iterator[_VideoWriter]:
    with ExitStack() as stack:
        writer = _VideoWriter(stack.enter_context(av.open(str(path), "w")), footage)
        if footage.video is not None:
            writer.add_sound(stack.enter_context(_opened(footage.video)), footage.video, path.suffix)
        yield writer


class _FolderWriter:
    """PNG frames, numbered from 1."""

    audio = False

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        folder.mkdir()

    def write(self, pixels: _Pixels, stamp: int) -> None:
        self._count += 1
        Image.fromarray(pixels).save(self._folder / f"{self._count:06d}.png")

    def finish(self) -> None:
        pass


class _VideoWriter:
    """H.264 and, packet by packet, the source's sound."""

    audio = False

    def __init__(self, output: OutputContainer, footage: _Footage) -> None:
        self._output, self._time_base = output, footage.time_base
        self._sound: Iterator[tuple[Fraction, Packet[AudioStream]]] = iter(())
        self._stream = output.add_stream("libx264", rate=footage.rate, options=dict(_ENCODER_OPTIONS))
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.time_base, codec.sample_aspect_ratio = footage.time_base, footage.pixel_aspect
        codec.colorspace, codec.color_range = _BT709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = footage.primaries, footage.transfer

    def add_sound(self, container: InputContainer, source: Path, suffix: str) -> None:
        """Take the main sound track over; the container is another one of the source, read at the writer's pace."""
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream) or stream.codec_context is None:
            return
        try:
            copy = self._output.add_stream_from_template(stream)
        except ValueError as error:
            others = " or ".join(other for other in _VIDEO_SUFFIXES if other != suffix)
            raise DataError(
                f"The sound of {source} ({stream.codec_context.name}) cannot be copied into a {suffix} file; give a "
                f"target ending in {others}, or a source with AAC sound."
            ) from error
        self._sound = _copied(_read(container.demux(stream), source), copy, _start(container))
        self.audio = True

    def write(self, pixels: _Pixels, stamp: int) -> None:
        if not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = pixels.shape[:2]
        frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = stamp, self._time_base
        self._output.mux(self._stream.encode(frame))
        self._copy_sound(stamp * self._time_base)

    def finish(self) -> None:
        self._output.mux(self._stream.encode(None))
        self._copy_sound(math.inf)

    def _copy_sound(self, until: Fraction | float) -> None:
        """Sound up to a time in seconds, and one packet more."""
        for moment, packet in self._sound:
            self._output.mux(packet)
            if moment > until:
                return


def _copied(
    packets: Iterator[Packet[AudioStream]], copy: AudioStream, start: Fraction
) -> Iterator[tuple[Fraction, Packet[AudioStream]]]:
    """The packets of one stream as those of its copy, on the target's clock, each with its time in seconds."""
    for packet in packets:
        if packet.dts is None:  # the mark of the end, without data
            continue
        shift = round(start / packet.time_base)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
        packet.dts -= shift
        packet.stream = copy
        yield packet.dts * packet.time_base, packet


def _reason(error: BaseException) -> str:
    """The cause without FFmpeg's error number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")
