"""A device table of the machine that this runs on, measured."""

from __future__ import annotations

import datetime as dt
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from distill.files import replacing
from export.machine import this_machine
from export.to_onnx.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["measure_host", "processor_seconds"]

_PLANE = (120, 180)
_CHANNELS, _CONVOLUTIONS = 32, 6  # what students are made of
_SIDE = 1024  # of the matrices
_COPIED = 64 << 20  # bytes, more than caches hold
_CHAIN = 200  # operators on almost nothing
_LANES = (4, 8, 16, 32)


def measure_host(target: Path) -> None:
    """Measure ONNX Runtime on one thread of this machine, in some five seconds, and write a device table.

    Times are those of the processor, so that other work on the machine disturbs them little.

    Args:
        target: the .yaml file; replaced if it is there.

    Raises:
        InputError: it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = _table(_Bench(Path(folder)), target)
    with replacing(target) as temporary:
        temporary.write_text(yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")


def processor_seconds(run: Callable[[], object], *, seconds: float = 0.3, least: int = 5) -> float:
    """The median of the processor time that a call on one thread takes, after one call to warm up."""
    run()
    samples: list[float] = []
    started = time.perf_counter()
    while len(samples) < least or time.perf_counter() - started < seconds:
        before = time.process_time()
        run()
        samples.append(time.process_time() - before)
    return statistics.median(samples)


def _table(bench: _Bench, target: Path) -> dict[str, Any]:
    today = dt.date.today().isoformat()

    def figure(value: float, what: str) -> dict[str, Any]:
        rounded = float(f"{value:.3g}")
        rounded = int(rounded) if rounded.is_integer() else rounded
        return {
            "value": rounded,
            "measured": True,
            "date": today,
            "source": f"export.plan.host.measure_host: {what}",
        }

    machine, gemm, memory = this_machine(), bench.gemm(), _memory_megabytes()
    convolutions = f"{_CONVOLUTIONS} 3x3 convolutions of {_CHANNELS} channels on {_PLANE[1]}x{_PLANE[0]} pixels"
    return {
        "name": target.stem,
        "title": f"{machine.processor}, {machine.architecture}",
        "unit": f"CPU, 1 thread, processor time, ONNX Runtime {version('onnxruntime')}",
        "measured": True,
        "compute": {
            "fp32": figure(
                bench.convolutions(), f"{convolutions} with ReLU (a {_SIDE}x{_SIDE} matrix product: {gemm:.3g})"
            )
        },
        "bandwidth": figure(bench.copying(), f"bytes read and written, copying {_COPIED >> 20} MiB"),
        "launch": figure(bench.launching(), f"a chain of {_CHAIN} operators on 64 numbers"),
        "lanes": figure(bench.lanes(), "a convolution to so many channels takes as long as one to a single channel"),
    } | ({} if memory is None else {"memory": figure(memory, "of the whole machine")})


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.random = np.random.default_rng(0)

    def convolutions(self) -> float:
        """1e9 multiply-accumulates a second."""
        widths = [_CHANNELS] * (_CONVOLUTIONS + 1)
        return self.convolution_macs(widths) / self.convolution_seconds(widths) / 1e9

    def gemm(self) -> float:
        """1e9 multiply-accumulates a second."""
        from onnx import helper, numpy_helper

        weight = numpy_helper.from_array(self.numbers(_SIDE, _SIDE), "weight")
        node = helper.make_node("MatMul", ["input", "weight"], ["output"])
        return _SIDE**3 / self.seconds(_model([node], [weight], (_SIDE, _SIDE), (_SIDE, _SIDE)), (_SIDE, _SIDE)) / 1e9

    def copying(self) -> float:
        """1e9 bytes a second."""
        source = np.ones(_COPIED, np.uint8)  # written to, or it would all be one page of zeros
        target = np.empty_like(source)
        return 2 * _COPIED / processor_seconds(lambda: np.copyto(target, source)) / 1e9

    def launching(self) -> float:
        """Microseconds an operator."""
        from onnx import helper

        names = ["input", *(f"number_{place}" for place in range(1, _CHAIN)), "output"]
        nodes = [helper.make_node("Neg", [before], [after]) for before, after in pairwise(names)]
        shape = (1, 16, 2, 2)
        return 1e6 * self.seconds(_model(nodes, [], shape, shape), shape) / _CHAIN

    def lanes(self) -> int:
        """The most output channels of a convolution that cost what one costs."""
        single = self.convolution_seconds([_CHANNELS, 1])
        alike = [count for count in _LANES if self.convolution_seconds([_CHANNELS, count]) < 1.25 * single]
        return max(alike, default=1)

    def convolution_macs(self, widths: Sequence[int]) -> int:
        pairs = pairwise(widths)
        return sum(9 * before * after for before, after in pairs) * _PLANE[0] * _PLANE[1]

    def convolution_seconds(self, widths: Sequence[int]) -> float:
        from onnx import helper, numpy_helper

        nodes: list[NodeProto] = []
        weights = []
        for place, (before, after) in enumerate(pairwise(widths)):
            name = "input" if place == 0 else f"active_{place - 1}"
            weights.append(numpy_helper.from_array(self.numbers(after, before, 3, 3) / (9 * before), f"weight_{place}"))
            nodes.append(helper.make_node("Conv", [name, f"weight_{place}"], [f"made_{place}"], pads=[1] * 4))
            output = "output" if place == len(widths) - 2 else f"active_{place}"
            nodes.append(helper.make_node("Relu", [f"made_{place}"], [output]))
        shape = (1, widths[0], *_PLANE)
        return self.seconds(_model(nodes, weights, shape, (1, widths[-1], *_PLANE)), shape)

    def seconds(self, model: ModelProto, shape: tuple[int, ...]) -> float:
        path = self.folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        session = open_session(path, 1)
        inputs = {"input": self.numbers(*shape)}
        return processor_seconds(lambda: session.run(None, inputs))

    def numbers(self, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self.random.random(shape, dtype=np.float32)


def _model(
    nodes: Sequence[NodeProto], weights: Sequence[Any], taken: tuple[int, ...], given: tuple[int, ...]
) -> ModelProto:
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        for name, shape in (("input", taken), ("output", given))
    ]
    graph = helper.make_graph(list(nodes), "measured", values[:1], values[1:], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _memory_megabytes() -> float | None:
    """None where the system does not tell."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6 if hasattr(os, "sysconf") else None
