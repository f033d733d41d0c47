"""Decoded video frames as upright RGB pixels: one conversion for training, evaluation and upscaling alike."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

__all__ = ["UNSPECIFIED", "UprightRgb", "quarter_turns"]

UNSPECIFIED = 2
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

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
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
