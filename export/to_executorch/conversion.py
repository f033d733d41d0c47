"""Export to ExecuTorch: one .pte file of one size, computed by XNNPACK as far as it can."""

from __future__ import annotations

import json
from pathlib import Path

from export.graphs.decomposition import in_common_operators
from export.graphs.graph import halved
from export.graphs.isolated import Conversion, convert_apart
from export.interfaces import Order

__all__ = ["METADATA", "convert", "write"]

METADATA = "distill_vsr"
"""Name of the program's method that returns, as JSON, what the file says of itself."""


def write(order: Order, target: Path) -> None:
    """Write a .pte file, see `export.interfaces.Format.write`; precisions are "fp32" and "fp16".

    "fp16" computes in half precision and takes and gives float32 frames and float16 memories; its weights are stored
    in float32 all the same, as XNNPACK wants them.

    Raises:
        CheckFailed: the network cannot be expressed in ExecuTorch.
    """
    graph = order.graph()
    facts = order.facts() | {"inputs": json.dumps(list(graph.inputs)), "outputs": json.dumps(graph.outputs)}
    if order.precision == "fp16":
        graph = halved(graph)
        facts["memory_type"] = "float16"
    convert_apart(
        "ExecuTorch",
        "export.to_executorch.conversion:convert",
        type(order.network).__name__,
        order.precision,
        graph,
        target,
        facts,
    )


def convert(conversion: Conversion) -> None:
    """Write the file that a conversion asks for."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    methods = {METADATA: json.dumps(conversion.facts, sort_keys=True)}
    program = in_common_operators(conversion.program)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=methods)
    conversion.target.write_bytes(lowered.to_executorch().buffer)
