"""What a graph asks of whatever runs it: its operators, their multiply-accumulates, and the memory they keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["KINDS", "MANY_AXES", "Operation", "Workload", "workload"]

_ATEN = torch.ops.aten

Shape = tuple[int, ...]

MANY_AXES = "more than 4 axes"
"""What a device table says of operators on tensors of five axes and more, whatever else they are."""

_NAMES: Mapping[Any, str] = {
    _ATEN.conv2d: "Conv",
    _ATEN.conv3d: "Conv3d",
    _ATEN.conv_transpose2d: "ConvTranspose",
    _ATEN.linear: "MatMul",
    _ATEN.matmul: "MatMul",
    _ATEN.einsum: "Einsum",
    _ATEN.grid_sampler: "GridSample",
    _ATEN.upsample_bilinear2d: "Resize bilinear",
    _ATEN.upsample_bicubic2d: "Resize bicubic",
    _ATEN.upsample_nearest2d: "Resize nearest",
    _ATEN.pixel_shuffle: "DepthToSpace",
    _ATEN.pixel_unshuffle: "SpaceToDepth",
    _ATEN.avg_pool2d: "AveragePool",
    _ATEN.max_pool2d: "MaxPool",
    _ATEN.batch_norm: "BatchNormalization",
    _ATEN.prelu: "PRelu",
    _ATEN.relu: "Relu",
    _ATEN.relu_: "Relu",
    _ATEN.leaky_relu: "LeakyRelu",
    _ATEN.leaky_relu_: "LeakyRelu",
    _ATEN.clamp: "Clip",
    _ATEN.tanh: "Tanh",
    _ATEN.sigmoid: "Sigmoid",
    _ATEN.add: "Add",
    _ATEN.sub: "Sub",
    _ATEN.mul: "Mul",
    _ATEN.div: "Div",
    _ATEN.neg: "Neg",
    _ATEN.cat: "Concat",
    _ATEN.stack: "Concat",
    _ATEN.slice: "Slice",
    _ATEN.select: "Slice",
    _ATEN.split: "Split",
    _ATEN.chunk: "Split",
    _ATEN.unbind: "Split",
    _ATEN.transpose: "Transpose",
    _ATEN.permute: "Transpose",
    _ATEN.repeat: "Tile",
    _ATEN.repeat_interleave: "Tile",
    _ATEN.expand: "Expand",
    _ATEN.gather: "GatherElements",
    _ATEN.index: "GatherND",
}
_PADS = {"constant": "Pad", "replicate": "Pad edge", "reflect": "Pad reflect"}

KINDS = frozenset(_NAMES.values()) | frozenset(_PADS.values()) | {MANY_AXES}
"""Kinds of operators that a device table can speak of: ONNX names, with the mode where it matters."""

_FUSED = frozenset({"Relu", "LeakyRelu", "Clip", "Tanh", "Sigmoid"})  # every phone runtime does them with the operator
_PRODUCERS = frozenset({"Conv", "ConvTranspose"})
_SAME_BYTES = frozenset(
    {_ATEN.alias, _ATEN.view, _ATEN.reshape, _ATEN.flatten, _ATEN.unflatten, _ATEN.squeeze, _ATEN.unsqueeze}
    | {_ATEN.to, _ATEN.contiguous, _ATEN.detach, _ATEN.dropout, _ATEN.clone}
)
_KNOWN_BEFORE = frozenset({_ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like, _ATEN.new_zeros, _ATEN.new_full})


@dataclass(frozen=True)
class Operation:
    """One operator at one size; tensors by their shapes.

    Attributes:
        name: in the exported graph.
        kind: one of `KINDS`, or PyTorch's own name where none fits.
        macs: multiply-accumulates.
        channels: output channels that one weight tensor of one group makes; 0 where there are none to count.
        read: activations.
        written: activations.
        weights: elements of weights and biases read.
        free: costs nothing: a change of shape alone, part of the operator before it, or known before the first run.
    """

    name: str
    kind: str
    macs: int
    channels: int
    read: tuple[Shape, ...]
    written: tuple[Shape, ...]
    weights: int
    free: bool

    @property
    def elements(self) -> int:
        """Activations moved, weights not counted."""
        return sum(map(math.prod, self.read + self.written))

    @property
    def kinds(self) -> set[str]:
        """Its kind, and `MANY_AXES` where it is of that too."""
        many = any(len(shape) > 4 for shape in self.read + self.written)
        return {self.kind, MANY_AXES} if many else {self.kind}


@dataclass(frozen=True)
class Workload:
    """A whole graph at one size.

    Attributes:
        operations: in the order in which they run.
        peak_elements: the most elements of activations alive at once, inputs and outputs counted.
        weights: elements of all weights and other constants.
    """

    operations: tuple[Operation, ...]
    peak_elements: int
    weights: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(operation.macs for operation in self.operations)


def workload(program: ExportedProgram) -> Workload:
    """Read a graph of fixed size; nothing is computed.

    Multiply-accumulates are counted by `torch.utils.flop_counter` on tensors without content. The peak is that of a
    runtime that runs operators in the order of the graph, frees each tensor after its last use, and lets changes of
    shape and activations share the memory of what they change. What depends on no input is taken for a constant.

    Args:
        program: as `export.graphs.graph.traced` makes it, of fixed size.
    """
    return _Reader(program).read()


class _Reader:
    def __init__(self, program: ExportedProgram) -> None:
        self.nodes = [node for node in program.graph.nodes if _shapes(node)]
        placeholders = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
        self.inputs = {node for node in self.nodes if placeholders.get(node.name) is InputKind.USER_INPUT}
        output = program.graph.output_node()
        self.outputs = [node for node in output.all_input_nodes if _shapes(node)]
        self.constants: set[Node] = set()
        for node in self.nodes:
            known = _packet(node) in _KNOWN_BEFORE or self.constants.issuperset(_sources(node))
            if known and node not in self.inputs:
                self.constants.add(node)
        self.active = [node for node in self.nodes if node not in self.constants]

    def read(self) -> Workload:
        calls = [node for node in self.active if node.op == "call_function"]
        constants = (node for node in self.constants if self.active_users(node))
        return Workload(
            tuple(self.operation(node) for node in calls),
            self.peak(),
            sum(map(_elements, constants)),
        )

    def active_users(self, node: Node) -> bool:
        return any(user not in self.constants for user in node.users)

    def operation(self, node: Node) -> Operation:
        kind = _kind(node)
        sources = list(dict.fromkeys(_sources(node)))
        macs = _macs(node)
        return Operation(
            node.name,
            kind,
            macs,
            _channels(node) if macs else 0,
            tuple(shape for source in sources if source not in self.constants for shape in _shapes(source)),
            tuple(_shapes(node)),
            sum(_elements(source) for source in sources if source in self.constants),
            self.shares(node),
        )

    def shares(self, node: Node) -> bool:
        """Whether its result needs no memory, and no time, of its own."""
        packet = _packet(node)
        source = next((each for each in _sources(node) if each not in self.constants), None)
        if source is None or packet is None:
            return packet is None  # getitem: part of what the operator before it wrote
        if packet in _SAME_BYTES:
            return True
        if _kind(node) == "Slice" and _shapes(node) == _shapes(source):
            return True
        return _kind(node) in _FUSED and _kind(source) in _PRODUCERS and len(source.users) == 1

    def peak(self) -> int:
        owner: dict[Node, Node] = {}  # whose memory a node's result lies in
        for node in self.active:
            source = next((each for each in _sources(node) if each not in self.constants), None)
            shared = node.op == "call_function" and source is not None and self.shares(node)
            owner[node] = owner[source] if shared and source is not None else node
        place = {node: index for index, node in enumerate(self.active)}
        last = {node: place[node] for node in self.active}
        for node in self.active:
            for source in _sources(node):
                if source in owner:
                    last[owner[source]] = max(last[owner[source]], place[node])
        for node in (*self.inputs, *self.outputs):  # the caller holds them
            if node in owner:
                last[owner[node]] = len(self.active) - 1
        changes = [0] * (len(self.active) + 1)
        for node in self.active:
            if owner[node] is node:
                changes[0 if node in self.inputs else place[node]] += _elements(node)
                changes[last[node] + 1] -= _elements(node)
        return max(accumulate(changes))


def _packet(node: Node) -> Any:
    """The operator without its overload; None for what is no PyTorch operator."""
    return getattr(node.target, "overloadpacket", None)


def _kind(node: Node) -> str:
    packet = _packet(node)
    if packet is _ATEN.pad:
        mode = node.args[2] if len(node.args) > 2 else "constant"
        return _PADS.get(str(mode), f"Pad {mode}")
    return _NAMES.get(packet, str(packet).removeprefix("aten."))


def _sources(node: Node) -> list[Node]:
    return [source for source in node.all_input_nodes if _shapes(source)]


def _shapes(node: Node) -> list[Shape]:
    value = node.meta.get("val")
    values: Iterable[object] = value if isinstance(value, Sequence) else (value,)
    return [tuple(map(int, each.shape)) for each in values if isinstance(each, Tensor)]


def _elements(node: Node) -> int:
    return sum(map(math.prod, _shapes(node)))


def _macs(node: Node) -> int:
    """Run it on the tensors without content that stand for its inputs."""
    if _packet(node) is None:
        return 0
    args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda source: source.meta["val"])
    mode = next(value.fake_mode for value in _fakes(node))
    with mode, FlopCounterMode(display=False) as counter, torch.no_grad():
        node.target(*args, **kwargs)  # type: ignore[operator]
    return int(counter.get_total_flops()) // 2


def _fakes(node: Node) -> list[Any]:
    values = [node.meta["val"], *(source.meta.get("val") for source in node.all_input_nodes)]
    return [
        each for value in values for each in (value if isinstance(value, Sequence) else (value,)) if each is not None
    ]


def _channels(node: Node) -> int:
    (written,) = _shapes(node)[:1]
    axis = 1 if _packet(node) in (_ATEN.conv2d, _ATEN.conv3d, _ATEN.conv_transpose2d) else len(written) - 1
    return written[axis] // _groups(node)


def _groups(node: Node) -> int:
    """Of a convolution; a depthwise one counts as undivided, since its channels are worked on side by side."""
    position = {_ATEN.conv2d: 6, _ATEN.conv3d: 6, _ATEN.conv_transpose2d: 6}.get(_packet(node))
    if position is None or len(node.args) <= position:
        return 1
    groups = int(node.args[position])  # type: ignore[arg-type]
    return 1 if groups == _shapes(node)[0][1] else groups
