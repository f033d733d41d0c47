"""The file that leaves the house: what is known of it, and what it says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.errors import InputError

__all__ = ["Artifact", "export_line", "read_metadata", "sha256_of"]

_OWN_KEYS = {"distill_vsr_version", "scale", "window"}


@dataclass(frozen=True)
class Artifact:
    """One exported file.

    Attributes:
        path: where it lies.
        format: "onnx".
        bytes: its size.
        sha256: of its bytes, hexadecimal.
        metadata: what stands in the file itself, as `read_metadata` gives it back.
        seconds: the export took, checks included.
    """

    path: Path
    format: str
    bytes: int
    sha256: str
    metadata: Mapping[str, str]
    seconds: float


def export_line(artifact: Artifact, max_abs: float) -> str:
    """The line an export ends with, such as `onnx  ok  1.2 s  student.onnx (0.4 MB)  max|diff| 2e-06`.

    Args:
        artifact: the exported file.
        max_abs: largest difference to PyTorch, in units of the colour range [0, 1].
    """
    file = f"{artifact.path} ({artifact.bytes / 1e6:.1f} MB)"
    return f"{artifact.format}  ok  {artifact.seconds:.1f} s  {file}  max|diff| {max_abs:.0e}"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """What an exported .onnx file says of itself.

    Returns:
        `network`, `keywords` (JSON), `degradation`, `provenance` as given at export; `scale`, `window`,
        `colour_range` ("RGB 0..1"), `layout` ("N T C H W"), `precision`, `distill_vsr_version`, `torch_version`;
        `size_multiple` where height and width are free, else `size` ("HxW").

    Raises:
        InputError: the file is missing, is not ONNX, or was not written by this project.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    wanted = "give the .onnx file that `distill export` wrote."
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {wanted}") from error
    except DecodeError as error:
        raise InputError(f"{path} is not an ONNX model: {wanted}") from error
    if not (model.ir_version and model.graph.node):  # short texts and empty files decode as empty models
        raise InputError(f"{path} is not an ONNX model: {wanted}")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if not metadata.keys() >= _OWN_KEYS:
        raise InputError(f"{path} is an ONNX model that distill-vsr did not write: {wanted}")
    return metadata
