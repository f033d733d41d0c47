"""Exported .tflite files, run by LiteRT on this host's CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import CheckFailed, InputError
from export.interfaces import OWN_KEYS, Array, Program
from export.quiet import held_back
from export.to_litert.conversion import METADATA, SIGNATURE

__all__ = ["LiteRTProgram", "load"]

_WANTED = "give the .tflite file that `distill export` wrote."


class LiteRTProgram(Program):
    """An interpreter.

    Raises:
        InputError: the file is not of this format, was not written by this project or does not load.
    """

    runtime = "litert"
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
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"LiteRT cannot load {path} ({reason}): export it again.") from error
        self.metadata = _metadata(path, content)
        parts = sum(each["op_name"] == "DELEGATE" for each in interpreter._get_ops_details())
        self.unit_got = {0: "built-in kernels", 1: "XNNPACK"}.get(parts, f"XNNPACK, in {parts} parts")
        self._content = content  # the interpreter reads the weights where they are
        self._run = interpreter.get_signature_runner(SIGNATURE)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        last = {name: np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for name, array in inputs.items()}
        try:
            outputs = self._run(**last)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise CheckFailed(f"LiteRT fails on {shapes}: {reason}") from error
        return {name: array.transpose(0, 3, 1, 2) for name, array in outputs.items()}


def load(path: Path, threads: int | None = None) -> LiteRTProgram:
    """See `export.interfaces.Format.open`."""
    return LiteRTProgram(path, threads)


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
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        if entry.Name() == METADATA.encode():
            metadata: dict[str, str] = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
            if metadata.keys() >= OWN_KEYS:
                return metadata
    raise InputError(f"{path} is a LiteRT model that this version of distill-vsr did not write: {_WANTED}")
