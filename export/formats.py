"""What a network can be exported to: one entry a format, and what an export is asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path

from distill.errors import ConfigError, InputError, did_you_mean
from distill.files import bytes_of, sha256_of
from distill.networks.checkpoint import Described
from export.exported import ExportedNetwork
from export.interfaces import GIVEN_METADATA, Artifact, Format, Order

__all__ = ["FORMATS", "export", "format_named", "format_of", "is_exported", "open_described", "open_exported"]


FORMATS = (
    Format("onnx", ".onnx", ("fp32", "fp16", "int8"), "export.to_onnx.format:write", "export.to_onnx.program:load",
           "onnx", "onnxruntime", None, "free"),
    Format("coreml", ".mlpackage", ("fp16", "fp32", "w8", "p6", "p4"), "export.to_coreml.conversion:write",
           "export.to_coreml.program:load", "coremltools", "coremltools", None, "several", is_folder=True),
    Format("litert", ".tflite", ("fp32", "fp16", "int8"), "export.to_litert.conversion:write",
           "export.to_litert.program:load", "litert_torch", "ai_edge_litert", "litert", "one"),
    Format("executorch", ".pte", ("fp32", "fp16"), "export.to_executorch.conversion:write",
           "export.to_executorch.program:load", "executorch", "executorch", "executorch", "one"),
    Format("ncnn", ".ncnn", ("fp32", "fp16"), "export.to_ncnn.conversion:write", "export.to_ncnn.program:load",
           "pnnx", "ncnn", "ncnn", "one", is_folder=True),
)  # fmt: skip


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: there is none.
    """
    for each in FORMATS:
        if each.name == name:
            return each
    raise ConfigError(
        f"There is no format {name!r}.{did_you_mean(name, [each.name for each in FORMATS])} Known: "
        f"{', '.join(each.name for each in FORMATS)}."
    )


def format_of(path: Path) -> Format:
    """The format that files of this name have.

    Raises:
        InputError: none has.
    """
    for each in FORMATS:
        if path.name.endswith(each.suffix):
            return each
    raise InputError(f"{path} is no exported file: their names end in {', '.join(each.suffix for each in FORMATS)}.")


def export(order: Order, kind: Format, target: Path) -> Artifact:
    """Write one file; see `distill.files.replacing_whole` for a place to write it.

    Raises:
        ConfigError: a size is not positive, or the format has no such precision or sizes.
        InputError: what the format needs is not installed.
        CheckFailed: the network cannot be expressed in the format, or the file is not valid.
    """
    started = time.perf_counter()
    if missing := [key for key in GIVEN_METADATA if key not in order.metadata]:
        raise ValueError(f"metadata lacks {', '.join(missing)}")
    for height, width in order.sizes:
        if min(height, width) < 1:
            raise ConfigError(f"The size is {height}x{width}, but height and width must be at least 1.")
    kind.write(order, target)
    seconds = time.perf_counter() - started
    return Artifact(target, kind.name, order.precision, bytes_of(target), sha256_of(target), seconds)


def open_exported(path: Path, threads: int | None = None) -> ExportedNetwork:
    """Load an exported file of any format.

    Args:
        path: a file that `distill export` wrote.
        threads: that compute together; None leaves the choice to the runtime.

    Raises:
        InputError: the file cannot be used, or what runs it is not installed.
    """
    return ExportedNetwork(format_of(path).open(path, threads), path)


def is_exported(path: Path) -> bool:
    """Whether the name is that of an exported file."""
    return path.name.endswith(tuple(each.suffix for each in FORMATS))


def open_described(path: Path) -> tuple[ExportedNetwork, Described]:
    """An exported file as a network, and what it says of itself.

    Raises:
        InputError: the file cannot be used, or what runs it is not installed.
    """
    exported = open_exported(path)
    facts = exported.program.metadata
    degradation = None if facts["degradation"] == "unknown" else facts["degradation"]
    try:
        keywords, provenance = json.loads(facts["keywords"]), json.loads(facts["provenance"])
    except ValueError as error:
        raise InputError(f"{path} does not describe itself as it should ({error}): export it again.") from error
    return exported, Described(facts["network"], keywords, degradation, provenance)
