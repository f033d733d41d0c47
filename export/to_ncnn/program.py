"""Exported .ncnn folders, run by ncnn on this host's CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.files import sha256_of
from export.program import OWN_KEYS, Array, Program, check_own
from export.quiet import held_back

__all__ = ["METADATA", "MODEL", "WEIGHTS", "NcnnProgram"]

MODEL, WEIGHTS, METADATA = "model.param", "model.bin", "metadata.json"
"""The files in the folder; the last holds what it says of itself, and the SHA-256 of the others."""

_WANTED = "give the .ncnn folder that `distill export` wrote."


class NcnnProgram(Program):
    """A network.

    The library may crash on files that are not as they were written, so their digests are compared first.

    Raises:
        InputError: the folder is incomplete, was changed, was not written by this project or does not load.
    """

    runtime = runtime_title = "ncnn"
    unit_asked = unit_got = "CPU"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import ncnn

        self.metadata = _metadata(path)
        self._inputs: list[str] = json.loads(self.metadata["inputs"])
        self._outputs: list[str] = json.loads(self.metadata["outputs"])
        self.runtime_version = version("ncnn")
        self._library, self._net = ncnn, ncnn.Net()
        if threads is not None:
            self._net.opt.num_threads = threads
        halves = self.metadata["precision"] == "fp16"
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self._net.opt, option, halves)  # the library's own choice would be halves for every file
        with held_back():
            failed = self._net.load_param(str(path / MODEL)) or self._net.load_model(str(path / WEIGHTS))
        if failed:
            raise InputError(f"ncnn cannot load {path}: export it again.")

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        extractor = self._net.create_extractor()
        for place, name in enumerate(self._inputs):
            picture = np.ascontiguousarray(inputs[name][0], np.float32)
            extractor.input(f"in{place}", self._library.Mat(picture).clone())
        outputs: dict[str, Array] = {}
        for place, name in enumerate(self._outputs):
            failed, picture = extractor.extract(f"out{place}")
            if failed:
                raise RuntimeError(f"it gives no `{name}`.")
            outputs[name] = np.array(picture)[np.newaxis]
        return outputs


def _metadata(path: Path) -> dict[str, str]:
    try:
        metadata = json.loads((path / METADATA).read_text())
        digests = {name: sha256_of(path / name) for name in (MODEL, WEIGHTS)}
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} is no such folder, {error.filename} cannot be read ({reason}): {_WANTED}") from error
    except ValueError as error:
        raise InputError(f"{path / METADATA} is not JSON: {_WANTED}") from error
    metadata = metadata if isinstance(metadata, dict) else {}
    check_own(metadata, path, "a folder", _WANTED, OWN_KEYS | {"inputs", "outputs", "sha256"})
    if json.loads(metadata["sha256"]) != digests:
        raise InputError(f"{path} is not as it was written, {MODEL} or {WEIGHTS} differ: export it again.")
    return metadata
