"""Make the clips that distill/data/sample_clips ships.

    python benchmarks/make_sample_clips.py SOURCES

SOURCES holds flutter/, openh264/ and udacity/ with the original files that LICENCES.md names. Stretches with texture
and motion are cropped to 9:5 and shrunk to 432x240 by Lanczos, which removes the artefacts of the original codec, and
encoded by x264 in one thread, so the same versions of PyAV and Pillow write the same bytes.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from distill.data import VideoClip, sample_clips

WIDTH, HEIGHT = 432, 240

# Near lossless; without mbtree, because with it the x264 inside PyAV 18.1 writes other bytes in every process.
ENCODER = {"crf": "8", "preset": "veryslow", "tune": "psnr", "x264-params": "mbtree=0"}


class Excerpt(NamedTuple):
    """Frames `start` to `start + frames` of a source, inside a box that is `shrink` times 432x240."""

    split: Literal["train", "held_out"]
    name: str
    source: str
    start: int
    frames: int
    left: int
    top: int
    shrink: float


EXCERPTS = (
    Excerpt("train", "butterfly", "flutter/butterfly.mp4", 150, 40, 360, 120, 2),
    Excerpt("train", "street", "openh264/VID_1920x1080_cavlc_temporal_direct.mp4", 0, 40, 480, 130, 3),
    Excerpt("train", "highway", "udacity/solidWhiteRight.mp4", 0, 40, 312, 80, 1.5),
    Excerpt("held_out", "flower", "openh264/VID_1280x720_cavlc_temporal_direct.mp4", 140, 16, 200, 140, 2),
    Excerpt("held_out", "road", "udacity/test_video.mp4", 0, 16, 60, 170, 2),
)


def write(excerpt: Excerpt, sources: Path) -> Path:
    """Write one clip and return its path."""
    path = sample_clips(excerpt.split) / f"{excerpt.name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = VideoClip(sources / excerpt.source)
    right, bottom = excerpt.left + round(WIDTH * excerpt.shrink), excerpt.top + round(HEIGHT * excerpt.shrink)
    if bottom > clip.size[0] or right > clip.size[1]:
        raise SystemExit(f"{excerpt.name}: the box ends at {right}x{bottom}, outside of {clip.size[1]}x{clip.size[0]}")
    rate = Fraction(round(clip.frame_rate or 25))
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=ENCODER)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 20
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.color_primaries = stream.codec_context.color_trc = 1  # BT.709
        for pixels in clip.frames(excerpt.start, excerpt.start + excerpt.frames):
            box = (excerpt.left, excerpt.top, right, bottom)
            small = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
            frame = av.VideoFrame.from_ndarray(np.asarray(small), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def main() -> None:
    """Write all clips and say how large they are."""
    parser = argparse.ArgumentParser(description="Make the sample clips that are shipped.")
    parser.add_argument("sources", type=Path, help="folder with flutter/, openh264/ and udacity/")
    sources = parser.parse_args().sources
    for excerpt in EXCERPTS:
        path = write(excerpt, sources)
        print(f"{path}: {VideoClip(path).length} frames, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
