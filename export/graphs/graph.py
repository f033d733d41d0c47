"""A network as every exporter takes it: named tensors of four axes in, named tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from distill.interfaces import Memory, SlidingNetwork, Step
from export.graphs.deploy import deployed

__all__ = ["PICTURES", "SIZE_MULTIPLE", "Graph", "halved", "streaming_graph", "traced", "windowed_graph"]

SIZE_MULTIPLE = 4
"""Networks pad to multiples of 4; in a graph of free size the caller does, so that no size is frozen into it."""

PICTURES = ("between", "restored")
"""The pictures that a graph gives, in order of time; a network that keeps the frame rate has the last alone."""

_TRACED = (24, 40)  # two sides that differ, so that neither is taken for the other


@dataclass(frozen=True)
class Graph:
    """What is exported, as PyTorch still runs it.

    Windowed, it takes the frames of a window, oldest first, `frame_0` to `frame_N`, each (1, 3, h, w), RGB in [0, 1],
    and gives `restored`, (1, 3, scale*h, scale*w), not clamped: the middle one. Streaming, it takes `frame` and one
    tensor `NAME` for each memory of the network's step, and gives `restored` and each memory anew, as `next_NAME`.

    Of a network that doubles the frame rate, both give `between` in front of `restored`, of the same shape: the frame
    half-way between the restored one and the one before it; and the windowed one takes the frame before the window too.

    Attributes:
        module: in eval mode, in float32; positional tensors in and a tuple of tensors out, in the order of the names.
        inputs: examples by name.
        outputs: their names.
        memories: what a streaming graph remembers; empty for a windowed one.
        free_size: whether height and width are left open (multiples of `SIZE_MULTIPLE`); the examples then have sizes
            of no meaning.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    memories: tuple[Memory, ...]
    free_size: bool

    @property
    def pictures(self) -> tuple[str, ...]:
        """Those outputs that are frames, some of `PICTURES`."""
        return tuple(name for name in self.outputs if name in PICTURES)


def windowed_graph(network: SlidingNetwork, size: tuple[int, int] | None) -> Graph:
    """The frames of one run -> its pictures, of the deployed copy; `network` stays as it is.

    Args:
        network: on any device, in any mode.
        size: (height, width) of the low-resolution frames; None leaves both free.
    """
    height, width = size or _TRACED
    frames = {f"frame_{place}": torch.zeros(1, 3, height, width) for place in range(network.taken)}
    return Graph(_Windowed(deployed(network).cpu()).eval(), frames, _pictures(network), (), size is None)


def streaming_graph(network: SlidingNetwork, size: tuple[int, int] | None) -> Graph:
    """A new frame and memories -> pictures and the next memories; otherwise as `windowed_graph`."""
    height, width = size or _TRACED
    step = deployed(network).cpu().step().eval()
    memories = {memory.name: torch.zeros(memory.shape(height, width)) for memory in step.memories}
    outputs = (*_pictures(network), *(f"next_{name}" for name in memories))
    inputs = {"frame": torch.zeros(1, 3, height, width), **memories}
    return Graph(_Streaming(step).eval(), inputs, outputs, step.memories, size is None)


def _pictures(network: SlidingNetwork) -> tuple[str, ...]:
    return PICTURES[-network.time_scale :]


def traced(graph: Graph) -> ExportedProgram:
    """The graph as torch.export sees it, without the fifth axis that windows have, where it can do without.

    Raises:
        Exception: whatever torch.export raises on what it cannot trace.
    """
    shapes = None
    if graph.free_size:
        # a side is 4 times a whole number, so padding to 4 is nothing and leaves the graph; 2, as 1 would be special
        height, width = SIZE_MULTIPLE * Dim("_height", min=2), SIZE_MULTIPLE * Dim("_width", min=2)
        enlarged = {memory.name: memory.enlarged for memory in graph.memories}
        scales = [enlarged.get(name, 1) for name in graph.inputs]
        shapes = (tuple({2: scale * height, 3: scale * width} for scale in scales),)
    with torch.no_grad():
        program = torch.export.export(graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes, strict=False)
    _unstack(program.graph_module)
    return program


