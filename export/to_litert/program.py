"""Exported .tflite files, run by LiteRT on this host's CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import InputError
from export.program import Array, Program, check_own, first_line
from export.quiet import held_back
from export.to_litert.conversion import METADATA, SIGNATURE

__all__ = ["LiteRTProgram"]

_WANTED = "give the .tflite file that `distill export` wrote."


class LiteRTProgram(Program):
    """An interpreter.

    Raises:
        InputError: the file is not of this format, was not written by this project or does not load.
    """

    runtime, runtime_title = "litert", "LiteRT"
    unit_asked = "XNNPACK"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        content = _content(path)
        self.runtime_version = version("ai-edge-litert")
        try:
            with held_back():
                interpreter = Interpreter(model_content=content, num_threads=threads)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot load {path} ({first_line(error)}): export it again.") from error
        self.metadata = _metadata(path, content)
        parts = sum(each["op_name"] == "DELEGATE" for each in interpreter._get_ops_details())
        self.unit_got = {0: "built-in kernels", 1: "XNNPACK"}.get(parts, f"XNNPACK, in {parts} parts")
        self._content = content  # the interpreter reads the weights where they are
        self._runner = interpreter.get_signature_runner(SIGNATURE)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        last = {name: np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for name, array in inputs.items()}
        return {name: array.transpose(0, 3, 1, 2) for name, array in self._runner(**last).items()}


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {_WANTED}") from error
    if content[4:8] != b"TFL3":
        raise InputError(f"{path} is not a LiteRT model: {_WANTED}")
    return content


def _metadata(path: Path, content: bytes) -> dict[str, str]:
    """What the file says of itself; the runtime has already found the file to be well formed."""
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(content, 0)
    metadata: dict[str, str] = {}
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        if entry.Name() == METADATA.encode():
            metadata |= json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    check_own(metadata, path, "a LiteRT model", _WANTED)
    return metadata
