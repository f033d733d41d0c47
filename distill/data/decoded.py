"""Videos opened, decoded and turned into upright RGB pixels: one way for training, evaluation and upscaling alike."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from distill.data.clips import Frame, reason_of
from distill.errors import DataError

__all__ = [
    "UNSPECIFIED",
    "UprightRgb",
    "checked",
    "decode",
    "open_video",
    "quarter_turns",
    "reading",
    "upright",
    "video_stream",
]

_Item = TypeVar("_Item")

UNSPECIFIED = 2

# FFmpeg would show any text file as a video of a text terminal.
_TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})

# Numbers of ITU-T H.273, which every container uses, and the names FFmpeg's scaler has for the matrices.
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}


class UprightRgb:
    """Decoded frames -> (H, W, 3) uint8 RGB by the matrix and range they are tagged with, turned as they are shown.

    A filter graph, because a frame's own `to_ndarray` ignores the tags before PyAV 17, darkens by one level, and makes
    2x2 blocks of the chroma, which upscaling would enlarge. One object serves the frames of one video, in order.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._graph = Graph()

    def __call__(self, frame: VideoFrame) -> Frame:
        turns = quarter_turns(frame)
        # Untagged video is taken as players take it: BT.709 if it is high definition, else BT.601.
        guess = "bt709" if frame.width >= 1280 or frame.height > 576 else "bt601"
        matrix = _MATRICES.get(frame.colorspace, guess)
        scope = "full" if frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") else "limited"
        key = (frame.format.name, frame.width, frame.height, matrix, scope)
        if key != self._key:
            self._key, self._graph = key, Graph()
            start = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
            options = f"in_color_matrix={matrix}:in_range={scope}:flags=bicubic+accurate_rnd+full_chroma_int"
            scaled = self._graph.add("scale", options)
            self._graph.link_nodes(start, scaled, self._graph.add("format", "rgb24"), self._graph.add("buffersink"))
            self._graph.configure()
        frame.colorspace, frame.color_range = UNSPECIFIED, 0  # told to the scaler above, and not to the buffer
        self._graph.vpush(frame)
        pixels = self._graph.vpull().to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(pixels, turns))


def quarter_turns(frame: VideoFrame) -> int:
    """Quarter turns counter-clockwise that bring a frame upright, as the phone that took it noted."""
    return round(frame.rotation / 90) % 4


def open_video(path: Path) -> InputContainer:
    """A video file, opened; the caller closes it.

    Raises:
        DataError: it does not exist or FFmpeg cannot read it.
    """
    try:
        return av.open(str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give the path of a video file.") from error
    except (FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be opened as a video ({reason_of(error)}); give a file that FFmpeg can read."
        ) from error


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The main pictures of a file.

    Raises:
        DataError: it has none, or none that can be decoded.
    """
    stream: Any = container.streams.best("video")
    if stream is None or stream.codec_context is None or stream.codec_context.name in _TEXT_CODECS:
        raise DataError(f"{path} holds no video that can be decoded; give a video file.")
    found: VideoStream = stream
    return found


def decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames from where the container stands, without a last packet that is cut off: a recording broke off there.

    Raises:
        FFmpegError: the data are damaged; `checked` says so to the user.
    """
    stream.thread_type = "AUTO"
    doubtful: Packet[VideoStream] | None = None
    for packet in container.demux(stream):
        if doubtful is not None and packet.size > 0:  # not the last after all
            yield from doubtful.decode()
        doubtful = packet if packet.is_corrupt else None
        if doubtful is None:
            yield from packet.decode()


def checked(frames: Iterator[VideoFrame], path: Path, index: int = 0) -> Iterator[VideoFrame]:
    """The frames as long as they are whole; `index` is the number of the first.

    Raises:
        DataError: one is damaged.
    """
    for number, frame in enumerate(reading(frames, "Frame", path, index), index):
        if frame.is_corrupt:
            raise _damaged("Frame", number, path, "it was decoded with errors")
        yield frame


def upright(
    frames: Iterator[VideoFrame], path: Path, index: int = 0, size: tuple[int, int] | None = None
) -> Iterator[tuple[Frame, int | None]]:
    """Whole frames as upright pixels, each with its time stamp if it has one.

    Args:
        frames: what `checked` yields.
        path: of the video, for errors.
        index: the number of the first frame.
        size: height and width that every frame must have; None is those of the first.

    Raises:
        DataError: a frame cannot be converted, or has another size.
    """
    to_rgb = UprightRgb()
    converted = ((to_rgb(frame), frame.pts) for frame in frames)
    for number, (pixels, stamp) in enumerate(reading(converted, "Frame", path, index), index):
        height, width = pixels.shape[:2]
        size = size or (height, width)
        if (height, width) != size:
            raise DataError(
                f"Frame {number} of {path} is {width}x{height} but the first frame is {size[1]}x{size[0]}; "
                "split the video where its size changes."
            )
        yield pixels, stamp


def reading(items: Iterator[_Item], part: str, path: Path, index: int = 0) -> Iterator[_Item]:
    """The items; what fails while reading is told apart from what fails while writing.

    Args:
        items: read from the file as they are taken.
        part: what one is called in errors, such as "Frame".
        path: of the file, for errors.
        index: the number of the first item.

    Raises:
        DataError: an item cannot be read.
    """
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            raise _damaged(part, index, path, reason_of(error)) from error
        yield item
        index += 1


def _damaged(part: str, index: int, path: Path, reason: str) -> DataError:
    return DataError(f"{part} {index} of {path} is damaged ({reason}); re-encode the video or cut it before there.")
