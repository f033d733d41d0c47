"""Pictures of a page: colour maps, profiles, marks, and their embedding."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["HEAT_CSS", "embedded", "heat", "marked", "profile"]

Picture = NDArray[np.uint8]

_HEAT = np.array(
    [(0, 0, 4), (50, 10, 95), (120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164)],
    dtype=np.float64,
)  # dark to bright at an even pace, so that it also reads in grey
HEAT_CSS = f"linear-gradient(90deg, {', '.join(f'rgb({r:.0f} {g:.0f} {b:.0f})' for r, g, b in _HEAT)})"
"""The same colours as a style sheet has them, from left to right."""
_PROFILE_ROWS = 6  # pixels of height that each moment gets


def heat(values: NDArray[np.floating], top: float) -> Picture:
    """Values from 0 (black) to `top` (bright yellow) as colours, (H, W) -> (H, W, 3); beyond it the brightest."""
    place = np.clip(values / max(top, 1e-12), 0, 1) * (len(_HEAT) - 1)
    place = np.round(place * 16) / 16  # fewer colours make a smaller file, and none that the eye misses
    lower = np.minimum(place.astype(np.intp), len(_HEAT) - 2)
    share = (place - lower)[..., None]
    colours: Picture = np.round(_HEAT[lower] * (1 - share) + _HEAT[lower + 1] * share).astype(np.uint8)
    return colours


def profile(frames: NDArray[np.uint8], row: int) -> Picture:
    """One line of pixels over time, the first moment on top: (T, H, W, 3) -> (6 T, W, 3)."""
    return frames[:, row].repeat(_PROFILE_ROWS, 0)


def marked(frame: Picture, boxes: Sequence[tuple[int, int, int, int, tuple[int, int, int]]]) -> Picture:
    """A frame with frames drawn into it.

    Args:
        frame: (H, W, 3).
        boxes: top, left, height, width, colour; a box of height 1 is a line.
    """
    drawn = frame.copy()
    for top, left, height, width, colour in boxes:
        bottom, right = top + height, left + width
        for rows, columns in (
            (slice(max(top - 2, 0), top), slice(left, right)),
            (slice(bottom, bottom + 2), slice(left, right)),
            (slice(max(top - 2, 0), bottom + 2), slice(max(left - 2, 0), left)),
            (slice(max(top - 2, 0), bottom + 2), slice(right, right + 2)),
        ):
            drawn[rows, columns] = colour
    return drawn


def embedded(picture: Picture, *, exact: bool = True) -> str:
    """A picture as the address that holds it, WebP: without loss where its pixels are evidence, else small."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    if exact:
        image.save(buffer, format="WEBP", lossless=True, method=4)
    else:
        image.save(buffer, format="WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
