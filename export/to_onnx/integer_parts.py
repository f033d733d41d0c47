"""Which nodes of a graph compute in integers, and which must stay in float for the picture's sake."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from export.graphs.graph import PICTURES

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["IntegerParts"]

_MOVING = {"Concat", "DepthToSpace", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_ACTIVATIONS = {"Clip", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"}
_PICTURE_SUMS = {"Add", "Cast", "Clip", "Div", "Mul", "Sub"}
_INTEGER = {"Add", "Concat", "DepthToSpace", "LeakyRelu", "Relu", "Slice", "Split"}  # besides convolutions
_COLOURS = 3


class IntegerParts:
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
