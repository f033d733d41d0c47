"""The sample clips that are shipped, so that the first training needs no footage."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["sample_clips"]


def sample_clips(split: Literal["train", "held_out"]) -> Path:
    """The folder of the shipped clips: three of 40 frames to train on, two of 16 held out, all 432x240.

    Their sources and licences stand in LICENCES.md beside the folders.
    """
    return Path(__file__).parent / "sample_clips" / split
