"""Clips as streams of frames: video files, folders of frames, and the layouts of the usual benchmarks.

A frame is a (H, W, 3) uint8 RGB array. Nothing here holds more than one decoded frame at a time.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from distill.data.decoded import UprightRgb, quarter_turns
from distill.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "Clip", "Frame", "FrameFolder", "VideoClip", "natural_order"]

Frame = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

# FFmpeg would show any text file as a video of a text terminal.
_TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})

# Counting the packets of a file reads all of it; beyond this many bytes the container's word is taken.
_COUNTED_BYTES = 1 << 29

# Frames to decode before time stamps that look wrong are believed.
_FRAMES_TO_TRUST = 32


class Clip(ABC):
    """Consecutive frames of one size, read in order.

    Attributes:
        name: what reports call the clip; unique among the clips that were found together.
    """

    name: str

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, as shown (a rotated phone video counts as rotated).

        Raises:
            DataError: the clip cannot be read.
        """

    @property
    @abstractmethod
    def frame_rate(self) -> Fraction | None:
        """Frames per second on average; None where nothing says."""

    @property
    @abstractmethod
    def length(self) -> int:
        """How many frames the clip announces; damaged footage may yield fewer.

        Raises:
            DataError: the clip cannot be read.
        """

    @abstractmethod
    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames `start` to `stop` (excluded; None: to the end), in order, one at a time.

        Args:
            start: index of the first frame, from 0.
            stop: index after the last frame; beyond the end means the end.

        Yields:
            (H, W, 3) uint8 RGB arrays, contiguous, each one the caller's own.

        Raises:
            DataError: a frame cannot be read, or differs in size from the first.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


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
                f"{self.path} cannot be opened as a video ({_reason(error)}); give a file that FFmpeg can read."
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
                raise self._damaged(index, _reason(error)) from error
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


class FrameFolder(Clip):
    """A folder of images, one a frame, in natural order (frame2 before frame10), or an explicit list of images.

    Args:
        source: the folder, or the frames' paths in order.
        name: what reports call it; the folder's name unless given.

    Raises:
        DataError: the folder does not exist or holds no image, or the list is empty.
    """

    def __init__(self, source: str | Path | Sequence[Path], name: str | None = None) -> None:
        if isinstance(source, (str, Path)):
            folder = Path(source)
            self.paths = _images(folder)
        else:
            self.paths = list(source)
            if not self.paths:
                raise DataError("An empty list of frames was given; a clip needs at least one image.")
            folder = self.paths[0].parent
        self.name = folder.resolve().name if name is None else name

    @cached_property
    def size(self) -> tuple[int, int]:
        with self._image(self.paths[0]) as image:
            return image.height, image.width

    @property
    def frame_rate(self) -> Fraction | None:
        return None

    @property
    def length(self) -> int:
        return len(self.paths)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        if start < 0:
            raise DataError(f"Frame {start} of {self.name} was asked for; frames are counted from 0.")
        for path in self.paths[start:stop]:
            with self._image(path) as image:
                if (image.height, image.width) != self.size:
                    raise DataError(
                        f"{path} is {image.width}x{image.height} but {self.paths[0].name} is "
                        f"{self.size[1]}x{self.size[0]}; all frames of a folder must have one size."
                    )
                try:
                    yield _rgb(image)
                except (OSError, ValueError, SyntaxError) as error:
                    raise DataError(f"{path} is damaged ({_reason(error)}); replace or remove it.") from error

    def _image(self, path: Path) -> Image.Image:
        try:
            return Image.open(path)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing; {self.name} needs it as a frame.") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as an image; replace or remove it.") from error


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key of a path's name that takes runs of digits as numbers: frame2 before frame10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], path.name


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of frames.")
    images = (path for path in folder.iterdir() if _is_image(path))
    if paths := sorted(images, key=natural_order):
        return paths
    raise DataError(f"{folder} holds no frames; expected images named {', '.join(sorted(IMAGE_SUFFIXES))}.")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _rgb(image: Image.Image) -> Frame:
    """The picture as 8 bit RGB; 16 bit grey is scaled, which Pillow's own conversion would clip."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


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


def _reason(error: BaseException) -> str:
    """The cause without FFmpeg's error number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")
