"""Export to LiteRT (TensorFlow Lite): one .tflite file of one size, tensors channels-last inside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distill.errors import ConfigError
from distill.interfaces import repeat_edges, windows
from export.footage import of_size
from export.graphs.decomposition import in_common_operators
from export.graphs.graph import Graph
from export.graphs.isolated import Conversion, convert_apart
from export.interfaces import Order
from export.to_litert.float_operators import picture_operators

if TYPE_CHECKING:
    from ai_edge_quantizer.quantizer import Quantizer

__all__ = ["METADATA", "SIGNATURE", "convert", "write"]

METADATA = "distill-vsr"
"""Name of the flatbuffer's metadata entry that holds, as JSON, what the file says of itself."""

SIGNATURE = "serving_default"
"""The signature by which inputs and outputs have their names; (1, H, W, C) each."""


def write(order: Order, target: Path) -> None:
    """Write a .tflite file, see `export.interfaces.Format.write`; precisions are "fp32", "fp16" and "int8".

    "fp16" holds weights in half precision; what computes with them is the runtime's choice. "int8" computes in 8 bits,
    weights of one scale a channel, activations of one scale a tensor, over ranges measured on the order's clips.
    Frames, memories and what is restored stay float32.

    Raises:
        ConfigError: "int8" is asked for without clips.
        CheckFailed: the network cannot be expressed in LiteRT.
    """
    graph = order.graph()
    samples = list(_samples(order, graph)) if order.precision == "int8" else []
    convert_apart(
        "LiteRT",
        "export.to_litert.conversion:convert",
        type(order.network).__name__,
        order.precision,
        graph,
        target,
        order.facts(),
        samples,
    )


def _samples(order: Order, graph: Graph) -> Iterator[dict[str, Tensor]]:
    """The inputs of every run that restores a frame of the order's clips.

    Raises:
        ConfigError: there are no clips.
    """
    if not order.clips:
        raise ConfigError("int8 needs real frames to measure ranges on, and none were given: give footage with --data.")
    for clip in order.clips:
        frames = of_size(clip, order.sizes[0]).float()
        window, before = order.network.window, order.network.time_scale - 1
        yield from _steps(graph, frames, window // 2, before) if order.streaming else _windows(frames, window, before)


def _windows(frames: Tensor, window: int, before: int) -> Iterator[dict[str, Tensor]]:
    for each in windows(frames[None], window, before)[0]:
        yield {f"frame_{place}": frame[None] for place, frame in enumerate(each)}


def _steps(graph: Graph, frames: Tensor, reach: int, before: int) -> Iterator[dict[str, Tensor]]:
    """Of a shot, without the runs before its first frame, whose memories still hold zeros."""
    memories = {memory.name: graph.inputs[memory.name] for memory in graph.memories}
    for place, frame in enumerate(repeat_edges(frames, reach)):
        inputs = {"frame": frame[None], **memories}
        if place >= 2 * reach + before:
            yield inputs
        with torch.inference_mode():
            following = graph.module(*inputs.values())[len(graph.pictures) :]
        memories = dict(zip(memories, following, strict=True))


def convert(conversion: Conversion) -> None:
    """Write the file that a conversion asks for."""
    import litert_torch

    module = _ChannelsLast(in_common_operators(conversion.program).module(), conversion.outputs)
    examples = conversion.program.example_inputs
    assert examples is not None
    named = dict(zip(conversion.inputs, (_last(tensor) for tensor in examples[0]), strict=True))
    content = _with_metadata(litert_torch.convert(module, sample_kwargs=named).model_content(), conversion.facts)
    conversion.target.write_bytes(content if conversion.precision == "fp32" else _quantised(content, conversion))


class _ChannelsLast(nn.Module):
    """Takes and gives (1, H, W, C), which the runtime needs to be fast; by name."""

    def __init__(self, module: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.outputs = module, outputs
        self.training = False  # a traced module refuses eval(), and the converter complains without

    def forward(self, **tensors: Tensor) -> dict[str, Tensor]:
        results = self.module(*(tensor.permute(0, 3, 1, 2) for tensor in tensors.values()))
        return dict(zip(self.outputs, (result.permute(0, 2, 3, 1) for result in results), strict=True))


def _last(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1).contiguous()


def _quantised(content: bytes, conversion: Conversion) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(content)
    if conversion.precision == "fp16":
        _halve_weights(quantizer)
        return bytes(quantizer.quantize().quantized_model)
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    everything = TFLOperationName.ALL_SUPPORTED
    quantizer.add_static_config(".*", everything, 8, 8)
    kept = [(".*", TFLOperationName.INPUT), (".*", TFLOperationName.OUTPUT)]
    kept += [(f"^{re.escape(scope)}$", everything) for scope in picture_operators(content)]
    for scope, operator in kept:
        quantizer.update_quantization_recipe(scope, operator, algorithm_key=AlgorithmName.NO_QUANTIZE)
    samples = [{name: _last(tensor).numpy() for name, tensor in each.items()} for each in conversion.samples]
    ranges = quantizer.calibrate({SIGNATURE: samples}, num_threads=1)
    return bytes(quantizer.quantize(ranges).quantized_model)


def _halve_weights(quantizer: Quantizer) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    half = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    quantizer.update_quantization_recipe(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, half, AlgorithmName.FLOAT_CASTING
    )


def _with_metadata(content: bytes, facts: dict[str, str]) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(json.dumps(facts, sort_keys=True).encode())
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
