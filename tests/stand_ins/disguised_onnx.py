"""ONNX files that pass for those of another format."""

from __future__ import annotations

from export.interfaces import Format
from export.to_coreml.format import CoremlFormat
from export.to_onnx.format import OnnxFormat


class Apple(OnnxFormat):
    not_run_here = CoremlFormat.not_run_here


class Other(OnnxFormat):
    name, opener = "other", "export.to_onnx.program:OnnxProgram"
    cold_process = Format.cold_process


class Absent(Other):
    runtime, extra = "no_such_runtime", "other"
