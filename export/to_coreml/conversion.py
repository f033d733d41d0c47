"""Export to Core ML: an ML program in a package, without paths, times or random identifiers."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from distill.errors import CheckFailed, ConfigError
from export.graphs.graph import SIZE_MULTIPLE, Graph, traced
from export.interfaces import Order
from export.quiet import quiet
from export.to_coreml.compression import add_compression
from export.to_coreml.package import Package, quiet_coremltools

__all__ = ["ml_package"]

# "operation", "model": coremltools' MIL operations and MLModel, which have no types

_TARGETS = (16, 18)


def ml_package(order: Order) -> Package:
    """The file's content; precisions are "fp32", "fp16", and "w8", "p6" and "p4" of `export.to_coreml.compression`.

    All but "fp32" compute in half precision and take and give half-precision arrays. A network that computes in half
    rounds its frames to it anyway, so the interface loses nothing, and saves a conversion on each side. Sampling
    positions, and the sampling itself, stay in float32, since halves would move samples by visible parts of a pixel.

    Streaming, what is remembered is state, which Core ML keeps, in half precision whatever the rest computes in.

    Raises:
        ConfigError: the order asks for what no such file can have.
        CheckFailed: the network cannot be expressed in Core ML.
    """
    images, ios = order.options.get("images", False), order.options.get("ios", _TARGETS[0])
    graph = _graph(order, ios)
    facts = _facts(order, graph, images=images)
    with quiet_coremltools() as messages, redirect_stderr(io.StringIO()), quiet(), torch.no_grad():  # bars go there
        try:
            wrapped = _wrapped(graph, images)
            program = _plain(traced(wrapped))
            model = _converted(program, wrapped, order, images, ios)
        except Exception as error:  # whatever torch.export and coremltools raise
            hint = " (one --size instead of several may help)" if len(order.sizes) > 1 else ""
            name, reason = type(order.network).__name__, _reason(error, messages)
            raise CheckFailed(f"{name} cannot be converted to Core ML: {reason}{hint}") from error
    spec = model.get_spec()
    _describe(spec, order, facts, images=images)
    weights = Path(model.weights_dir) / "weight.bin"
    return Package(spec, weights.read_bytes() if weights.is_file() else b"")


def _facts(order: Order, graph: Graph, *, images: bool) -> dict[str, str]:
    """What the file says of itself: `frame_type` is what it takes and gives, "image" being 8 bits, clamped."""
    facts = order.facts() | {"frame_type": "float32" if order.precision == "fp32" else "float16"}
    if images:
        facts |= {"frame_type": "image", "colour_range": "RGB 0..255"}
    if graph.memories:
        facts |= {"memories_inside": "yes", "memory_type": "float16"}
    return facts


def _graph(order: Order, ios: int) -> Graph:
    """What is exported, of free size where several are asked for.

    Raises:
        ConfigError: as `ml_package`.
    """
    if ios not in _TARGETS:
        raise ConfigError(f"A Core ML file is for iOS {' or '.join(map(str, _TARGETS))}, not {ios}.")
    several = len(order.sizes) > 1
    graph = (replace(order, sizes=()) if several else order).graph()
    if graph.memories and ios < 18:
        raise ConfigError(f"A streaming Core ML file keeps state, which iOS {ios} cannot: give --ios 18.")
    if several and graph.memories:
        raise ConfigError("A streaming Core ML file has one size, since state cannot change its own: give one --size.")
    if several and len(graph.inputs) > 1 and ios < 18:
        raise ConfigError(f"On iOS {ios} a network of several frames has one size: give one --size, or --ios 18.")
    for height, width in order.sizes if several else ():
        if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE:
            raise ConfigError(
                f"Of several sizes each must be a multiple of {SIZE_MULTIPLE}, not {width}x{height}: pad the frames, "
                "or give one --size."
            )
    return graph


def _wrapped(graph: Graph, images: bool) -> Graph:
    """The graph with its memories inside, and with results that can be pixels."""
    remembered = {memory.name for memory in graph.memories}
    frames = {name: tensor for name, tensor in graph.inputs.items() if name not in remembered}
    if images:
        graph = replace(graph, module=_Pixels(graph.module, len(graph.pictures)))
    module = _Remembering(graph) if graph.memories else graph.module
    return replace(graph, module=module.eval(), inputs=frames, outputs=graph.pictures, memories=())


class _Remembering(nn.Module):
    """Memories as buffers that are overwritten, which the converter makes state."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.module = graph.module
        self.pictures = len(graph.pictures)
        self.names = [memory.name for memory in graph.memories]
        for name in self.names:
            self.register_buffer(name, graph.inputs[name].clone())

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        memories = [self.get_buffer(name) for name in self.names]
        results: tuple[Tensor, ...] = self.module(frame, *memories)
        for memory, new in zip(memories, results[self.pictures :], strict=True):
            memory.copy_(new)
        return results[: self.pictures]


