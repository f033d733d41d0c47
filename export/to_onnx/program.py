"""Exported ONNX files, run by ONNX Runtime on this host's CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distill.errors import CheckFailed, InputError
from export.interfaces import OWN_KEYS, Array, Program
from export.to_onnx.session import open_session

__all__ = ["OnnxProgram", "load", "read_metadata"]


class OnnxProgram(Program):
    """A session.

    Raises:
        InputError: the file is not ONNX, was not written by this project or does not load.
    """

    runtime = "onnxruntime"
    unit_asked = "CPUExecutionProvider"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        self.metadata = read_metadata(path)
        self.runtime_version = str(onnxruntime.__version__)
        try:
            self._session = open_session(path, threads)
        except Exception as error:  # the runtime's exceptions have no other base
            reason = str(error).splitlines()[0]
            raise InputError(f"ONNX Runtime cannot load {path} ({reason}): export it again.") from error
        self.unit_got = self._session.get_providers()[0]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise CheckFailed(f"ONNX Runtime fails on {shapes}: {reason}") from error


def load(path: Path, threads: int | None = None) -> OnnxProgram:
    """See `export.interfaces.Format.open`."""
    return OnnxProgram(path, threads)


def read_metadata(path: Path) -> dict[str, str]:
    """What an exported .onnx file says of itself, see `export.interfaces.Order.facts`.

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
    if not metadata.keys() >= OWN_KEYS:
        raise InputError(f"{path} is an ONNX model that this version of distill-vsr did not write: {wanted}")
    return metadata
