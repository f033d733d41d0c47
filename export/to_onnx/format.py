"""ONNX as a format."""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from distill.errors import ConfigError
from distill.files import replacing
from export.interfaces import Finding, Format, LayerCost, Operators, Order

if TYPE_CHECKING:
    from export.program import Array, Program
    from export.to_onnx.quantize import Measured

__all__ = ["OnnxFormat"]

_COSTLIEST_LAYERS = 5  # that are told where a clip lost too much


class OnnxFormat(Format):
    """One .onnx file, run by ONNX Runtime; .ort files are the form of it that its smallest builds read."""

    name, suffix, other_suffixes = "onnx", ".onnx", (".ort",)
    precisions, calibrated = ("fp32", "fp16", "int8"), ("int8",)
    needs, runtime = "onnx", "onnxruntime"
    sizes = "free"
    opener = "export.to_onnx.session:load"

    def __init__(self) -> None:
        # an order's float model serves its file and, if that is lossy, what its layers cost
        self._measured: WeakKeyDictionary[Order, Measured] = WeakKeyDictionary()

    @property
    def cold_process(self) -> str:
        return "Python, numpy and onnxruntime"

    def _write(self, order: Order, target: Path) -> None:
        """The same network and metadata, and in int8 the same clips, give the same bytes."""
        from export.to_onnx.model import onnx_model
        from export.to_onnx.quantize import int8_model, measured

        if order.precision == "int8":
            self._measured[order] = measured(order)
            model = int8_model(self._measured[order])
        else:
            model = onnx_model(order)
        target.write_bytes(model.SerializeToString(deterministic=True))

    def _open(self, path: Path, threads: int | None) -> Program:
        from export.to_onnx.program import OnnxProgram

        return OnnxProgram(path, threads)

    def add_options(self, command: ArgumentParser) -> None:
        command.add_argument("--sensitivity", action="store_true", help="int8: tell what each layer costs")
        command.add_argument("--ort", action="store_true", help="onnx: also the .ort form, and the operators it needs")

    def options_of(self, given: Namespace, precisions: Sequence[str]) -> Mapping[str, Any]:
        if given.ort and "fp16" in precisions:
            raise ConfigError("--ort has no fp16: leave it out, or export fp16 without --ort.")
        if given.sensitivity and "int8" not in precisions:
            raise ConfigError("--sensitivity tells what layers cost in int8: give --precision int8.")
        return {"ort": given.ort, "sensitivity": given.sensitivity}

    def write_companions(self, path: Path, options: Mapping[str, Any]) -> None:
        from export.to_onnx.ort import ort_operators, write_ort

        if not options.get("ort"):
            return
        with replacing(path.with_suffix(".ort")) as temporary:
            write_ort(path, temporary)
        with replacing(path.with_suffix(".ort.config")) as temporary:
            temporary.write_text(ort_operators(path), encoding="utf-8")

    def findings(self, path: Path) -> Sequence[Finding]:
        from export.to_onnx.lint import find_problems

        return find_problems(path)

    def layer_costs(self, order: Order, *, lossy: bool) -> Sequence[LayerCost]:
        from export.to_onnx.quantize import measured
        from export.to_onnx.sensitivity import layer_costs

        every = order.options.get("sensitivity", False)
        if order.precision != "int8" or not (lossy or every):
            return ()
        return layer_costs(self._measured.get(order) or measured(order))[: None if every else _COSTLIEST_LAYERS]

    def operator_times(
        self, path: Path, inputs: Mapping[str, Array], size: tuple[int, int], threads: int
    ) -> Operators | None:
        from export.to_onnx.operator_times import operators

        return operators(path, inputs, size, threads)

    def not_run_here(self, path: Path) -> str | None:
        if path.suffix == self.suffix or platform.machine() in ("aarch64", "arm64"):
            return None
        return "An .ort file is rewritten for ARM processors: measure it on a phone, or the .onnx file here."
