"""Exported .mlpackage files, run by Core ML on a Mac and computed by our own evaluator elsewhere."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distill.errors import InputError
from export.program import Array, Program, first_line
from export.to_coreml.evaluator import Evaluator
from export.to_coreml.package import Package, quiet_coremltools, read_package

__all__ = ["CoremlProgram", "EvaluatedProgram", "load"]


def load(path: Path, threads: int | None = None) -> Program:
    """See `export.interfaces.Format.open`; Core ML takes no number of threads, and the evaluator PyTorch's."""
    package = read_package(path)
    return CoremlProgram(path, package) if _runs_here() else EvaluatedProgram(package)


def _runs_here() -> bool:
    """Whether this is a Mac whose coremltools has its bridge to the system's Core ML."""
    if sys.platform != "darwin":
        return False
    with quiet_coremltools():
        from coremltools.models import model
    return model._MLModelProxy is not None


class EvaluatedProgram(Program):
    """A package, computed from its own operations and weights; see `export.to_coreml.evaluator`.

    Raises:
        CheckFailed: it has an operator that the evaluator does not know.
    """

    runtime, runtime_title = "coremltools (own evaluator)", "The evaluator of Core ML files"
    unit_asked = "none"
    unit_got = "evaluated off-Mac, not run by Core ML"

    def __init__(self, package: Package) -> None:
        self.metadata = package.metadata
        self.runtime_version = _version()
        self._evaluator = Evaluator(package)

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in inputs.items()}
        return {name: tensor.numpy() for name, tensor in self._evaluator.run(tensors).items()}

    def forget(self) -> None:
        self._evaluator.forget()


class CoremlProgram(Program):
    """A package, run by Core ML on this Mac, on whatever units it chooses.

    Raises:
        InputError: Core ML does not load it.
    """

    runtime, runtime_title = "coremltools (Core ML)", "Core ML"
    unit_asked = "ALL"
    unit_got = "as Core ML chose, not read back"

    def __init__(self, path: Path, package: Package) -> None:
        with quiet_coremltools():
            import coremltools

        self.metadata = package.metadata
        self.runtime_version = _version()
        self._images = {
            each.name
            for each in (*package.model.description.input, *package.model.description.output)
            if each.type.WhichOneof("Type") == "imageType"
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that the model did not load, which is told below
            self._model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.ALL)
        self._remembers = bool(package.model.description.state)
        try:
            if self._model.__proxy__ is None:
                raise self._model._framework_error or RuntimeError("it does not say why")
            self.forget()
        except Exception as error:  # the system's exceptions have no other base
            raise InputError(
                f"Core ML cannot load {path} ({first_line(error)}): export it again, or update macOS."
            ) from error

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        # halves too are given as float32: coremltools rounds them on the way
        given = {name: _picture(array) if name in self._images else array for name, array in inputs.items()}
        results = self._model.predict(given, self._state)
        return {
            name: _array(value) if name in self._images else np.asarray(value, np.float32)
            for name, value in results.items()
        }

    def forget(self) -> None:
        self._state = self._model.make_state() if self._remembers else None


def _picture(array: Array) -> Image.Image:
    """(1, 3, H, W) in [0, 1] -> RGB of 8 bits."""
    pixels = np.clip(np.rint(array[0].transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _array(picture: Image.Image) -> Array:
    """The way back."""
    return np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255


def _version() -> str:
    with quiet_coremltools():
        import coremltools

    return str(coremltools.__version__)
