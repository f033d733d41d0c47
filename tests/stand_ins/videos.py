"""Videos of known colours, times and sound, for the tests that read and write them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
TAGS = {"bt601": 6, "bt709": 1}


def yuv_of(rgb: tuple[int, int, int], matrix: str, full: bool) -> list[int]:
    """ITU-R BT.601 / BT.709, written out."""
    red, green, blue = (value / 255 for value in rgb)
    kr, kb = LUMA_WEIGHTS[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    levels = (255 * y, 128 + 255 * cb, 128 + 255 * cr) if full else (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr)
    return [min(round(level), 255) for level in levels]


def rgb_of(frame: VideoFrame) -> np.ndarray:
    """Mean RGB of a BT.709 limited-range 4:2:0 frame, from its planes, without FFmpeg's scaler."""
    planes = frame.to_ndarray().astype(float)
    height, width = frame.height, frame.width
    y = (planes[:height].mean() - 16) / 219
    chroma = planes[height:].reshape(2, height // 2, width // 2).mean((1, 2))
    cb, cr = (chroma - 128) / 224
    kr, kb = LUMA_WEIGHTS["bt709"]
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.array([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue]) * 255


def plain_frame(rgb: tuple[int, int, int], matrix: str = "bt601", full: bool = False) -> VideoFrame:
    frame = VideoFrame(48, 32, "yuv420p")
    for plane, level in zip(frame.planes, yuv_of(rgb, matrix, full), strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    return frame


def moving_frames(count: int, width: int = 48, height: int = 32) -> list[VideoFrame]:
    """A bright bar that moves by two pixels a frame over a gradient."""
    frames = []
    for index in range(count):
        picture = np.tile(np.linspace(30, 120, width, dtype=np.uint8)[None, :, None], (height, 1, 3))
        picture[:, 2 * index % width : 2 * index % width + 4] = (230, 180, 60)
        frames.append(VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
    return frames


def write_video(
    path: Path,
    frames: list[VideoFrame],
    *,
    encoder: str = "libx264",
    rate: Fraction = Fraction(25),
    stamps: list[int] | None = None,
    time_base: Fraction | None = None,
    sound: str | None = None,
    matrix: int = 2,
    color_range: int = 0,
    aspect: Fraction | None = None,
    sound_start: float = 0,
) -> Path:
    """Encode near-losslessly; the sound is a 440 Hz tone half a second longer."""
    with av.open(str(path), "w") as output:
        options = {"crf": "1", "preset": "ultrafast", "bf": "2"} if encoder == "libx264" else {}
        video = output.add_stream(encoder, rate=rate, options=options)
        video.width, video.height, video.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        codec = video.codec_context
        codec.time_base = time_base or 1 / rate
        codec.colorspace, codec.color_range = matrix, color_range
        if aspect is not None:
            codec.sample_aspect_ratio = aspect
        tone = output.add_stream(sound, rate=44100, layout="mono") if sound else None
        for index, frame in enumerate(frames):
            picture = frame.reformat(format="yuv420p")
            picture.pts = stamps[index] if stamps else index
            picture.time_base = codec.time_base
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
        if tone is not None:
            write_tone(output, tone, float(len(frames) / rate) + 0.5, sound_start)
    return path


def write_tone(output: av.container.OutputContainer, stream: av.AudioStream, seconds: float, start: float = 0) -> None:
    count = round(seconds * 44100)
    wave = (8000 * np.sin(2 * math.pi * 440 / 44100 * np.arange(count))).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 44100, round(start * 44100), Fraction(1, 44100)
    resampler = av.AudioResampler(stream.codec_context.format or "s16", "mono", 44100, stream.frame_size or 1024)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def decoded(path: Path) -> list[VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.video[0]))


def times(path: Path) -> list[float]:
    return [float(frame.pts * frame.time_base) for frame in decoded(path)]


def sound_packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.dts is not None]
