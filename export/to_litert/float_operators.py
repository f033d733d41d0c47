"""Which operators of a LiteRT model stay in float when the others compute in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from export.graphs.graph import PICTURES

__all__ = ["picture_operators"]

_COLOURS = 3
_MOVING = (
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "PAD",
    "RESHAPE",
    "SLICE",
    "SPLIT",
    "STRIDED_SLICE",
    "TRANSPOSE",
)
_SUMS = ("ADD", "SUB", "MUL")
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def picture_operators(content: bytes) -> list[str]:
    """The scopes, as quantisation recipes know operators, of those that make a picture.

    That is all that is made of the frames without any activation, such as the bicubic base; and from the restored
    frame back all that moves or adds values, and convolutions to three colours or fewer. 8 bits would cost much there
    (46 instead of 65 dB against float, trained vespcn-mobile), and gain little.

    Args:
        content: of a .tflite file with a signature, float.
    """
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    model = tfl_flatbuffer_utils.read_model(content)
    graph = model.subgraphs[0]
    walk = _Walk(model, graph)
    kept = walk.forth() | walk.back()
    return [
        tfl_flatbuffer_utils.get_op_scope(op, graph.tensors)
        for place, op in enumerate(graph.operators)
        if place in kept
    ]


class _Walk:
    """Along a graph's operators, by their places."""

    def __init__(self, model: Any, graph: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        signature = model.signatureDefs[0]
        self.operators = graph.operators
        self.kinds = [kinds[model.operatorCodes[op.opcodeIndex].builtinCode] for op in graph.operators]
        self.shapes = [list(tensor.shape) for tensor in graph.tensors]
        self.makers = {int(tensor): place for place, op in enumerate(graph.operators) for tensor in op.outputs}
        self.given = {int(tensor) for tensor in graph.inputs}
        self.frames = {each.tensorIndex for each in signature.inputs if each.name.startswith(b"frame")}
        self.restored = [each.tensorIndex for each in signature.outputs if each.name.decode() in PICTURES]

    def forth(self) -> set[int]:
        pictures, kept = set(self.frames), set()
        for place, operator in enumerate(self.operators):
            varying = self._varying(place)
            if varying and pictures.issuperset(varying) and self._plain(place, (*_MOVING, *_SUMS, *_CONVOLUTIONS)):
                kept.add(place)
                pictures.update(map(int, operator.outputs))
        return kept

    def back(self) -> set[int]:
        kept: set[int] = set()
        waiting = list(self.restored)
        while waiting:
            place = self.makers.get(waiting.pop())
            if place is None or place in kept:
                continue
            if self._plain(place, (*_MOVING, *_SUMS)):
                kept.add(place)
                waiting += self._varying(place)
            elif self._plain(place, _CONVOLUTIONS) and self.shapes[self.operators[place].outputs[0]][-1] <= _COLOURS:
                kept.add(place)
                waiting += [tensor for tensor in self._varying(place) if self.shapes[tensor][-1] <= _COLOURS]
        return kept

    def _varying(self, place: int) -> list[int]:
        """Inputs that are no constants."""
        inputs: Iterable[int] = map(int, self.operators[place].inputs)
        return [tensor for tensor in inputs if tensor in self.makers or tensor in self.given]

    def _plain(self, place: int, kinds: tuple[str, ...]) -> bool:
        """Whether an operator is of these kinds, and has no activation in it."""
        options = self.operators[place].builtinOptions
        return self.kinds[place] in kinds and not getattr(options, "fusedActivationFunction", 0)
