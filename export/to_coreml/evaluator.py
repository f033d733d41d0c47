"""Computes what a saved ML program computes, on any system, out of the file alone.

Core ML runs on Apple's systems only. This reads the program's operations and weights from the package and computes
them one by one with PyTorch. A type that the program declares is honoured: what is declared half is rounded to half
after each operation. Sums inside one operation are in float32; in what order and precision Apple's units sum, and how
images are rounded to 8 bits (here to the nearest), is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.errors import CheckFailed
from export.to_coreml.operators import OPERATORS
from export.to_coreml.package import Package, main_function, quiet_coremltools, stored

__all__ = ["Evaluator"]

# "value", "type", "operation", "feature": messages of coremltools.proto, which have no types
Operand = Tensor | str


@dataclass(frozen=True)
class _Step:
    """One operation: what it takes by parameter, single operands or lists, and the names and types of its results."""

    kind: str
    parameters: Mapping[str, Any]
    results: tuple[tuple[str, Any], ...]
    spent: tuple[str, ...]
    """Names that no later operation reads."""


class Evaluator:
    """One function of a package, ready to run.

    Raises:
        CheckFailed: it has an operator or a type that is not known here, or Core ML would not load it: its
            specification version does not fit its operations, or its weights are said to be in another file.
    """

    def __init__(self, package: Package) -> None:
        description = package.model.description
        try:
            function, block = main_function(package.model)
        except ValueError as error:
            raise CheckFailed(f"The ML program cannot be computed: {error}.") from error
        self._package = package
        self._names = {number: name for name, number in _data_types().items()}
        self._inputs = {each.name: each.type for each in function.inputs}
        self._features = {each.name: each for each in (*description.input, *description.output)}
        self._outputs = tuple(block.outputs)
        self._constants: dict[str, Operand] = {}
        self._states: dict[str, Tensor] = {}
        self._steps: list[_Step] = []
        for operation in block.operations:
            self._take(operation)
        self._steps = _with_ends(self._steps, {*self._outputs, *self._constants, *self._inputs})
        self.forget()

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One run.

        Args:
            inputs: by name, float32; pictures of the type image (1, 3, H, W) in [0, 1], RGB.

        Returns:
            Results by name, float32; pictures of the type image in [0, 1], in steps of 1/255.

        Raises:
            CheckFailed: an input is missing or has another shape, or an operation fails.
        """
        known: dict[str, Operand] = dict(self._constants)
        for name, kind in self._inputs.items():
            if name in self._states:
                continue
            if name not in inputs:
                raise CheckFailed(f"The ML program needs the input {name}.")
            picture = self._is_image(name)
            given = (inputs[name] * 255).round().clamp(0, 255) if picture else inputs[name]
            self._check_size(name, given)
            known[name] = self._typed(given, kind, name)
        for step in self._steps:
            self._perform(step, known)
            for name in step.spent:
                del known[name]
        outputs = {name: known[name] for name in self._outputs}
        return {
            name: value.round().clamp(0, 255) / 255 if self._is_image(name) else value.float()
            for name, value in outputs.items()
            if isinstance(value, Tensor)
        }

    def forget(self) -> None:
        """Set every state to zeros, as Core ML makes them."""
        for name, kind in self._inputs.items():
            if kind.WhichOneof("type") == "stateType":
                self._states[name] = torch.zeros(_sides(kind.stateType.wrappedType))

    def _is_image(self, name: str) -> bool:
        return str(self._features[name].type.WhichOneof("Type")) == "imageType"

    def _check_size(self, name: str, given: Tensor) -> None:
        """Core ML refuses a shape that the feature does not enumerate."""
        taken = _shapes(self._features[name].type)
        if list(given.shape) not in taken:
            shapes = " or ".join(str(tuple(each)) for each in taken)
            raise CheckFailed(f"The ML program takes {name} of shape {shapes}, not {tuple(given.shape)}.")

    def _take(self, operation: Any) -> None:
        """Compute a constant, or note a step."""
        parameters: dict[str, Any] = {}
        for parameter, argument in operation.inputs.items():
            operands = [
                each.name if each.WhichOneof("binding") == "name" else _Given(self._constant(each.value))
                for each in argument.arguments
            ]
            parameters[parameter] = operands if parameter == "values" else operands[0]
        results = tuple((each.name, each.type) for each in operation.outputs)
        if operation.type == "const":
            self._constants[results[0][0]] = self._constant(operation.attributes["val"])
            return
        if operation.type not in OPERATORS and operation.type not in ("read_state", "write_state"):
            raise CheckFailed(f"The operator {operation.type} of the ML program is not known to the evaluator.")
        if operation.type.startswith("constexpr_"):
            for name, value in operation.attributes.items():
                if name != "name":
                    parameters[name] = _Given(self._constant(value))
            self._perform(_Step(operation.type, parameters, results, ()), self._constants)
            return
        self._steps.append(_Step(operation.type, parameters, results, ()))

    def _perform(self, step: _Step, known: dict[str, Operand]) -> None:
        if step.kind == "write_state":
            name = step.parameters["input"]
            written = _resolved(step.parameters["data"], known)
            held = self._typed(written, self._inputs[name].stateType.wrappedType, f"the state {name}")
            assert isinstance(held, Tensor)
            self._states[name] = held
            return
        if step.kind == "read_state":
            computed: Any = self._states[step.parameters["input"]]
        else:
            operands = {name: _resolved(operand, known) for name, operand in step.parameters.items()}
            try:
                computed = OPERATORS[step.kind](**operands)
            except (TypeError, RuntimeError, IndexError, ValueError) as error:
                reason = str(error).splitlines()[0]
                name = step.results[0][0]
                raise CheckFailed(f"The operator {step.kind} of the ML program fails at {name}: {reason}") from error
        values = computed if isinstance(computed, tuple) else (computed,)
        for (name, kind), value in zip(step.results, values, strict=True):
            known[name] = self._typed(value, kind, name)

    def _typed(self, value: Operand, kind: Any, name: str) -> Operand:
        """A result as declared.

        Raises:
            CheckFailed: its shape is not the declared one.
        """
        if isinstance(value, str):
            return value
        declared = kind.tensorType
        sides = _sides(kind)
        shape = list(value.shape)
        if len(sides) != len(shape) or any(side not in (-1, have) for side, have in zip(sides, shape, strict=True)):
            shapes = f"{tuple(shape)}, declared as {tuple(sides)}"
            raise CheckFailed(f"{name} of the ML program has the shape {shapes}.")
        type_name = self._names[declared.dataType]
        if type_name == "FLOAT16":
            return value.half().float()
        if type_name not in _HELD:
            raise CheckFailed(f"The type {type_name} of {name} in the ML program is not known to the evaluator.")
        return value.to(_HELD[type_name])

    def _constant(self, value: Any) -> Operand:
        kind = value.type
        type_name = self._names[kind.tensorType.dataType]
        if value.WhichOneof("value") == "blobFileValue":
            try:
                elements = stored(self._package, value.blobFileValue)
            except ValueError as error:
                raise CheckFailed(f"The weights of the ML program cannot be read: {error}.") from error
        else:
            tensor = value.immediateValue.tensor
            if type_name == "STRING":
                return str(tensor.strings.values[0])
            elements = _elements(tensor, type_name)
        plain = torch.from_numpy(elements.astype(_WIDE.get(elements.dtype.name, elements.dtype)))
        typed = self._typed(plain.reshape(_sides(kind)), kind, "a constant")
        assert isinstance(typed, Tensor)
        return typed


