"""Exported ONNX files, run by ONNX Runtime on this host's CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import InputError
from export.program import Array, Program, check_own, first_line
from export.to_onnx.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OnnxProgram", "read_model"]

_CALLED, _WANTED = "an ONNX model", "give the .onnx file that `distill export` wrote."


class OnnxProgram(Program):
    """A session.

    Args:
        path: an .onnx file, or an .ort file made of one.
        threads: that compute together; None leaves the choice to the runtime.
        without: names of graph optimisers that are switched off.

    Raises:
        InputError: the file is not ONNX, was not written by this project or does not load.
    """

    runtime, runtime_title = "onnxruntime", "ONNX Runtime"
    unit_asked = "CPUExecutionProvider"

    def __init__(self, path: Path, threads: int | None = None, *, without: Sequence[str] = ()) -> None:
        import onnxruntime

        self.runtime_version = str(onnxruntime.__version__)
        try:
            self._session = open_session(path, threads, without=without)
        except Exception as error:  # the runtime's exceptions have no other base
            read_model(path)  # which says so where it is none of ours
            raise InputError(f"ONNX Runtime cannot load {path} ({first_line(error)}): export it again.") from error
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        check_own(self.metadata, path, _CALLED, _WANTED)
        self.unit_got = self._session.get_providers()[0]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


def read_model(path: Path) -> ModelProto:
    """What stands in an exported .onnx file.

    Raises:
        InputError: the file is missing, is not ONNX, or was not written by this project.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model: ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {_WANTED}") from error
    except DecodeError as error:
        raise InputError(f"{path} is not an ONNX model: {_WANTED}") from error
    if not (model.ir_version and model.graph.node):  # short texts and empty files decode as empty models
        raise InputError(f"{path} is not an ONNX model: {_WANTED}")
    check_own({entry.key: entry.value for entry in model.metadata_props}, path, _CALLED, _WANTED)
    return model
