"""A graph on single pictures of four axes, for runtimes that know no batch and no further axes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.fx.node import map_aggregate

from export.quiet import quiet

__all__ = ["SinglePictures"]


class SinglePictures(nn.Module):
    """Computes what a program computes, for a tracer to see.

    What the program does to a batch is done to each picture by itself; axes before the last two are taken for one,
    channels; what does not depend on the inputs is a constant.

    Args:
        program: of fixed size; its inputs and outputs are (1, C, H, W).

    Raises:
        NotImplementedError: an operator mixes pictures in a way that is not known here.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        assert program.example_inputs is not None
        with quiet():
            functional = program.run_decompositions({})  # nothing in place, since pictures share what batches copy
        self.interpreter = _Interpreter(functional.module().requires_grad_(False))
        self.interpreter.run(*program.example_inputs[0])  # finds the constants

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """(1, C, H, W) each."""
        results: tuple[_Pictures, ...] = self.interpreter.run(*tensors)
        return tuple(result.each[0] for result in results)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """What stands for a tensor that depends on the inputs.

    Attributes:
        shape: of the tensor, (N, ..., H, W).
        each: N of (1, C, H, W), C being all axes between the first and the last two.
    """

    shape: tuple[int, ...]
    each: Sequence[Tensor]


class _Interpreter(Interpreter):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.constants: dict[str, Any] = {}

    def run_node(self, node: Node) -> Any:
        if node.op == "placeholder":
            return _Pictures(_shape(node), [super().run_node(node)])
        if node.op == "call_module":
            return None  # a guard on shapes
        if node.op != "call_function":
            return super().run_node(node)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if node.target in _FILLED or not _found(args):
            if node.name not in self.constants:
                self.constants[node.name] = _call(node, map_aggregate(args, partial(_at, 0)), kwargs)
            return self.constants[node.name]
        if node.target in _NOTHING:
            return args[0]
        rule = _RULES.get(node.target)
        result = None if rule is None else rule(node, *args)
        return _one_by_one(node, args, kwargs) if result is None else result


def _found(arguments: Any) -> list[_Pictures]:
    """All pictures in arguments."""
    found: list[_Pictures] = []
    map_aggregate(arguments, lambda each: found.append(each) if isinstance(each, _Pictures) else None)
    return found


def _at(place: int, argument: Any) -> Any:
    """One picture of the batch; what has one has it for all."""
    if isinstance(argument, _Pictures):
        return argument.each[place if len(argument.each) > 1 else 0]
    return argument


def _whole(argument: Any) -> Any:
    """A tensor in its own shape, of a batch of one."""
    return argument.each[0].reshape(argument.shape) if isinstance(argument, _Pictures) else argument


def _call(node: Node, args: Any, kwargs: Any) -> Any:
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _one_by_one(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Pictures:
    """Do the same to each picture."""
    found, shape = _found(args), _shape(node)
    axes = {len(pictures.shape) for pictures in found}
    pointwise = len(axes) == 1 and torch.Tag.pointwise in getattr(node.target, "tags", ())
    if axes == {4} or pointwise:
        count = max(len(pictures.each) for pictures in found)
        if shape[0] != count:
            raise _unknown(node)
        results = [_call(node, map_aggregate(args, partial(_at, place)), kwargs) for place in range(count)]
        if any(result.ndim == 4 and len(result) > 1 for result in results):
            raise _unknown(node)  # a constant has a batch of its own
    elif all(len(pictures.each) == 1 for pictures in found):
        results = [_call(node, map_aggregate(args, _whole), kwargs)]
    else:
        raise _unknown(node)
    return _Pictures(shape, [each if each.ndim == 4 else each.reshape(1, -1, *each.shape[-2:]) for each in results])


def _unknown(node: Node) -> NotImplementedError:
    return NotImplementedError(f"{node.target} over several pictures at once is not known to this export")


def _viewed(node: Node, source: _Pictures, *_: Any) -> _Pictures | None:
    """Other axes before the last two."""
    shape = _shape(node)
    if len(shape) < 3 or shape[-2:] != source.shape[-2:]:
        return None
    if node.target in _REORDERING and _sides(shape) != _sides(source.shape):
        return None
    return _grouped(shape, source.each)


def _sides(shape: tuple[int, ...]) -> list[int]:
    return [side for side in shape if side > 1]


def _grouped(shape: tuple[int, ...], parts: Sequence[Tensor]) -> _Pictures:
    """A tensor of this shape, the channels of whose pictures one after the other are those of the parts."""
    channels = math.prod(shape[1:-2])
    if any(part.shape[1] != channels for part in parts):
        whole = torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]
        starts = range(0, whole.shape[1], channels)
        parts = [whole[:, start : start + channels] for start in starts] if len(starts) > 1 else [whole]
    return _Pictures(shape, parts)


