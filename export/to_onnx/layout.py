"""An ONNX graph in the operators that phones' accelerators have: the same function, its weights in another order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["attribute", "layer_of", "to_phone_operators", "without_transposed"]

_Constant = NDArray[Any]
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "PRelu", "Clip", "Tanh", "Sigmoid", "Cast"}
_MARK = ":"  # between a weight's name in the network and what has been done to it


def to_phone_operators(model: ModelProto) -> None:
    """Rewrite a model in place, in operators that Android's NNAPI and Core ML take and that cost a CPU nothing.

    - Padding that repeats edge pixels becomes slices and concatenations.
    - Depth to space that reads channel by channel (CRD) becomes one that reads place by place (DCR), and the
      convolutions in front of it give their channels in that order. It stays where anything else would see that.

    Args:
        model: its constants are initializers. They change places, never values.
    """
    graph = _Graph(model)
    for node in list(model.graph.node):
        if node.op_type == "Pad" and attribute(node, "mode", b"constant") == b"edge":
            _use_slices(graph, node)
    for node in model.graph.node:
        if node.op_type == "DepthToSpace" and attribute(node, "mode", b"DCR") == b"CRD":
            _read_by_place(graph, node)
    graph.drop_unused()


def without_transposed(model: ModelProto) -> None:
    """Rewrite a model in place: transposed convolutions whose kernel is their stride as 1x1 ones and depth to space.

    NNAPI has no transposed convolutions, and ONNX Runtime no 8-bit ones. In float32 the two take its CPU longer.

    Args:
        model: as above.
    """
    graph = _Graph(model)
    for node in list(model.graph.node):
        if node.op_type == "ConvTranspose":
            _use_convolution(graph, node)
    graph.drop_unused()


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, in bytes where it is text; the default where it is not given."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def layer_of(node: NodeProto) -> str:
    """What the network calls the layer that a node computes, such as "tail.conv"; the node's name where untold."""
    if len(node.input) < 2 or not node.input[1].split(_MARK)[0].endswith(".weight"):
        return str(node.name)
    name = str(node.input[1]).split(_MARK)[0].removesuffix(".weight")
    return name.removeprefix("step.").removeprefix("network.")


class _Graph:
    """A model's graph, with what rewriting it takes."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants = {each.name: each for each in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output}
        outputs = [each.name for each in self.graph.output]
        self.uses = Counter(outputs + [name for node in self.graph.node for name in node.input])

    def value(self, name: str) -> _Constant | None:
        """A constant's value; None of what is no constant."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def constant(self, name: str, value: _Constant) -> str:
        """Add a constant, once however often it is asked for."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
            self.graph.initializer.append(self.constants[name])
        return name

    def replace(self, node: NodeProto, others: list[NodeProto]) -> None:
        """Put nodes in a node's place."""
        place = list(self.graph.node).index(node)
        del self.graph.node[place]
        self.uses.subtract(node.input)
        for other in reversed(others):
            self.graph.node.insert(place, other)
        for stored in self.graph.node[place : place + len(others)]:
            self.producers |= dict.fromkeys(stored.output, stored)
            self.uses.update(stored.input)

    def drop_unused(self) -> None:
        """Remove constants that nothing uses any more."""
        used = {name for node in self.graph.node for name in node.input}
        for each in [each for each in self.graph.initializer if each.name not in used]:
            self.graph.initializer.remove(each)


def _use_convolution(graph: _Graph, node: NodeProto) -> None:
    from onnx import helper

    weight, *biases = (graph.value(name) for name in node.input[1:])
    if weight is None or not _is_unfolding(node, weight):
        return
    (output,), factor = node.output, weight.shape[2]
    by_place = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0], 1, 1)  # (row, column, out), in
    inputs = [node.input[0], graph.constant(f"{node.input[1]}{_MARK}1x1", by_place)]
    for bias in biases:
        if bias is None:
            return
        inputs.append(graph.constant(f"{node.input[2]}{_MARK}1x1", np.tile(bias, factor**2)))
    conv = helper.make_node("Conv", inputs, [f"{output}_places"], node.name, kernel_shape=[1, 1])
    name = f"{node.name}_shuffle"
    shuffle = helper.make_node("DepthToSpace", conv.output, [output], name, blocksize=factor, mode="DCR")
    graph.replace(node, [conv, shuffle])


