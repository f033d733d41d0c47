"""ONNX in 8 bits: which operators compute in integers, over which ranges, and what each layer of them costs.

Static quantisation: activations are unsigned and of one scale a tensor, weights signed and of one scale a channel
("U8S8"), the ranges measured on real frames. QuantizeLinear and DequantizeLinear stand around float operators ("QDQ"),
which runtimes fuse into integer ones; a runtime that does not still computes the right thing.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from distill.errors import CheckFailed, ConfigError
from export.exported import open_exported
from export.footage import of_size
from export.formats import Order
from export.graph import PICTURES
from export.onnx_layout import layer_of, without_transposed
from export.onnx_program import load
from export.program import Array, Program
from export.runtime import SESSION_OPTIONS, open_session
from export.to_onnx import check, onnx_model

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["LayerCost", "int8_model", "sensitivity"]

_MOVING = {"Concat", "DepthToSpace", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_ACTIVATIONS = {"Clip", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"}
_PICTURE_SUMS = {"Add", "Cast", "Clip", "Div", "Mul", "Sub"}
_INTEGER = {"Add", "Concat", "DepthToSpace", "LeakyRelu", "Relu", "Slice", "Split"}  # besides convolutions
_COLOURS = 3
_SHOWN_FRAMES = 3  # restored once for every layer

_Ranges = dict[str, tuple[np.float32, np.float32]]


def int8_model(order: Order) -> ModelProto:
    """The content of an .onnx file in 8 bits. Frames, memories and what is restored stay float32.

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
    model = _float_model(order)
    parts = _Parts(model)
    if not parts.integer:
        name = type(order.network).__name__
        raise CheckFailed(f"No convolution of {name} can compute in 8 bits without harm to the picture: export fp16.")
    return _quantised(model, _ranges(model, parts, _clips(order)), parts.integer)


@dataclass(frozen=True)
class LayerCost:
    """What one layer of an 8-bit file costs.

    Attributes:
        layer: as the network calls it, "tail.conv"; an ONNX node where that cannot be told.
        psnr_db: of the restored frames against the float32 file's with all layers in 8 bits but this one.
        gain_db: so much is that more than with all of them.
    """

    layer: str
    psnr_db: float
    gain_db: float