@dataclass(frozen=True)
class _Given:
    """An operand that stands in the operation itself."""

    value: Operand


_HELD = {
    "FLOAT32": torch.float32,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "UINT4": torch.uint8,
    "UINT6": torch.uint8,
    "INT16": torch.int32,
    "UINT16": torch.int32,
    "INT32": torch.int32,
    "UINT32": torch.int64,
    "BOOL": torch.bool,
}
_WIDE = {"float16": "float32", "uint16": "int32", "uint32": "int64"}  # what PyTorch lacks, or can do little with
_BYTES = {"FLOAT16": np.float16, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "UINT16": np.uint16,
          "UINT32": np.uint32}  # fmt: skip


def _elements(tensor: Any, type_name: str) -> Any:
    """What stands in the program itself, (n,)."""
    form = tensor.WhichOneof("value")
    if form == "bytes":
        return np.frombuffer(tensor.bytes.values, _BYTES[type_name])
    return np.array(getattr(tensor, form).values, {"floats": np.float32, "ints": np.int32, "bools": np.bool_}[form])


def _resolved(operand: Any, known: Mapping[str, Operand]) -> Any:
    if isinstance(operand, list):
        return [_resolved(each, known) for each in operand]
    return operand.value if isinstance(operand, _Given) else known[operand]


def _with_ends(steps: list[_Step], kept: set[str]) -> list[_Step]:
    """The steps, each told what it is the last to read, so that memory is not held."""
    ended: list[_Step] = []
    seen = set(kept)
    for step in reversed(steps):
        names = [name for name, _ in step.results]
        for operand in step.parameters.values():
            names += [each for each in (operand if isinstance(operand, list) else [operand]) if isinstance(each, str)]
        spent = tuple(dict.fromkeys(name for name in names if name not in seen))
        seen |= set(spent)
        ended.append(_Step(step.kind, step.parameters, step.results, spent))
    return ended[::-1]


def _data_types() -> dict[str, int]:
    with quiet_coremltools():
        from coremltools.proto import MIL_pb2

    return dict(MIL_pb2.DataType.items())


def _sides(kind: Any) -> list[int]:
    """The declared shape; -1 where it is open."""
    dimensions = kind.tensorType.dimensions
    return [each.constant.size if each.WhichOneof("dimension") == "constant" else -1 for each in dimensions]


def _shapes(kind: Any) -> list[list[int]]:
    """All shapes that a feature can have."""
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        sizes = image.enumeratedSizes.sizes if image.WhichOneof("SizeFlexibility") == "enumeratedSizes" else [image]
        return [[1, 3, each.height, each.width] for each in sizes]
    array = kind.multiArrayType
    if array.WhichOneof("ShapeFlexibility") == "enumeratedShapes":
        return [list(each.shape) for each in array.enumeratedShapes.shapes]
    return [list(array.shape)]