def _is_unfolding(node: NodeProto, weight: _Constant) -> bool:
    """Whether each pixel becomes a square of its own."""
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        return False
    plain = {"group": 1, "pads": [0] * 4, "output_padding": [0] * 2, "dilations": [1] * 2, "auto_pad": b"NOTSET"}
    given = all(attribute(node, name, value) == value for name, value in plain.items())
    return given and attribute(node, "strides") == list(weight.shape[2:]) and attribute(node, "output_shape") is None


def _use_slices(graph: _Graph, node: NodeProto) -> None:
    from onnx import helper

    pads = graph.value(node.input[1])
    if pads is None or pads.size != 8 or pads.min() < 0 or not pads.any() or any(node.input[2:]):
        return
    (output,), now = node.output, node.input[0]
    widths = [(axis, int(pads[axis]), int(pads[axis + 4])) for axis in range(4) if pads[axis] or pads[axis + 4]]
    nodes = []
    for axis, before, after in widths:
        first, last = (f"{output}_{end}_{axis}" for end in ("first", "last"))
        whole = output if axis == widths[-1][0] else f"{output}_whole_{axis}"
        if before:
            nodes.append(helper.make_node("Slice", [now, *_bounds(graph, 0, 1, axis)], [first], first))
        if after:
            nodes.append(helper.make_node("Slice", [now, *_bounds(graph, -1, _OPEN_END, axis)], [last], last))
        parts = [first] * before + [now] + [last] * after
        nodes.append(helper.make_node("Concat", parts, [whole], f"{node.name}_{axis}", axis=axis))
        now = whole
    graph.replace(node, nodes)


_OPEN_END = 2**63 - 1  # of a slice


def _bounds(graph: _Graph, start: int, end: int, axis: int) -> list[str]:
    return [graph.constant(f"number{_MARK}{number}", np.array([number])) for number in (start, end, axis)]


def _read_by_place(graph: _Graph, node: NodeProto) -> None:
    square = attribute(node, "blocksize") ** 2
    constants = _channelwise(graph, node.input[0])
    if not constants or len({channels for _, _, channels in constants}) > 1:
        return  # a convolution to one channel that is spread over all has no order of its own
    channels = constants[0][2]
    order = np.arange(channels).reshape(-1, square).T.reshape(-1)  # (channel, place) -> (place, channel)
    for user, place, _ in constants:
        name = user.input[place]
        value = graph.value(name)
        assert value is not None
        moved = value.take(order, axis=0 if user.op_type == "Conv" else -3)
        user.input[place] = graph.constant(f"{name}{_MARK}{square}places", moved)
    next(each for each in node.attribute if each.name == "mode").s = b"DCR"


def _channelwise(graph: _Graph, name: str) -> list[tuple[NodeProto, int, int]] | None:
    """The constants that tensor `name` has its order of channels from: (node, which input, channels).

    None where it has it from anything else too, or where anything but the reader of `name` depends on it.
    """
    found: list[tuple[NodeProto, int, int]] = []
    pending = [name]
    while pending:
        name = pending.pop()
        node = graph.producers.get(name)
        if node is None or graph.uses[name] != 1:
            return None
        values = [graph.value(each) for each in node.input]
        constants = [(place, value) for place, value in enumerate(values) if value is not None]
        if node.op_type == "Conv" and attribute(node, "group", 1) == 1 and len(constants) == len(values) - 1:
            found += [(node, place, len(value)) for place, value in constants]
        elif node.op_type in _ELEMENTWISE:
            # (C, 1, 1) and the like; what has one channel serves all of them
            spread = [(place, value) for place, value in constants if value.ndim > 2 and value.shape[-3] > 1]
            found += [(node, place, value.shape[-3]) for place, value in spread]
            pending += [each for each, value in zip(node.input, values, strict=True) if each and value is None]
        else:
            return None
    return found
