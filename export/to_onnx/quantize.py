"""ONNX in 8 bits: which operators compute in integers, over which ranges, and what each layer of them costs.

Static quantisation: activations are unsigned and of one scale a tensor, weights signed and of one scale a channel
("U8S8"), the ranges measured on real frames. QuantizeLinear and DequantizeLinear stand around float operators ("QDQ"),
which runtimes fuse into integer ones; a runtime that does not still computes the right thing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from distill.errors import CheckFailed, ConfigError
from export.exported import ExportedNetwork
from export.footage import of_size
from export.interfaces import Order
from export.program import Array
from export.to_onnx.integer_parts import IntegerParts
from export.to_onnx.layout import without_transposed
from export.to_onnx.model import check, onnx_model
from export.to_onnx.program import OnnxProgram
from export.to_onnx.session import SESSION_OPTIONS

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Measured", "int8_model", "measured", "quantised"]

_Ranges = dict[str, tuple[np.float32, np.float32]]


@dataclass(frozen=True)
class Measured:
    """A network as a float model, and what its 8-bit form follows from.

    Attributes:
        model: of floats, in fp32.
        parts: which of its nodes compute in integers.
        ranges: of the tensors that those read and write.
        clips: that the ranges were measured on, (T, 3, h, w) each, of a size that the model takes.
    """

    model: ModelProto
    parts: IntegerParts
    ranges: _Ranges
    clips: Sequence[Tensor]


def measured(order: Order) -> Measured:
    """The float model of an order, and the ranges of its tensors over the order's clips.

    What stays in float: all that makes a picture of the frames without any activation, such as the bicubic base;
    what is done to a picture at the end; convolutions whose result is the picture itself, not added to a base; and
    those that tell where to sample.

    Args:
        order: its clips are what ranges are measured on; frames of another size than the order's are mirrored at
            their edges and cropped.

    Raises:
        ConfigError: there are no clips.
        CheckFailed: the network cannot be expressed in ONNX, the graph is not valid, or nothing is left to quantise.
    """
    if not order.clips:
        raise ConfigError("int8 needs real frames to measure ranges on, and none were given: give footage with --data.")
    model = onnx_model(replace(order, precision="fp32"))
    without_transposed(model)
    parts = IntegerParts(model)
    if not parts.integer:
        name = type(order.network).__name__
        raise CheckFailed(f"No convolution of {name} can compute in 8 bits without harm to the picture: export fp16.")
    clips = [of_size(clip, order.sizes[0]) if order.sizes else clip for clip in order.clips]
    return Measured(model, parts, _ranges(model, parts, clips), clips)


def int8_model(floats: Measured) -> ModelProto:
    """The content of an .onnx file in 8 bits. Frames, memories and what is restored stay float32.

    Raises:
        CheckFailed: the graph is not valid.
    """
    return quantised(floats, floats.parts.integer)


def _ranges(model: ModelProto, parts: IntegerParts, clips: Sequence[Tensor]) -> _Ranges:
    """The least and the greatest value over all frames of each tensor that may be quantised."""
    tensors = _quantisable(model, parts.integer)
    found: dict[str, list[tuple[Array, Array]]] = {name: [] for name in tensors}
    with tempfile.TemporaryDirectory() as folder:
        plain, measuring = (Path(folder) / f"{name}.onnx" for name in ("plain", "measuring"))
        plain.write_bytes(model.SerializeToString())
        measuring.write_bytes(_measuring(model, tensors).SerializeToString())
        exported, program = ExportedNetwork(OnnxProgram(plain), plain), OnnxProgram(measuring)
        # runs until no memory is of zeros
        unsettled = exported.window + exported.time_scale - 2 if exported.streaming else 0
        for clip in clips:
            for inputs in islice(exported.inputs_of(clip), unsettled, None):
                outputs = program.run(inputs)
                for name in tensors:
                    found[name].append((outputs[f"{name}_least"], outputs[f"{name}_greatest"]))
    ranges = {name: (np.float32(np.min(values)), np.float32(np.max(values))) for name, values in found.items()}
    # frames can be anything from black to white, whatever these were
    return ranges | {name: (np.float32(0), np.float32(1)) for name in ranges if name in parts.frames}


def _quantisable(model: ModelProto, integer: Collection[str]) -> list[str]:
    """Tensors that integer nodes read and write, in their order."""
    constants = {each.name for each in model.graph.initializer}
    named = (name for node in model.graph.node if node.name in integer for name in (*node.input, *node.output))
    return [name for name in dict.fromkeys(named) if name and name not in constants]


def _measuring(model: ModelProto, tensors: Iterable[str]) -> ModelProto:
    """The same with two more outputs a tensor, its least and its greatest value."""
    import onnx

    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    for name in tensors:
        for kind, suffix in (("ReduceMin", "least"), ("ReduceMax", "greatest")):
            measuring.graph.node.append(onnx.helper.make_node(kind, [name], [f"{name}_{suffix}"], keepdims=0))
            measuring.graph.output.append(
                onnx.helper.make_tensor_value_info(f"{name}_{suffix}", onnx.TensorProto.FLOAT, [])
            )
    return measuring


def quantised(floats: Measured, integer: Collection[str]) -> ModelProto:
    """The model with those nodes in integers, by name.

    Raises:
        CheckFailed: the graph is not valid.
    """
    model, ranges = floats.model, floats.ranges
    if not integer:  # which the quantiser would take for all
        return model
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorsData

    facts = {entry.key: entry.value for entry in model.metadata_props}
    separate, apart = _read_apart(model, integer)
    types = sorted({node.op_type for node in model.graph.node if node.name in integer})
    known = TensorsData(CalibrationMethod.MinMax, ranges | {copy: ranges[name] for copy, name in apart.items()})
    signs = (QuantType.QInt8, QuantType.QUInt8)  # of weights, of activations
    quantizer = QDQQuantizer(separate, True, False, *signs, known, sorted(integer), [], types, {})
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: ModelProto = quantizer.model.model
    _join(result, apart)
    del result.metadata_props[:]  # the quantiser leaves notes there
    told = " ".join(f"{key}={value}" for key, value in SESSION_OPTIONS.items())
    for key, value in sorted((facts | {"precision": "int8", "x64_session_options": told}).items()):
        result.metadata_props.add(key=key, value=value)
    check(result)
    return result


def _read_apart(model: ModelProto, integer: Collection[str]) -> tuple[ModelProto, dict[str, str]]:
    """A model whose float tensors are read by integer nodes through an Identity each, and their names by copy.

    The quantiser rounds a tensor for all its readers; those in float shall have it as it was.
    """
    import onnx

    separate = onnx.ModelProto()
    separate.CopyFrom(model)
    apart: dict[str, str] = {}
    rounded = {name for node in model.graph.node if node.name in integer for name in node.output}
    constants = {each.name for each in model.graph.initializer}
    place = 0
    for node in model.graph.node:
        wanted = [name for name in node.input if name not in rounded | constants] if node.name in integer else []
        for name in wanted:
            if f"{name}_rounded" not in apart:
                apart[f"{name}_rounded"] = name
                identity = onnx.helper.make_node("Identity", [name], [f"{name}_rounded"], f"{name}_rounded")
                separate.graph.node.insert(place, identity)
                place += 1
        inputs = [f"{name}_rounded" if name in wanted else name for name in node.input]
        separate.graph.node[place].input[:] = inputs
        place += 1
    return separate, apart


def _join(model: ModelProto, apart: dict[str, str]) -> None:
    """Remove those Identities."""
    for node in list(model.graph.node):
        if node.op_type == "Identity" and node.output[0] in apart:
            model.graph.node.remove(node)
        else:
            node.input[:] = [apart.get(name, name) for name in node.input]