def sensitivity(order: Order) -> list[LayerCost]:
    """What leaving each quantised convolution in float would gain, on a few frames of the first of the order's clips.

    That is what the file then says. ONNX Runtime, from some version on, still quantises a float convolution that
    stands between quantised ones, one scale a tensor; here it is kept from that.

    Args:
        order: as for `int8_model`.

    Returns:
        The costliest layer first.

    Raises:
        ConfigError: there are no clips.
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    model, clips = _float_model(order), _clips(order)
    parts = _Parts(model)
    ranges = _ranges(model, parts, clips)
    shown = [clip[:_SHOWN_FRAMES] for clip in clips[:1]]
    exact = _restored(model, shown)

    def psnr(integer: Collection[str]) -> float:
        error = _restored(_quantised(model, ranges, integer), shown).sub(exact).square().mean().item()
        return -10 * math.log10(error) if error else math.inf

    layers: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name in parts.integer:
            layers.setdefault(layer_of(node), set()).add(node.name)
    whole = psnr(parts.integer)
    costs = []
    for layer, names in layers.items():
        without = psnr(parts.integer - names)
        costs.append(LayerCost(layer, without, without - whole if math.isfinite(whole) else 0.0))
    return sorted(costs, key=lambda cost: -cost.gain_db)


def _float_model(order: Order) -> ModelProto:
    if not order.clips:
        raise ConfigError("int8 needs real frames to measure ranges on, and none were given: give footage with --data.")
    model = onnx_model(replace(order, precision="fp32"))
    without_transposed(model)
    return model


def _clips(order: Order) -> list[Tensor]:
    return [of_size(clip, order.sizes[0]) if order.sizes else clip for clip in order.clips]


class _Parts:
    """Which nodes compute in integers.

    Attributes:
        integer: their names.
        frames: tensors that are frames as they came.
    """

    def __init__(self, model: ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._makers = {name: node for node in self._nodes for name in node.output}
        memories = next(each.value for each in model.metadata_props if each.key == "memories")
        self._memories = {name for name, *_ in json.loads(memories)}
        self._given = {each.name for each in model.graph.input} - self._memories
        self.frames = self._made_of_frames(lambda node: node.op_type in _MOVING)
        self._pictures = self._made_of_frames(lambda node: node.op_type not in {*_ACTIVATIONS, "GridSample"})
        floats = self._plain() | self._ends() | self._before_sampling()
        self.integer = self._integer(floats)

    def _sources(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self._constants]

    def _made_of_frames(self, allowed: Callable[[NodeProto], bool]) -> set[str]:
        """Tensors that allowed operators make of frames, be they given or remembered, and of constants."""
        held = self._memories
        while True:
            known = self._given | held
            for node in self._nodes:
                if allowed(node) and known.issuperset(self._sources(node)):
                    known = known.union(node.output)
            if all(f"next_{name}" in known for name in held):
                return known
            held = {name for name in held if f"next_{name}" in known}

    def _plain(self) -> set[str]:
        """Nodes that make pictures of frames, but for the first convolution of a network, which features start with."""
        plain = set()
        for node in self._nodes:
            readers = {each.op_type for each in self._nodes if set(each.input) & set(node.output)}
            if self._pictures.issuperset(node.output) and not (node.op_type == "Conv" and readers <= _ACTIVATIONS):
                plain.add(node.name)
        return plain

    def _ends(self) -> set[str]:
        """Nodes that work on the restored picture itself; a correction that is added to a base is not that."""
        ends = set()
        pending = [(name, False) for name in PICTURES]
        while pending:
            name, is_correction = pending.pop()
            node = self._makers.get(name)
            if node is None or name in self._pictures:
                continue
            if node.op_type in _MOVING | _PICTURE_SUMS:
                ends.add(node.name)
                sources = self._sources(node)
                is_correction |= node.op_type in ("Add", "Sub") and not self._pictures.isdisjoint(sources)
                pending += [(source, is_correction) for source in sources]
            elif node.op_type == "Conv" and not is_correction:
                ends.add(node.name)
                weight = self._constants.get(node.input[1])
                if weight is not None and weight.dims[1] <= _COLOURS:  # a change of colours
                    pending.append((node.input[0], False))
        return ends

    def _before_sampling(self) -> set[str]:
        """Convolutions whose results tell where to sample: a step of 8 bits would be a jump of the picture."""
        found = set()
        pending = [node.input[1] for node in self._nodes if node.op_type == "GridSample"]
        while pending:
            node = self._makers.get(pending.pop())
            if node is None or node.name in found:
                continue
            found.add(node.name)
            if node.op_type != "Conv":
                pending += self._sources(node)
        return found

    def _integer(self, floats: set[str]) -> set[str]:
        integer, tensors = set(), self._memories - self._pictures
        for node in self._nodes:
            sources = self._sources(node)
            follows = node.op_type in _INTEGER and sources and tensors.issuperset(sources)
            convolves = node.op_type == "Conv" and node.input[1] in self._constants
            if node.name not in floats and (follows or convolves):
                integer.add(node.name)
                tensors = tensors.union(node.output)
        return integer


def _ranges(model: ModelProto, parts: _Parts, clips: Sequence[Tensor]) -> _Ranges:
    """The least and the greatest value over all frames of each tensor that may be quantised."""
    tensors = _quantisable(model, parts.integer)
    found: dict[str, list[tuple[Array, Array]]] = {name: [] for name in tensors}
    with tempfile.TemporaryDirectory() as folder:
        plain, measuring = (Path(folder) / f"{name}.onnx" for name in ("plain", "measuring"))
        plain.write_bytes(model.SerializeToString())
        measuring.write_bytes(_measuring(model, tensors).SerializeToString())
        exported, program = open_exported(plain), load(measuring)
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


def _quantised(model: ModelProto, ranges: _Ranges, integer: Collection[str]) -> ModelProto:
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


class _AsWritten(Program):
    """A file without ONNX Runtime's habit of quantising a float convolution, tensor-wise, between quantised ones."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path, without=["WeightBiasQuantization"])
        self._names = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))


def _restored(model: ModelProto, clips: Iterable[Tensor]) -> Tensor:
    """All values of all frames that a model restores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "restored.onnx"
        path.write_bytes(model.SerializeToString())
        exported = open_exported(path)
        exported.program = _AsWritten(path)
        return torch.cat([frame.flatten() for clip in clips for frame in exported.stream(clip)])
