"""What phones would not run as it stands: an exported .onnx file against what their accelerators are known to take.

Three sources, none of which runs anything: ONNX Runtime's own mobile usability checker; rules for what it does not
see, read in the sources of ONNX Runtime's NNAPI and Core ML providers; and what was measured with this project's
networks. So a file without errors can still be slow: measure it on the phone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.interfaces import Finding, Severity
from export.to_onnx.layout import attribute
from export.to_onnx.program import read_model

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["find_problems"]

_OPSET = 18  # that this project writes; ONNX Runtime has it since 1.14
_MOST_AXES = 4
_TABLES = {  # inside ONNX Runtime's package
    "Core ML (ML program)": "coreml_supported_mlprogram_ops.md",
    "Core ML (neural network)": "coreml_supported_neuralnetwork_ops.md",
}


def find_problems(path: Path) -> list[Finding]:
    """Check an exported .onnx file for Android's NNAPI and Apple's Core ML, as ONNX Runtime uses them.

    Returns:
        Errors first; a note each for an interface that takes the whole network.

    Raises:
        InputError: the file is missing, is not ONNX, or was not written by this project.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(read_model(path))
    findings = [*_by_checker(model), *_by_rules(model), *_by_form(model)]
    return sorted(findings, key=lambda finding: finding.severity)


def _by_checker(model: ModelProto) -> Iterator[Finding]:
    """What ONNX Runtime's checker says, as if sizes were fixed: free ones are a finding of their own."""
    from onnxruntime.tools.mobile_helpers import usability_checker as checker

    told = {name: checker.check_coreml_partitions(model, False, table) for name, table in _TABLES.items()}
    for name, parts in ({"NNAPI": checker.check_nnapi_partitions(model, False)} | told).items():
        nodes, taken = parts.num_nodes, parts.num_supported_nodes
        if nodes == taken and parts.num_partitions == 1:
            yield Finding(
                "note", name, nodes, "ONNX Runtime's checker, which sees names, finds that it takes all in one part."
            )
            continue
        lacks = sorted(each.removeprefix("ai.onnx:") for each in parts.unsupported_ops)
        way = "another network, or this one on the CPU"
        if "QuantizeLinear" in lacks:
            way = "fp32 or fp16; int8 is for the CPU, and for Qualcomm's QNN"
        advice = f"It takes {taken} of {nodes} nodes, in {parts.num_partitions} parts"
        advice += f", and has no {', '.join(lacks)}" if lacks else ", for others have five axes"
        yield Finding("error", name, nodes - taken, f"{advice}: use {way}.")


@dataclass(frozen=True)
class _Rule:
    """What is said of nodes that pass a test.

    Attributes:
        operators: that are tested; empty for all.
        called: in the finding; empty for each operator's own name.
    """

    severity: Severity
    operators: set[str]
    test: Callable[[NodeProto, _Seen], bool]
    advice: str
    called: str = ""


