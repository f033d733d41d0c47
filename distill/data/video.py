"""Videos as footage: clips for training and judging, and frames with their times for upscaling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import av.error
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from distill.data.clips import Clip, Frame, FrameFolder, reason_of
from distill.data.decoded import UNSPECIFIED, UprightRgb, quarter_turns
from distill.errors import DataError

__all__ = ["BT709", "Footage", "VideoClip", "clock_start", "open_container", "open_footage", "reading"]


_Item = TypeVar("_Item")
_FOLDER_RATE = Fraction(25)

BT709 = 1  # of ITU-T H.273

# FFmpeg would show any text file as a video of a text terminal.
_TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})

# Counting the packets of a file reads all of it; beyond this many bytes the container's word is taken.
_COUNTED_BYTES = 1 << 29

# Frames to decode before time stamps that look wrong are believed.
_FRAMES_TO_TRUST = 32


class VideoClip(Clip):
    """A video file, decoded by FFmpeg. The file is first opened when something is asked of it.

    Args:
        path: the file.
        name: what reports call it; the file's name without its suffix unless given.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.stem if name is None else name

    @property
    def size(self) -> tuple[int, int]:
        return self._header[0]

    @property
    def frame_rate(self) -> Fraction | None:
        return self._header[1]

    @cached_property
    def length(self) -> int:
        if self.path.is_file() and self.path.stat().st_size > _COUNTED_BYTES:
            with self._open() as container:
                announced = _video_stream(container, self.path).frames
            if announced > 0:
                return announced
        return self._index[0]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        if start < 0:
            raise DataError(f"Frame {start} of {self.path} was asked for; frames are counted from 0.")
        if stop is not None and stop <= start:
            return
        with self._open() as container:
            count, to_rgb = start, UprightRgb()
            for frame in self._decoded(container, start):
                yield self._of_one_size(to_rgb(frame), count)
                count += 1
                if count == stop:
                    return

    @cached_property
    def _header(self) -> tuple[tuple[int, int], Fraction | None]:
        """Size as shown and frame rate; decodes one frame, which alone knows how it is turned."""
        with self._open() as container:
            stream = _video_stream(container, self.path)
            rate = stream.average_rate or stream.guessed_rate
            for frame in self._decoded(container, 0):
                height, width = frame.height, frame.width
                if quarter_turns(frame) % 2:
                    height, width = width, height
                return (height, width), rate
        raise DataError(f"{self.path} holds no decodable video frame; give a video that plays.")

    @cached_property
    def _index(self) -> tuple[int, list[int] | None]:
        """The number of frames, and their time stamps in order of showing or None if those cannot be trusted.

        Only the container is read: nothing is decoded.
        """
        count, shown, decoded = 0, [], []
        with self._open() as container:
            stream = _video_stream(container, self.path)
            reordered = bool(stream.codec_context.has_b_frames)
            try:
                for packet in container.demux(stream):
                    if packet.size == 0 or packet.is_discard:
                        continue
                    count += 1
                    if packet.pts is not None:
                        shown.append(packet.pts)
                        decoded.append(packet.dts)
            except (av.error.FFmpegError, OSError):
                # What was counted before the damage can still be used.
                return count, None
        usable = len(shown) == count == len(set(shown))
        # A stream that may reorder frames, but whose packets claim to be shown as they are decoded, is suspect.
        if usable and reordered and shown == decoded:
            usable = self._shown_in_order()
        return count, sorted(shown) if usable else None

    def _shown_in_order(self) -> bool:
        """Whether the first frames come out of the decoder with increasing time stamps, as they must."""
        with self._open() as container:
            stamps = [frame.pts for frame in islice(self._stepped(self._decoder(container), 0), _FRAMES_TO_TRUST)]
        return all(a is not None and b is not None and a < b for a, b in pairwise(stamps))

    def _open(self) -> InputContainer:
        try:
            return av.open(str(self.path))
        except FileNotFoundError as error:
            raise DataError(f"{self.path} does not exist; give the path of a video file.") from error
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise DataError(
                f"{self.path} cannot be opened as a video ({reason_of(error)}); give a file that FFmpeg can read."
            ) from error

    def _decoded(self, container: InputContainer, start: int) -> Iterator[VideoFrame]:
        """The decoded frames from index `start` on."""
        if start == 0:
            yield from self._stepped(self._decoder(container), 0)
            return
        count, stamps = self._index
        if start >= count:
            return
        if stamps is not None:
            decoder = self._decoder(container, stamps[start])
            if (first := _reached(decoder, stamps[start])) is not None:
                yield first
                yield from self._stepped(decoder, start + 1)
                return
        # The time stamps do not lead there, so count from the beginning instead, on a fresh decoder.
        with self._open() as fresh:
            yield from islice(self._stepped(self._decoder(fresh), 0), start, None)

    def _decoder(self, container: InputContainer, stamp: int | None = None) -> Iterator[VideoFrame]:
        """Decodes from the beginning, or from a key frame that should lie at or before a time stamp."""
        stream = _video_stream(container, self.path)
        stream.thread_type = "AUTO"
        if stamp is not None:
            # Where seeking fails the container stays at its beginning, and decoding from there is right as well.
            with suppress(av.error.FFmpegError, OSError):
                container.seek(stamp, stream=stream)
        return _sound_frames(container.demux(stream))

    def _stepped(self, decoder: Iterator[VideoFrame], index: int) -> Iterator[VideoFrame]:
        """What the decoder still yields; `index` is the number of the next frame, for the error message."""
        while True:
            try:
                frame = next(decoder, None)
            except (av.error.FFmpegError, OSError) as error:
                raise self._damaged(index, reason_of(error)) from error
            if frame is None:
                return
            if frame.is_corrupt:
                raise self._damaged(index, "its data are damaged")
            yield frame
            index += 1

    def _damaged(self, index: int, reason: str) -> DataError:
        return DataError(
            f"Frame {index} of {self.path} cannot be decoded ({reason}); re-encode the video or cut it before there."
        )

    def _of_one_size(self, pixels: Frame, index: int) -> Frame:
        if pixels.shape[:2] != self.size:
            raise DataError(
                f"Frame {index} of {self.path} is {pixels.shape[1]}x{pixels.shape[0]} but the first frame is "
                f"{self.size[1]}x{self.size[0]}; split the video where its size changes."
            )
        return pixels


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    stream: Any = container.streams.best("video")
    if stream is None or stream.codec_context is None or stream.codec_context.name in _TEXT_CODECS:
        raise DataError(f"{path} holds no video that can be decoded; give a video file.")
    found: VideoStream = stream
    return found


