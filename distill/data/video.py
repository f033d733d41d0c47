"""Videos as footage: clips for training and judging, and frames with their times for upscaling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame

from distill.data.clips import Clip, Frame, FrameFolder
from distill.data.decoded import UNSPECIFIED, checked, decode, open_video, quarter_turns, upright, video_stream
from distill.errors import DataError

__all__ = ["BT709", "Footage", "VideoClip", "clock_start", "open_footage"]

_FOLDER_RATE = Fraction(25)

BT709 = 1  # of ITU-T H.273

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
            with open_video(self.path) as container:
                announced = video_stream(container, self.path).frames
            if announced > 0:
                return announced
        return self._index[0]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        if start < 0:
            raise DataError(f"Frame {start} of {self.path} was asked for; frames are counted from 0.")
        if stop is not None and stop <= start:
            return
        with open_video(self.path) as container:
            decoded = self._decoded(container, start)
            if stop is not None:
                decoded = islice(decoded, stop - start)
            for pixels, _ in upright(decoded, self.path, start, self.size):
                yield pixels

    @cached_property
    def _header(self) -> tuple[tuple[int, int], Fraction | None]:
        """Size as shown and frame rate; decodes one frame, which alone knows how it is turned."""
        with open_video(self.path) as container:
            stream = video_stream(container, self.path)
            rate = stream.average_rate or stream.guessed_rate
            for frame in self._decoded(container, 0):
                height, width = frame.height, frame.width
                if quarter_turns(frame) % 2:
                    height, width = width, height
                return (height, width), rate
        raise _without_frames(self.path)

    @cached_property
    def _index(self) -> tuple[int, list[int] | None]:
        """The number of frames, and their time stamps in order of showing or None if those cannot be trusted.

        Only the container is read: nothing is decoded.
        """
        count, shown, decoded = 0, [], []
        with open_video(self.path) as container:
            stream = video_stream(container, self.path)
            reordered = bool(stream.codec_context.has_b_frames)
            try:
                for packet in container.demux(stream):
                    if packet.size == 0 or packet.is_discard:
                        continue
                    count += 1
                    if packet.pts is not None:
                        shown.append(packet.pts)
                        decoded.append(packet.dts)
            except (FFmpegError, OSError):
                # What was counted before the damage can still be used.
                return count, None
        usable = len(shown) == count == len(set(shown))
        # A stream that may reorder frames, but whose packets claim to be shown as they are decoded, is suspect.
        if usable and reordered and shown == decoded:
            usable = self._shown_in_order()
        return count, sorted(shown) if usable else None

    def _shown_in_order(self) -> bool:
        """Whether the first frames come out of the decoder with increasing time stamps, as they must."""
        with open_video(self.path) as container:
            stamps = [frame.pts for frame in islice(checked(self._decoder(container), self.path), _FRAMES_TO_TRUST)]
        return all(a is not None and b is not None and a < b for a, b in pairwise(stamps))

    def _decoded(self, container: InputContainer, start: int) -> Iterator[VideoFrame]:
        """The decoded frames from index `start` on."""
        if start == 0:
            yield from checked(self._decoder(container), self.path)
            return
        count, stamps = self._index
        if start >= count:
            return
        if stamps is not None:
            decoder = self._decoder(container, stamps[start])
            if (first := _reached(decoder, stamps[start])) is not None:
                yield first
                yield from checked(decoder, self.path, start + 1)
                return
        # The time stamps do not lead there, so count from the beginning instead, on a fresh decoder.
        with open_video(self.path) as fresh:
            yield from islice(checked(self._decoder(fresh), self.path), start, None)

    def _decoder(self, container: InputContainer, stamp: int | None = None) -> Iterator[VideoFrame]:
        """Decodes from the beginning, or from a key frame that should lie at or before a time stamp."""
        stream = video_stream(container, self.path)
        if stamp is not None:
            # Where seeking fails the container stays at its beginning, and decoding from there is right as well.
            with suppress(FFmpegError, OSError):
                container.seek(stamp, stream=stream)
        return decode(container, stream)


def _reached(decoder: Iterator[VideoFrame], stamp: int) -> VideoFrame | None:
    """The frame with this time stamp; None if the decoder does not pass it in order."""
    previous: int | None = None
    # Damage on the way is told by decoding from the start, which can count the frames.
    with suppress(FFmpegError, OSError):
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
    with open_video(source) as container:
        stream = video_stream(container, source)
        decoded = checked(decode(container, stream), source)
        first = next(decoded, None)
        if first is None:
            raise _without_frames(source)
        codec, aspect = stream.codec_context, stream.sample_aspect_ratio or Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or _FOLDER_RATE
        base = stream.time_base or 1 / rate
        step, start = round(1 / (rate * base)), round(clock_start(container) / base)
        yield Footage(
            frames=_increasing(upright(chain([first], decoded), source), step, start),
            rate=rate,
            time_base=base,
            pixel_aspect=1 / aspect if quarter_turns(first) % 2 else aspect,
            primaries=BT709 if codec.color_primaries in (0, UNSPECIFIED) else codec.color_primaries,
            transfer=BT709 if codec.color_trc in (0, UNSPECIFIED) else codec.color_trc,
            video=source,
        )


def clock_start(container: InputContainer) -> Fraction:
    """Seconds on the source's clock that become zero on the target's."""
    return Fraction(container.start_time or 0, av.time_base)


def _increasing(frames: Iterator[tuple[Frame, int | None]], step: int, start: int) -> Iterator[tuple[Frame, int]]:
    """Pixels with time stamps that increase, as encoders need; a missing one follows at the frame rate."""
    last: int | None = None
    for pixels, shown in frames:
        stamp = shown - start if shown is not None else 0 if last is None else last + step
        last = stamp if last is None else max(stamp, last + 1)
        yield pixels, last


def _without_frames(path: Path) -> DataError:
    return DataError(f"{path} holds no decodable video frame; give a video that plays.")