class _Pixels(nn.Module):
    """Results of 0..255, as Core ML's images have them."""

    def __init__(self, module: nn.Module, pictures: int) -> None:
        super().__init__()
        self.module, self.pictures = module, pictures

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        results = self.module(*tensors)
        return (*(each.clamp(0, 1) * 255 for each in results[: self.pictures]), *results[self.pictures :])


_ATEN = torch.ops.aten


def _plain(program: ExportedProgram) -> ExportedProgram:
    """In ATen operators alone, without those that pass a tensor on as it is: Core ML has none such."""
    program = program.run_decompositions({})
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is _ATEN.alias.default or (
            node.target is _ATEN.slice.Tensor and _shape(node) == _shape(node.args[0])
        ):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    results = graph.output_node().args[0]
    for specification, node in zip(program.graph_signature.output_specs, results, strict=True):
        specification.arg.name = node.name
    return program


def _shape(node: Any) -> list[str]:
    return [str(side) for side in node.meta["val"].shape]


def _converted(program: ExportedProgram, graph: Graph, order: Order, images: bool, ios: int) -> Any:
    import coremltools

    half = order.precision != "fp32"
    kind = np.float16 if half else np.float32
    compute = coremltools.transform.FP16ComputePrecision(_can_be_half) if half else coremltools.precision.FLOAT32
    shapes = [(1, 3, height, width) for height, width in order.sizes]
    shape = coremltools.EnumeratedShapes(shapes) if len(shapes) > 1 else shapes[0]
    if images:
        colours = coremltools.colorlayout.RGB
        inputs = [coremltools.ImageType(name, shape, scale=1 / 255, color_layout=colours) for name in graph.inputs]
        outputs = [coremltools.ImageType(name, color_layout=colours) for name in graph.outputs]
    else:
        inputs = [coremltools.TensorType(name, shape, kind) for name in graph.inputs]
        outputs = [coremltools.TensorType(name, dtype=kind) for name in graph.outputs]
    pipeline = coremltools.PassPipeline()
    # this pass looks up an operation that it has itself removed where two states are written one after the other
    pipeline.remove_passes({"common::canonicalize_inplace_pattern"})
    if order.precision not in ("fp32", "fp16"):
        add_compression(pipeline, order.precision, list(program.graph_signature.inputs_to_buffers))
    return coremltools.convert(
        program,
        inputs=inputs,
        outputs=outputs,
        minimum_deployment_target=coremltools.target[f"iOS{ios}"],
        compute_precision=compute,
        pass_pipeline=pipeline,
        skip_model_load=True,
    )


_ARITHMETIC_AND_MOVES = {
    "add", "cast", "concat", "cumsum", "expand_dims", "mul", "pixel_shuffle", "pixel_unshuffle", "real_div", "reshape",
    "slice_by_index", "split", "squeeze", "stack", "sub", "tile", "transpose", "upsample_bilinear",
}  # fmt: skip


def _can_be_half(operation: Any) -> bool:
    """Not sampling, nor what turns a flow into the positions it samples at, from the last convolution on."""
    return operation.op_type != "resample" and not _places_samples(operation)


def _places_samples(operation: Any) -> bool:
    if operation.op_type not in _ARITHMETIC_AND_MOVES:
        return False
    return any(
        (reader.op_type == "resample" and reader.coordinates is result) or _places_samples(reader)
        for result in operation.outputs
        for reader in result.child_ops
    )


def _describe(spec: Any, order: Order, facts: dict[str, str], *, images: bool) -> None:
    """Put the facts into the file, and drop what coremltools says there: the day, among others."""
    description = spec.description
    seen = "one frame after the other" if order.streaming else f"{order.network.taken} frames"
    made = "a restored frame" if order.network.time_scale == 1 else "a restored frame and the one half-way before it"
    description.metadata.Clear()
    description.metadata.shortDescription = (
        f"Video super-resolution x{order.network.scale}: {seen} in, {made} out, written by distill-vsr"
    )
    description.metadata.userDefined.update(facts)
    unit = "RGB" if images else "RGB in 0..1, one frame, channels, height, width"
    for feature in (*description.input, *description.output):
        feature.shortDescription = unit


def _reason(error: Exception, messages: list[str]) -> str:
    """What went wrong, and at which operator where coremltools says so."""
    error.__traceback__ = None  # else its frames hold temporary folders that warn when they are cleaned up at last
    found = re.search(r"converting '(\w+)' op", "\n".join(messages))
    place = f"the operator {found[1]} fails" if found else type(error).__name__
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{place}: {text}" if text else place