def halved(graph: Graph) -> Graph:
    """The same in half precision, memories too, but for the frames at both ends, which stay float32."""
    remembered = {memory.name for memory in graph.memories}
    inputs = {name: tensor.half() if name in remembered else tensor for name, tensor in graph.inputs.items()}
    return replace(graph, module=_Half(graph.module.half(), len(graph.pictures)).eval(), inputs=inputs)


class _Half(nn.Module):
    def __init__(self, module: nn.Module, pictures: int) -> None:
        super().__init__()
        self.module, self.pictures = module, pictures

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        results = self.module(*(tensor.half() for tensor in tensors))
        return tuple(result.float() if place < self.pictures else result for place, result in enumerate(results))


class _Windowed(nn.Module):
    def __init__(self, network: SlidingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *frames: Tensor) -> tuple[Tensor, ...]:
        return self.network.run(torch.stack(frames, 1))


class _Streaming(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, *frame_and_memories: Tensor) -> tuple[Tensor, ...]:
        pictures_and_memories: tuple[Tensor, ...] = self.step(*frame_and_memories)
        return pictures_and_memories


def _unstack(module: GraphModule) -> None:
    """Replace what is taken out of a stack of tensors of batch 1 by those tensors, or by a concatenation of them.

    Networks see a window (1, T, C, h, w); phone runtimes refuse five axes, or move the data for nothing.
    """
    stacks: dict[Node, list[Node]] = {}  # a (1, T, C, h, w) node, or one (T, 1, C, h, w) -> its T parts (1, C, h, w)
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not node.args:
            continue
        source, *rest = _arguments(node)
        if node.target is _ATEN.stack.default and rest == [1] and _shape(node)[0] == 1:
            stacks[node] = list(source)
        elif node.target is _ATEN.unflatten.int and len(_shape(source)) == 4 and _shape(node)[0] == 1:
            stacks[node] = _slices(node, source, axis=rest[0])
        elif isinstance(source, Node) and source in stacks:
            _take(node, stacks[source], stacks)
    module.graph.eliminate_dead_code()
    module.recompile()


_ATEN = torch.ops.aten
_WHOLE: tuple[list[Any], ...] = ([], [None, None], [0, 2**63 - 1])  # bounds of a slice that takes everything


def _arguments(node: Node) -> tuple[Any, ...]:
    return node.args


def _slices(node: Node, source: Node, axis: int) -> list[Node]:
    """The parts of a stack that was unflattened out of channels (axis 1), or out of the batch (axis 0)."""
    count, width = _shape(node)[1], 1 if axis == 0 else _shape(node)[2]
    parts = []
    with node.graph.inserting_before(node):
        for place in range(int(count)):
            part = node.graph.call_function(_ATEN.slice.Tensor, (source, axis, place * width, (place + 1) * width))
            part.meta["val"] = node.meta["val"][:, place]
            parts.append(part)
    return parts


def _take(node: Node, parts: list[Node], stacks: dict[Node, list[Node]]) -> None:
    """Do what `node` does to a stack to its parts."""
    _, *rest = _arguments(node)
    axis = rest[0] if rest else 0
    if node.target is _ATEN.select.int and axis == 1:
        node.replace_all_uses_with(parts[rest[1]])
    elif node.target is _ATEN.unbind.int and axis == 1:
        for user in list(node.users):
            user.replace_all_uses_with(parts[_arguments(user)[1]])
    elif node.target is _ATEN.slice.Tensor and axis == 1:
        stacks[node] = parts[slice(*rest[1:])]
    elif (node.target is _ATEN.slice.Tensor and rest[1:] in _WHOLE) or (
        node.target is _ATEN.transpose.int and rest == [0, 1]
    ):
        stacks[node] = parts
    elif node.target in (_ATEN.flatten.using_ints, _ATEN.view.default, _ATEN.reshape.default):
        _merge(node, parts)


def _merge(node: Node, parts: list[Node]) -> None:
    """Merging the axis of parts with the batch or with the channels is a concatenation there."""
    one = _shape(parts[0])
    for axis in (0, 1):
        if _shape(node) == [*one[:axis], one[axis] * len(parts), *one[axis + 1 :]]:
            with node.graph.inserting_before(node):
                together = node.graph.call_function(_ATEN.cat.default, (parts, axis))
            together.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(together)
            return


def _shape(node: Node) -> list[int | torch.SymInt]:
    return list(node.meta["val"].shape)