def _sound_frames(packets: Iterator[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    """The frames in the packets, without a last packet that is cut off: where a recording broke off, it ends."""
    held: Packet[VideoStream] | None = None
    for packet in packets:
        if held is not None and packet.size > 0:  # not the last after all
            yield from held.decode()
        held = packet if packet.is_corrupt else None
        if held is None:
            yield from packet.decode()


def _reached(decoder: Iterator[VideoFrame], stamp: int) -> VideoFrame | None:
    """The frame with this time stamp; None if the decoder does not pass it in order."""
    previous: int | None = None
    # Damage on the way is told by decoding from the start, which can count the frames.
    with suppress(av.error.FFmpegError, OSError):
        for frame in decoder:
            shown = frame.pts
            if shown is None or shown > stamp or (previous is not None and shown <= previous) or frame.is_corrupt:
                return None
            if shown == stamp:
                return frame
            previous = shown
    return None


@dataclass(frozen=True)
class Footage:
    """Frames (H, W, 3) RGB, each with its time stamp in units of `time_base`, and what the copy takes over."""

    frames: Iterator[tuple[Frame, int]]
    rate: Fraction = _FOLDER_RATE
    time_base: Fraction = 1 / _FOLDER_RATE
    pixel_aspect: Fraction = Fraction(1)
    primaries: int = BT709
    transfer: int = BT709
    video: Path | None = None

    def quickened(self, times: int) -> Footage:
        """With so many times the frames."""
        return replace(self, rate=self.rate * times, time_base=self.time_base / times)


@contextmanager
def open_footage(source: Path) -> Iterator[Footage]:
    """A video or a folder of frames, open as long as the block lasts.

    Raises:
        DataError: it cannot be read, then or while its frames are taken.
    """
    if source.is_dir():
        yield Footage((pixels, index) for index, pixels in enumerate(FrameFolder(source).frames()))
        return
    with open_container(source) as container:
        stream = container.streams.best("video")
        # FFmpeg's "tty" draws text files as pictures.
        if not isinstance(stream, VideoStream) or stream.codec_context is None or container.format.name == "tty":
            raise DataError(f"{source} holds no video that can be decoded; give a video or a folder of frames.")
        stream.thread_type = "AUTO"
        decoded = reading(container.decode(stream), source)
        first = next(decoded, None)
        if first is None:
            raise DataError(f"{source} holds no decodable frame; give a video that plays.")
        codec, aspect = stream.codec_context, stream.sample_aspect_ratio or Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or _FOLDER_RATE
        base = stream.time_base or 1 / rate
        step, start = round(1 / (rate * base)), round(clock_start(container) / base)
        yield Footage(
            frames=reading(_stamped(chain([first], decoded), step, start, source), source),
            rate=rate,
            time_base=base,
            pixel_aspect=1 / aspect if quarter_turns(first) % 2 else aspect,
            primaries=BT709 if codec.color_primaries in (0, UNSPECIFIED) else codec.color_primaries,
            transfer=BT709 if codec.color_trc in (0, UNSPECIFIED) else codec.color_trc,
            video=source,
        )


def open_container(source: Path) -> InputContainer:
    """A video, opened.

    Raises:
        DataError: it is none.
    """
    try:
        return av.open(str(source))
    except (FFmpegError, OSError) as error:
        raise DataError(
            f"{source} cannot be opened as a video ({reason_of(error)}); give a video that plays."
        ) from error


def reading(items: Iterator[_Item], source: Path) -> Iterator[_Item]:
    """The items; what fails while reading is told apart from what fails while writing."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            raise DataError(
                f"{source} is damaged ({reason_of(error)}); re-encode it or cut it before there."
            ) from error
        yield item


def clock_start(container: InputContainer) -> Fraction:
    """Seconds on the source's clock that become zero on the target's."""
    return Fraction(container.start_time or 0, av.time_base)


def _stamped(frames: Iterator[VideoFrame], step: int, start: int, source: Path) -> Iterator[tuple[Frame, int]]:
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
