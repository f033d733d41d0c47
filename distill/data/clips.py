"""Clips as streams of frames: video files, folders of frames, and the layouts of the usual benchmarks.

A frame is a (H, W, 3) uint8 RGB array. Nothing here holds more than one decoded frame at a time.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "Clip", "Frame", "FrameFolder", "natural_order", "reason_of"]

Frame = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


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
                    raise DataError(f"{path} is damaged ({reason_of(error)}); replace or remove it.") from error

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


def reason_of(error: BaseException) -> str:
    """The cause without FFmpeg's error number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")
