"""How fast this machine can compute in 8 bits at most, by the kernels that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from export.machine import best_rate
from export.to_onnx.session import SESSION_OPTIONS, open_session

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

__all__ = ["int8_gops"]

# each takes about a millisecond, as those that measure fp32
_SIDE = 384
_CHANNELS, _PLANE = 64, 64


def int8_gops(threads: int) -> float:
    """1e9 operations a second in int8, the fastest of several kernels; a multiply-add is two.

    A matrix product (384x384x384) and a 3x3 convolution (64 channels to 64, 64x64 pixels) of ONNX Runtime, each with
    the precise and with the saturating kernels of processors without VNNI, and PyTorch's matrix product. Some two
    seconds; PyTorch must have been set to `threads`.
    """
    rates = [best_rate(run, amount) for run, amount in _runtime_kernels(threads)]
    matrix = torch.randint(-127, 127, (_SIDE, _SIDE), dtype=torch.int8)
    with suppress(AttributeError, RuntimeError):  # no public operator does it, and not every build
        rates.append(best_rate(lambda: torch._int_mm(matrix, matrix), 2 * _SIDE**3))
    return max(rates)


def _runtime_kernels(threads: int) -> Iterator[tuple[Callable[[], object], int]]:
    """Runs of ONNX Runtime, and the operations of each."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    matrix = numpy_helper.from_array(draw.integers(-127, 128, (_SIDE, _SIDE)).astype(np.int8), "matrix")
    product = helper.make_node("MatMulInteger", ["given", "matrix"], ["product"])
    weight = draw.integers(-127, 128, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.int8)
    arrays: dict[str, Any] = {
        "scale": np.float32(1 / 255),
        "zero": np.uint8(0),
        "weight": weight,
        "weight_scale": np.full(_CHANNELS, 1 / 127, np.float32),
        "weight_zero": np.zeros(_CHANNELS, np.int8),
    }
    constants = [numpy_helper.from_array(each, name) for name, each in arrays.items()]
    names = ["given", "scale", "zero", "weight", "weight_scale", "weight_zero", "scale", "zero"]
    convolution = helper.make_node("QLinearConv", names, ["convolved"], pads=[1] * 4)
    plane = (1, _CHANNELS, _PLANE, _PLANE)
    for settings in (SESSION_OPTIONS, {}):
        yield (
            _runs(product, [matrix], (_SIDE, _SIDE), TensorProto.INT32, threads, settings),
            2 * _SIDE**3,
        )
        yield (
            _runs(convolution, constants, plane, TensorProto.UINT8, threads, settings),
            2 * 9 * (_CHANNELS * _PLANE) ** 2,
        )


def _runs(
    node: NodeProto,
    constants: list[TensorProto],
    shape: tuple[int, ...],
    result: int,
    threads: int,
    settings: dict[str, str],
) -> Callable[[], object]:
    from onnx import TensorProto, helper

    taken = helper.make_tensor_value_info("given", TensorProto.UINT8, shape)
    given = helper.make_tensor_value_info(node.output[0], result, shape)
    graph = helper.make_graph([node], "peak", [taken], [given], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = open_session(model.SerializeToString(), threads, settings=settings)
    inputs = {"given": np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)}
    return lambda: session.run(None, inputs)