class _Seen:
    """A model with what rules ask of its tensors."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        values = {each.name: each.type.tensor_type for each in (*graph.value_info, *graph.input, *graph.output)}
        self.nodes = list(graph.node)
        self._axes = {name: len(kind.shape.dim) for name, kind in values.items()}
        self._types = {name: kind.elem_type for name, kind in values.items()}
        self._weights = {each.name: each for each in graph.initializer}
        self._makers = {name: node.op_type for node in self.nodes for name in node.output}

    def axes(self, node: NodeProto) -> int:
        return max((self._axes.get(name, 0) for name in (*node.input, *node.output)), default=0)

    def is_half(self, node: NodeProto) -> bool:
        from onnx import TensorProto

        return bool(node.input) and self._types.get(node.input[0]) == TensorProto.FLOAT16

    def is_quantised(self, node: NodeProto) -> bool:
        return self._makers.get(node.input[0]) == "DequantizeLinear"

    def has_few_groups(self, node: NodeProto) -> bool:
        weight = self._weights.get(node.input[1])
        depthwise = weight is not None and weight.dims[1] == 1
        return bool(attribute(node, "group", 1) > 1) and not depthwise


def _mode(node: NodeProto) -> str:
    default = {"DepthToSpace": b"DCR", "Pad": b"constant", "Resize": b"nearest"}[node.op_type]
    return str(attribute(node, "mode", default).decode())


_RULES = (
    _Rule(
        "error",
        {"DepthToSpace"},
        lambda node, seen: _mode(node) == "CRD",
        "NNAPI and Core ML's neural networks read by place (DCR) only: feed it from a convolution without groups that "
        "nothing else reads, then the export turns it round.",
    ),
    _Rule(
        "error",
        {"Pad"},
        lambda node, seen: _mode(node) != "constant",
        "NNAPI pads by a constant only, and Core ML's programs have no padding: let a convolution pad by zeros, or "
        "repeat the edge, which the export turns into slices.",
    ),
    _Rule(
        "error",
        {"Resize"},
        lambda node, seen: _mode(node) == "cubic",
        "NNAPI and Core ML have no cubic resize, and ONNX Runtime's is slow: use distill.layers.BicubicUpsample.",
    ),
    _Rule(
        "note",
        {"Resize"},
        lambda node, seen: _mode(node) != "cubic",
        "Whether it is taken hangs on its mode and coordinates: a transposed convolution without overlap always is.",
    ),
    _Rule(
        "error",
        {"ConvTranspose"},
        lambda node, seen: True,
        "NNAPI has none: export for a fixed size, which turns one whose kernel is its stride into a 1x1 convolution.",
    ),
    _Rule(
        "error",
        {"GridSample"},
        lambda node, seen: True,
        "NNAPI has none, and half precision moves what it samples: use a network without warping, such as "
        "vespcn-mobile.",
    ),
    _Rule(
        "error",
        set(),
        lambda node, seen: seen.axes(node) > _MOST_AXES,
        "NNAPI takes at most four axes: keep frames in the batch or in the channels.",
        "five axes",
    ),
    _Rule(
        "error",
        {"Conv"},
        lambda node, seen: seen.is_half(node) and seen.has_few_groups(node),
        "ONNX Runtime computed grouped convolutions wrongly in half precision on ARM: use none, or one channel a "
        "group.",
        "grouped Conv in fp16",
    ),
    _Rule(
        "error",
        set(),
        lambda node, seen: seen.is_half(node),
        "NNAPI takes float32 only: give it the fp32 file with the flag NNAPI_FLAG_USE_FP16; Core ML takes this one as "
        "an ML program.",
        "fp16",
    ),
    _Rule(
        "error",
        {"DepthToSpace", "Slice", "Split"},
        lambda node, seen: seen.is_quantised(node),
        "NNAPI does not take it in 8 bits, and ONNX Runtime's checker does not know: use fp32 for NNAPI; int8 is for "
        "the CPU, and for Qualcomm's QNN.",
    ),
    _Rule(
        "note",
        {"PRelu"},
        lambda node, seen: True,
        "ONNX Runtime's CPU leaves its fast memory layout for it: ReLU or leaky ReLU are quicker.",
    ),
)


def _by_rules(model: ModelProto) -> Iterator[Finding]:
    seen = _Seen(model)
    for rule in _RULES:
        nodes = [node for node in seen.nodes if not rule.operators or node.op_type in rule.operators]
        hits = [rule.called or node.op_type for node in nodes if rule.test(node, seen)]
        for operator in sorted(set(hits)):
            yield Finding(rule.severity, operator, hits.count(operator), rule.advice)


def _by_form(model: ModelProto) -> Iterator[Finding]:
    """What is not about nodes."""
    free = [each for each in model.graph.input if any(side.dim_param for side in each.type.tensor_type.shape.dim)]
    if free:
        advice = "NNAPI and Core ML take fixed sizes only: export with --size WIDTHxHEIGHT."
        yield Finding("error", "free sizes", len(free), advice)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > _OPSET:
            advice = f"Runtimes on phones may be older: export again, opset {_OPSET} runs since ONNX Runtime 1.14."
            yield Finding("note", f"opset {opset.version}", len(model.graph.node), advice)