def _joined(node: Node, parts: Sequence[Any], axis: int = 0) -> _Pictures | None:
    """`cat` and `stack`."""
    shape = _shape(node)
    axis %= len(shape)
    if not all(isinstance(part, _Pictures) for part in parts):
        return None
    if axis < len(shape) - 2 and math.prod(shape[:axis]) == 1:
        return _grouped(shape, [picture for part in parts for picture in part.each])
    if node.target is _ATEN.stack.default and len(shape) == 4 and axis == 3 and shape[0] == 1:
        planes = torch.cat([part.each[0] for part in parts], 1)  # coordinates of a grid to sample from
        return _Pictures(shape, [planes.permute(0, 2, 3, 1)])
    return None


def _sliced(node: Node, source: _Pictures, axis: int = 0, *bounds: Any) -> _Pictures | None:
    start, stop, step = (*bounds, None, None, None)[:3]
    start, stop, step = slice(start, stop, step).indices(source.shape[axis])
    return None if step != 1 else _part(node, _shape(node), source, axis, start, stop)


def _selected(node: Node, source: _Pictures, axis: int, place: int) -> _Pictures | None:
    place %= source.shape[axis]
    return _part(node, _shape(node), source, axis, place, place + 1)


def _parted(node: Node, source: _Pictures, *rest: Any) -> list[_Pictures | None]:
    """`split`, `unbind` and the like."""
    axis = (*rest, 0)[0 if node.target is _ATEN.unbind.int else 1]
    shapes = [tuple(value.shape) for value in node.meta["val"]]
    sizes = [1] * len(shapes) if node.target is _ATEN.unbind.int else [shape[axis] for shape in shapes]
    bounds = zip(shapes, accumulate(sizes, initial=0), accumulate(sizes), strict=False)
    return [_part(node, shape, source, axis, start, stop) for shape, start, stop in bounds]


def _part(node: Node, shape: tuple[int, ...], source: _Pictures, axis: int, start: int, stop: int) -> _Pictures | None:
    """What lies between two places of an axis, seen in a shape; None for the last two axes."""
    axis %= len(source.shape)
    if axis >= len(source.shape) - 2:
        return None
    if math.prod(source.shape[:axis]) == 1:
        step = math.prod(source.shape[axis + 1 : -2])
        return _grouped(shape, _channels(source.each, start * step, stop * step))
    if axis == 1 and len(source.shape) == len(shape) == 4:
        return _Pictures(shape, [picture[:, start:stop] for picture in source.each])
    raise _unknown(node)


def _channels(pictures: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
    """Those between two places, counted over all pictures."""
    parts, done = [], 0
    for picture in pictures:
        count = picture.shape[1]
        low, high = max(start - done, 0), min(stop - done, count)
        if low < high:
            parts.append(picture if high - low == count else picture[:, low:high])
        done += count
    return parts


_ATEN = torch.ops.aten
_NOTHING = {
    _ATEN.alias.default,
    _ATEN.clone.default,
    _ATEN.contiguous.default,
    _ATEN.detach.default,
    _ATEN.dropout.default,
    _ATEN.to.dtype,
}
_FILLED = {_ATEN.new_full.default, _ATEN.new_ones.default, _ATEN.new_zeros.default}
_REORDERING = {_ATEN.permute.default, _ATEN.transpose.int}
_RULES: dict[Any, Callable[..., Any]] = {
    operator.getitem: lambda node, values, place: values[place],
    _ATEN._assert_tensor_metadata.default: lambda node, *_: (),
    _ATEN.cat.default: _joined,
    _ATEN.stack.default: _joined,
    _ATEN.slice.Tensor: _sliced,
    _ATEN.select.int: _selected,
    _ATEN.split.Tensor: _parted,
    _ATEN.split_with_sizes.default: _parted,
    _ATEN.chunk.default: _parted,
    _ATEN.unbind.int: _parted,
    _ATEN.flatten.using_ints: _viewed,
    _ATEN.permute.default: _viewed,
    _ATEN.reshape.default: _viewed,
    _ATEN.squeeze.dim: _viewed,
    _ATEN.transpose.int: _viewed,
    _ATEN.unflatten.int: _viewed,
    _ATEN.unsqueeze.default: _viewed,
    _ATEN.view.default: _viewed,
}
