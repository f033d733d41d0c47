"""What a network can be exported to: one entry a format, and what an export is asked for."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import ConfigError, InputError, did_you_mean
from distill.files import bytes_of, sha256_of
from distill.interfaces import SlidingNetwork
from export.artifact import Artifact
from export.graph import SIZE_MULTIPLE, Graph, streaming_graph, windowed_graph
from export.program import Program

__all__ = ["FORMATS", "GIVEN_METADATA", "OWN_KEYS", "Format", "Order", "export", "format_named", "format_of"]

GIVEN_METADATA = ("network", "keywords", "degradation", "provenance")
"""What the caller must tell of a network, because only its checkpoint knows."""

OWN_KEYS = frozenset({"distill_vsr_version", "scale", "window", "mode"})
"""What every file of this project tells of itself, and others do not."""


@dataclass(frozen=True)
class Order:
    """What is to be exported, and how.

    Attributes:
        network: on any device, in any mode; it is not changed.
        metadata: `GIVEN_METADATA` and whatever else should stand in the file, as text (`keywords` as JSON).
        precision: one of the format's.
        streaming: one new frame and memories in, instead of a window of frames.
        sizes: (height, width) of the low-resolution frames. None leaves both free, multiples of `SIZE_MULTIPLE`, to be
            padded by repeating the last row and column; several are enumerated where the format can.
        clips: real low-resolution clips (T, 3, h, w), RGB in [0, 1], that ranges of activations are measured on.
        ios: 16 or 18, the oldest system that a Core ML file is for.
        images: Core ML frames are images instead of tensors.
    """

    network: SlidingNetwork
    metadata: Mapping[str, str]
    precision: str = "fp32"
    streaming: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    clips: Sequence[Tensor] = ()
    ios: int = 16
    images: bool = False

    def graph(self) -> Graph:
        """The network's deployed copy, of the first size, or of free size."""
        make = streaming_graph if self.streaming else windowed_graph
        return make(self.network, self.sizes[0] if self.sizes else None)

    def facts(self) -> dict[str, str]:
        """What the file is to say of itself.

        Besides `metadata`: `scale`, `time_scale`, `window`, `mode` ("windowed" or "streaming"), `memories` (JSON, for
        each [name, channels of one entry, entries, enlarged, multiple], see `distill.interfaces.Memory`),
        `memory_type` ("float32" or "float16"), `memories_inside` ("yes" where the runtime keeps them itself),
        `frame_type` ("float32", "float16" or "image"), `colour_range` ("RGB 0..1"), `layout` ("N C H W"), `precision`,
        `distill_vsr_version`, `torch_version`; `size_multiple` where height and width are free, else `sizes` ("HxW",
        several divided by blanks).
        """
        memories = list(self.network.step().memories) if self.streaming else []
        facts = dict(self.metadata) | {
            "scale": str(self.network.scale),
            "time_scale": str(self.network.time_scale),
            "window": str(self.network.window),
            "mode": "streaming" if self.streaming else "windowed",
            "memories": json.dumps(memories),
            "memory_type": "float32",
            "memories_inside": "no",
            "frame_type": "float32",
            "colour_range": "RGB 0..1",
            "layout": "N C H W",
            "precision": self.precision,
            "distill_vsr_version": version("distill-vsr"),
            "torch_version": str(torch.__version__),
        }
        if self.sizes:
            return facts | {"sizes": " ".join(f"{height}x{width}" for height, width in self.sizes)}
        return facts | {"size_multiple": str(SIZE_MULTIPLE)}


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as typed after `--to`.
        suffix: of its files.
        precisions: that it has, the default first.
        writer: "module:function", called with an order and the path to write.
        opener: "module:function", called with a path and a number of threads (None: the runtime's choice), returns a
            `Program`.
        needs: the package that writes it.
        runtime: the package that runs it.
        extra: of this project that brings it; None where it is always there.
        sizes: how many sizes a file can have: "free", "several" (enumerated) or "one".
        is_folder: whether its files are folders.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    writer: str
    opener: str
    needs: str
    runtime: str
    extra: str | None
    sizes: str
    is_folder: bool = False

    def write(self, order: Order, target: Path) -> None:
        """Write the file, or the folder that is one.

        Raises:
            ConfigError: the format has no such precision or sizes.
            InputError: what it needs is not installed.
            CheckFailed: the network cannot be expressed in it.
        """
        if order.precision not in self.precisions:
            raise ConfigError(f"{self.name} has no precision {order.precision!r}; it has {', '.join(self.precisions)}.")
        if not order.sizes and self.sizes != "free":
            raise ConfigError(f"{self.name} needs a size: give --size WIDTHxHEIGHT.")
        if len(order.sizes) > 1 and self.sizes != "several":
            raise ConfigError(f"A {self.name} file has one size, not {len(order.sizes)}.")
        self._demand(self.needs)
        _function(self.writer)(order, target)

    def open(self, path: Path, threads: int | None = None) -> Program:
        """Load a file.

        Raises:
            InputError: it cannot be used, or what runs it is not installed.
        """
        if not path.exists():
            raise InputError(f"{path} does not exist: give a file that `distill export` wrote.")
        self._demand(self.runtime)
        program: Program = _function(self.opener)(path, threads)
        return program

    def _demand(self, package: str) -> None:
        if find_spec(package) is not None:
            return
        if self.extra is not None:
            raise InputError(f'{self.name} needs an extra: pip install "distill-vsr[{self.extra}]".')
        raise InputError(f"{self.name} needs the package {package}, which is not installed, or not to be had here.")


FORMATS = (
    Format("onnx", ".onnx", ("fp32", "fp16", "int8"), "export.to_onnx:write", "export.onnx_program:load",
           "onnx", "onnxruntime", None, "free"),
    Format("coreml", ".mlpackage", ("fp16", "fp32", "w8", "p6", "p4"), "export.to_coreml:write",
           "export.coreml_program:load", "coremltools", "coremltools", None, "several", is_folder=True),
    Format("litert", ".tflite", ("fp32", "fp16", "int8"), "export.to_litert:write", "export.litert_program:load",
           "litert_torch", "ai_edge_litert", "litert", "one"),
    Format("executorch", ".pte", ("fp32", "fp16"), "export.to_executorch:write", "export.executorch_program:load",
           "executorch", "executorch", "executorch", "one"),
    Format("ncnn", ".ncnn", ("fp32", "fp16"), "export.to_ncnn:write", "export.ncnn_program:load",
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


def _function(reference: str) -> Callable[..., Any]:
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
