"""Export to ONNX: one self-contained file that holds neither paths nor times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from distill.errors import CheckFailed
from export.graphs.graph import Graph, halved, traced
from export.interfaces import Order
from export.quiet import quiet
from export.to_onnx.layout import to_phone_operators, without_transposed

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

__all__ = ["check", "onnx_model"]

_OPSET = 18  # what the exporter writes without converting: oldest runtimes, fewest surprises


def onnx_model(order: Order) -> ModelProto:
    """The file's content in a floating-point precision, "fp32" or "fp16".

    In half precision frames still are float32, and memories are float16.

    Raises:
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    graph = order.graph()
    facts = order.facts()
    if order.precision == "fp16":
        graph = halved(graph)
        facts["memory_type"] = "float16"
    model = _translated(graph, type(order.network).__name__)
    _strip(model)
    to_phone_operators(model)
    if graph.free_size:
        _name_sizes(model, graph, order.network.scale)
    else:  # which alone accelerators take
        without_transposed(model)
    for key, value in sorted(facts.items()):
        model.metadata_props.add(key=key, value=value)
    check(model)
    return model


def _translated(graph: Graph, name: str) -> ModelProto:
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                traced(graph),
                tuple(graph.inputs.values()),
                dynamo=True,
                opset_version=_OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                verbose=False,
            )
    except Exception as error:  # whatever torch.export and the exporter raise
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise CheckFailed(f"{name} cannot be exported to ONNX: {cause}") from error
    assert program is not None
    return program.model_proto


def _strip(model: ModelProto) -> None:
    """Remove stack traces, source paths and the exporter's own notes, which no runtime reads."""
    graph = model.graph
    del graph.value_info[:]  # shapes of intermediate results: runtimes infer them
    del model.metadata_props[:]
    for holder in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del holder.metadata_props[:]
        holder.doc_string = ""


def _name_sizes(model: ModelProto, graph: Graph, scale: int) -> None:
    """Call the free sizes `height` and `width`, and enlarged ones `4*height` and `4*width`.

    Raises:
        CheckFailed: a size was fixed to the traced one, so that others would come out wrong.
    """
    enlarged = {memory.name: memory.enlarged for memory in graph.memories} | dict.fromkeys(graph.pictures, scale)
    for value in (*model.graph.input, *model.graph.output):
        factor = enlarged.get(value.name.removeprefix("next_"), 1)
        prefix = "" if factor == 1 else f"{factor}*"
        _name_last_two(value, f"{prefix}height", f"{prefix}width")


def _name_last_two(value: ValueInfoProto, *names: str) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim[-2:], names, strict=True):
        if not dimension.dim_param:
            raise CheckFailed(f"The exported graph fixes the {name} of `{value.name}`: pass a size to export for it.")
        dimension.dim_param = name


def check(model: ModelProto) -> None:
    """Check a graph against ONNX's rules.

    Raises:
        CheckFailed: it is not valid.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"The exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
