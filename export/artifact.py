"""The file that leaves the house, or the folder that is one: how it is put in its place, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Artifact"]


@dataclass(frozen=True)
class Artifact:
    """One exported file, or folder where the format is one.

    Attributes:
        path: where it lies.
        format: "onnx" and the like.
        precision: "fp32" and the like.
        bytes: its size.
        sha256: of its bytes, hexadecimal; see `sha256_of`.
        seconds: the export took.
    """

    path: Path
    format: str
    precision: str
    bytes: int
    sha256: str
    seconds: float
