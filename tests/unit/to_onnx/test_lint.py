from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from distill.errors import InputError
from export.formats import export, format_named
from export.interfaces import Order
from export.to_onnx.lint import find_problems
from students.vespcn_mobile import VESPCNMobile
from tests.stand_ins.networks import METADATA

FACTS = {"distill_vsr_version": "0", "scale": "4", "window": "1", "mode": "windowed"}


def written(path, nodes, constants=None, shape=(1, 4, 8, 8), kind=onnx.TensorProto.FLOAT, opset=18):
    """A file of ours of one input `x` and one output `y`."""
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    ends = [
        helper.make_tensor_value_info("x", kind, shape),
        helper.make_tensor_value_info("y", kind, [None] * len(shape)),
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(model, FACTS)
    onnx.save(model, path)
    return path


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def findings(path, severity="error"):
    return {finding.operator: finding.count for finding in find_problems(path) if finding.severity == severity}


def quantised(*nodes):
    return [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), *nodes]


HALF = np.ones((4, 2, 1, 1), np.float16)
SCALE = {"s": np.float32(0.1), "z": np.uint8(0)}
FOUND = {
    "DepthToSpace": ([node("DepthToSpace", "x", blocksize=2, mode="CRD")], {}, {}),
    "Pad": ([node("Pad", "x p", mode="reflect")], {"p": [0, 0, 1, 1, 0, 0, 1, 1]}, {}),
    "Resize": ([helper.make_node("Resize", ["x", "", "f"], ["y"], mode="cubic")], {"f": np.float32([1, 1, 2, 2])}, {}),
    "ConvTranspose": ([node("ConvTranspose", "x w", strides=[2, 2])], {"w": np.ones((4, 2, 3, 3), np.float32)}, {}),
    "GridSample": ([node("GridSample", "x g")], {"g": np.zeros((1, 8, 8, 2), np.float32)}, {}),
    "five axes": ([node("Relu", "x")], {}, {"shape": (1, 2, 4, 8, 8)}),
    "fp16": ([node("Relu", "x")], {}, {"kind": onnx.TensorProto.FLOAT16}),
    "grouped Conv in fp16": ([node("Conv", "x w", group=2)], {"w": HALF}, {"kind": onnx.TensorProto.FLOAT16}),
    "Split": (quantised(helper.make_node("Split", ["d"], ["y", "e"], axis=1, num_outputs=2)), SCALE, {}),
    "free sizes": ([node("Relu", "x")], {}, {"shape": (1, 4, "height", "width")}),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_phones_refuse_is_an_error(name, tmp_path):
    nodes, constants, options = FOUND[name]
    path = written(tmp_path / "bad.onnx", nodes, constants, **options)
    assert findings(path)[name] == 1
    (advice,) = [finding.advice for finding in find_problems(path) if finding.operator == name]
    assert advice.endswith(".")


FINE = {
    "depth to space by place": ([node("DepthToSpace", "x", blocksize=2, mode="DCR")], {}),
    "a depthwise convolution": ([node("Conv", "x w", group=4)], {"w": np.ones((4, 1, 1, 1), np.float32)}),
    "groups in float32": ([node("Conv", "x w", group=2)], {"w": np.ones((4, 2, 1, 1), np.float32)}),
}


@pytest.mark.parametrize("name", FINE)
def test_what_phones_take_is_none(name, tmp_path):
    nodes, constants = FINE[name]
    path = written(tmp_path / "fine.onnx", nodes, constants)
    assert findings(path) == {}
    assert findings(path, "note") == {"NNAPI": 1, "Core ML (ML program)": 1, "Core ML (neural network)": 1}


def test_padding_by_zeros_is_for_core_ml_programs_alone_to_refuse(tmp_path):
    path = written(tmp_path / "padded.onnx", [node("Pad", "x p")], {"p": [0, 0, 1, 1, 0, 0, 1, 1]})
    assert findings(path) == {"Core ML (ML program)": 1}


def test_a_depthwise_convolution_in_half_precision_is_not_a_grouped_one(tmp_path):
    half = np.ones((4, 1, 1, 1), np.float16)
    path = written(tmp_path / "half.onnx", [node("Conv", "x w", group=4)], {"w": half}, kind=onnx.TensorProto.FLOAT16)
    assert findings(path) == {"fp16": 1}


def test_nodes_are_counted_and_errors_come_first(tmp_path):
    nodes = [
        node("ConvTranspose", "x w", "a"),
        node("Relu", "a", "b"),
        node("ConvTranspose", "b w", "c"),
        node("PRelu", "c s"),
    ]
    weights = {"w": np.ones((4, 4, 3, 3), np.float32), "s": np.ones((4, 1, 1), np.float32)}
    found = find_problems(written(tmp_path / "deep.onnx", nodes, weights, opset=20))
    severities = [finding.severity for finding in found]
    assert severities == sorted(severities)
    counts = {finding.operator: finding.count for finding in found}
    assert counts.items() >= {"ConvTranspose": 2, "NNAPI": 2, "PRelu": 1, "opset 20": 4}.items()
    (parts,) = [finding.advice for finding in found if finding.operator == "NNAPI"]
    assert parts.startswith("It takes 2 of 4 nodes, in 2 parts, and has no ConvTranspose: use ")


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return VESPCNMobile(16, (16, 16, 16), (16,))


NOT_IN_8_BITS = {"Core ML (ML program)", "Core ML (neural network)", "DepthToSpace", "Slice", "Split"}
NOT_WHOLE = {"NNAPI", "Core ML (neural network)", "ConvTranspose", "free sizes"}


@pytest.mark.parametrize(
    ("precision", "sizes", "errors"),
    [
        ("fp32", ((16, 24),), set()),
        ("fp16", ((16, 24),), {"fp16"}),
        ("int8", ((16, 24),), NOT_IN_8_BITS),
        ("fp32", (), NOT_WHOLE),
    ],
)
def test_a_network_made_for_phones(student, precision, sizes, errors, tmp_path):
    path = tmp_path / "student.onnx"
    clips = [torch.rand(2, 3, 16, 24)]
    export(Order(student, METADATA, precision, streaming=True, sizes=sizes, clips=clips), format_named("onnx"), path)
    assert findings(path).keys() == errors
    assert "Core ML (ML program)" in findings(path) | findings(path, "note")


def test_a_file_that_is_not_ours(tmp_path):
    (tmp_path / "text.onnx").write_text("this is not a model\n")
    for name in ("text.onnx", "absent.onnx"):
        with pytest.raises(InputError):
            find_problems(tmp_path / name)
