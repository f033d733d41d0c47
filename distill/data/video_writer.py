"""What is upscaled, written: a video with its source's sound, or a folder of frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from distill.data.clips import Frame
from distill.data.decoded import open_video, reading
from distill.data.video import BT709, Footage, clock_start
from distill.errors import DataError

__all__ = ["VIDEO_SUFFIXES", "FolderWriter", "VideoWriter", "video_writer"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
_ENCODER_OPTIONS = {"crf": "16", "preset": "medium"}


@contextmanager
def video_writer(path: Path, footage: Footage) -> Iterator[VideoWriter]:
    """A writer of a video like the footage, with its sound, open as long as the block lasts."""
    with ExitStack() as stack:
        writer = VideoWriter(stack.enter_context(av.open(str(path), "w")), footage)
        if footage.video is not None:
            writer.add_sound(stack.enter_context(open_video(footage.video)), footage.video, path.suffix)
        yield writer


class FolderWriter:
    """PNG frames, numbered from 1."""

    audio = False

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        folder.mkdir()

    def write(self, pixels: Frame, stamp: int) -> None:
        self._count += 1
        Image.fromarray(pixels).save(self._folder / f"{self._count:06d}.png")

    def finish(self) -> None:
        pass


class VideoWriter:
    """H.264 and, packet by packet, the source's sound."""

    audio = False

    def __init__(self, output: OutputContainer, footage: Footage) -> None:
        self._output, self._time_base = output, footage.time_base
        self._sound: Iterator[tuple[Fraction, Packet[AudioStream]]] = iter(())
        self._stream = output.add_stream("libx264", rate=footage.rate, options=dict(_ENCODER_OPTIONS))
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.time_base, codec.sample_aspect_ratio = footage.time_base, footage.pixel_aspect
        codec.colorspace, codec.color_range = BT709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = footage.primaries, footage.transfer

    def add_sound(self, container: InputContainer, source: Path, suffix: str) -> None:
        """Take the main sound track over; the container is another one of the source, read at the writer's pace."""
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream) or stream.codec_context is None:
            return
        try:
            copy = self._output.add_stream_from_template(stream)
        except ValueError as error:
            others = " or ".join(other for other in VIDEO_SUFFIXES if other != suffix)
            raise DataError(
                f"The sound of {source} ({stream.codec_context.name}) cannot be copied into a {suffix} file; give a "
                f"target ending in {others}, or a source with AAC sound."
            ) from error
        self._sound = _copied(reading(container.demux(stream), "Sound packet", source), copy, clock_start(container))
        self.audio = True

    def write(self, pixels: Frame, stamp: int) -> None:
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
