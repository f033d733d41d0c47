"""Exported .pte files, run by ExecuTorch on this host's CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from distill.errors import InputError
from export.program import Array, Program, check_own, first_line
from export.quiet import held_back
from export.to_executorch.conversion import METADATA

__all__ = ["ExecuTorchProgram"]

_WANTED = "give the .pte file that `distill export` wrote."


class ExecuTorchProgram(Program):
    """A program. All in a process share one pool of threads; each run sets its size.

    Raises:
        InputError: the file is not of this format, was not written by this project or does not load.
    """

    runtime, runtime_title = "executorch", "ExecuTorch"
    unit_asked = "XNNPACK"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        # executorch.runtime would load the compiler with it, which takes seconds and is not quiet
        with held_back():
            from executorch.extension.pybindings import _C

            _C._threadpool_get_thread_count()  # makes the pool, which tells what it reads

        self._content = _content(path)  # the runtime reads the weights where they are
        self._library, self._threads = _C, threads
        self.runtime_version = version("executorch")
        try:
            with held_back():
                self._module = _C._load_for_executorch_from_buffer(self._content)
                methods = self._module.method_names()  # reads the file
                self.metadata = self._read_metadata() if METADATA in methods else {}
        except (RuntimeError, ValueError) as error:
            raise InputError(f"ExecuTorch cannot load {path} ({first_line(error)}): export it again.") from error
        check_own(self.metadata, path, "an ExecuTorch program", _WANTED)
        self._inputs: list[str] = json.loads(self.metadata["inputs"])
        self._outputs: list[str] = json.loads(self.metadata["outputs"])
        parts = self._content.count(b"XnnpackBackend")  # each that is left to it names it
        self.unit_got = {0: "portable kernels", 1: "XNNPACK"}.get(parts, f"XNNPACK, in {parts} parts")

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._threads is not None and self._library._threadpool_get_thread_count() != self._threads:
            with held_back():
                self._library._unsafe_reset_threadpool(self._threads)
        tensors = tuple(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self._inputs)
        outputs = self._module.run_method("forward", tensors)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, outputs, strict=True)}

    def _read_metadata(self) -> dict[str, str]:
        metadata: dict[str, str] = json.loads(self._module.run_method(METADATA, ())[0])
        return metadata


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {_WANTED}") from error
    if content[4:6] != b"ET":
        raise InputError(f"{path} is not an ExecuTorch program: {_WANTED}")
    return content
