from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from export.formats import export, format_named, open_exported
from export.interfaces import Order
from export.to_onnx.layout import layer_of, to_phone_operators, without_transposed
from students.fastdvdnet_mobile import FastDVDnetMobile
from tests.stand_ins.networks import METADATA, trained_like

SIDES = (5, 7)


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], f"node_{output}", **attributes)


def model_of(nodes, constants=None, inputs=("x",), channels=3, outputs=("y",), free=False):
    """A model of float32 tensors; constants are drawn at random where only their shape is given."""
    random = np.random.default_rng(0)
    sides = ["height", "width"] if free else list(SIDES)
    given = {
        name: random.normal(size=value).astype(np.float32) if isinstance(value, tuple) else np.array(value)
        for name, value in (constants or {}).items()
    }
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, [2, channels, *sides]) for name in inputs],
        [helper.make_tensor_value_info(name, kind, [None] * 4) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in given.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def outputs_of(model, sides=SIDES):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(1)
    values = {
        each.name: random.normal(size=[*each.shape[:2], *sides]).astype(np.float32) for each in session.get_inputs()
    }
    return session.run(None, values)


def rewritten(model, sides=SIDES):
    """The operators of the rewritten model, which must be valid and compute the same."""
    expected = outputs_of(model, sides)
    to_phone_operators(model)
    without_transposed(model)
    onnx.checker.check_model(model, full_check=True)
    used = {name for each in model.graph.node for name in each.input}
    assert {each.name for each in model.graph.initializer} == used - {each.name for each in model.graph.input} - {
        name for each in model.graph.node for name in each.output
    } - {""}
    for now, before in zip(outputs_of(model, sides), expected, strict=True):
        assert now.shape == before.shape
        assert np.abs(now - before).max() <= 1e-6 * max(1, np.abs(before).max())
    assert max(np.ptp(before) for before in expected) > 0.1, "nothing would be compared"
    return [each.op_type for each in model.graph.node]


def modes(model):
    shuffles = [each for each in model.graph.node if each.op_type == "DepthToSpace"]
    return [value.s.decode() for each in shuffles for value in each.attribute if value.name == "mode"]


def shuffle(source, target="y", block=2):
    return node("DepthToSpace", source, target, blocksize=block, mode="CRD")


CONV = node("Conv", "x w b", "c")
WEIGHTS = {"w": (12, 3, 1, 1), "b": (12,)}
TURNED = {
    "a convolution": ([CONV, shuffle("c")], WEIGHTS),
    "one without bias": ([node("Conv", "x w", "c"), shuffle("c")], WEIGHTS),
    "a larger block": ([CONV, shuffle("c", block=4)], {"w": (32, 3, 3, 3), "b": (32,)}),
    "the sum of two": (
        [CONV, node("Conv", "x v", "d"), node("Add", "c d", "s"), shuffle("s")],
        WEIGHTS | {"v": (12, 3, 1, 1)},
    ),
    "activations": (
        [
            CONV,
            node("Relu", "c", "r"),
            node("LeakyRelu", "r", "l", alpha=0.1),
            node("Clip", "l low", "k"),
            shuffle("k"),
        ],
        WEIGHTS | {"low": np.float32(-0.5)},
    ),
    "a slope for each channel": ([CONV, node("PRelu", "c slope", "p"), shuffle("p")], WEIGHTS | {"slope": (12, 1, 1)}),
    "one slope": ([CONV, node("PRelu", "c slope", "p"), shuffle("p")], WEIGHTS | {"slope": (1, 1, 1)}),
    "a gain and a shift": (
        [CONV, node("Mul", "gain c", "g"), node("Add", "g shift", "a"), shuffle("a")],
        WEIGHTS | {"gain": (1, 12, 1, 1), "shift": (1,)},
    ),
    "one after another": (
        [CONV, shuffle("c", "m"), node("Conv", "m v", "d"), shuffle("d")],
        WEIGHTS | {"v": (8, 3, 3, 3)},
    ),
}


@pytest.mark.parametrize("name", TURNED)
def test_depth_to_space_reads_place_by_place(name):
    nodes, constants = TURNED[name]
    model = model_of(nodes, constants)
    operators = rewritten(model)
    assert set(modes(model)) == {"DCR"}
    assert operators == [each.op_type for each in nodes]


KEPT = {
    "the convolution is seen elsewhere": ([CONV, shuffle("c"), node("Relu", "c", "z")], WEIGHTS, ("y", "z")),
    "it is an output": ([CONV, shuffle("c")], WEIGHTS, ("y", "c")),
    "something in between is seen": (
        [CONV, node("Relu", "c", "r"), shuffle("r"), node("Exp", "r", "z")],
        WEIGHTS,
        ("y", "z"),
    ),
    "a group is left": ([node("Conv", "x w b", "c", group=3), shuffle("c")], {"w": (12, 1, 1, 1), "b": (12,)}, ("y",)),
    "something else comes in": (
        [CONV, node("Concat", "x x x x", "f", axis=1), node("Add", "c f", "s"), shuffle("s")],
        WEIGHTS,
        ("y",),
    ),
    "one channel is spread over all": (
        [CONV, node("Conv", "x v", "d"), node("Mul", "c d", "s"), shuffle("s")],
        WEIGHTS | {"v": (1, 3, 1, 1)},
        ("y",),
    ),
    "a tensor comes in twice": ([CONV, node("Mul", "c c", "s"), shuffle("s")], WEIGHTS, ("y",)),
}


@pytest.mark.parametrize("name", KEPT)
def test_depth_to_space_stays_where_others_would_notice(name):
    nodes, constants, outputs = KEPT[name]
    model = model_of(nodes, constants, outputs=outputs)
    rewritten(model)
    assert modes(model) == ["CRD"]


def test_a_weight_that_another_convolution_reads_too_keeps_its_order_there():
    nodes = [CONV, node("Conv", "x w b", "z"), shuffle("c")]
    model = model_of(nodes, WEIGHTS, outputs=("y", "z"))
    rewritten(model)
    assert modes(model) == ["DCR"]
    assert len(model.graph.initializer) == 4


def test_two_convolutions_share_a_reordered_weight_too():
    nodes = [CONV, node("Conv", "u w b", "d"), shuffle("c", "y"), shuffle("d", "z")]
    model = model_of(nodes, WEIGHTS, inputs=("x", "u"), outputs=("y", "z"))
    rewritten(model)
    assert modes(model) == ["DCR", "DCR"]
    assert len(model.graph.initializer) == 2


@pytest.mark.parametrize(("factor", "biases"), [(2, 0), (2, 1), (3, 1)])
def test_a_transposed_convolution_without_overlap_becomes_a_convolution(factor, biases):
    deep = node("ConvTranspose", "x w b" if biases else "x w", "y", strides=[factor] * 2, kernel_shape=[factor] * 2)
    model = model_of([deep], {"w": (3, 4, factor, factor)} | ({"b": (4,)} if biases else {}))
    assert rewritten(model) == ["Conv", "DepthToSpace"]
    assert modes(model) == ["DCR"]


@pytest.mark.parametrize(
    ("attributes", "weight"),
    [
        ({"strides": [2, 2]}, (3, 4, 3, 3)),
        ({"strides": [2, 2], "pads": [1, 1, 1, 1]}, (3, 4, 2, 2)),
        ({"strides": [2, 2], "output_padding": [1, 1]}, (3, 4, 2, 2)),
        ({"strides": [2, 2], "group": 3}, (3, 4, 2, 2)),
        ({"strides": [2, 2], "dilations": [2, 2]}, (3, 4, 2, 2)),
        ({"strides": [2, 3]}, (3, 4, 2, 3)),
        ({}, (3, 4, 2, 2)),
        ({"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (3, 4, 2, 2)),
    ],
)
def test_other_transposed_convolutions_stay(attributes, weight):
    model = model_of([node("ConvTranspose", "x w", "y", **attributes)], {"w": weight})
    assert rewritten(model) == ["ConvTranspose"]


@pytest.mark.parametrize(
    "pads", [[0, 0, 2, 2, 0, 0, 2, 2], [0, 0, 0, 0, 0, 0, 1, 3], [0, 0, 1, 0, 0, 0, 0, 0], [1, 2, 0, 1, 0, 0, 0, 0]]
)
@pytest.mark.parametrize("free", [False, True])
def test_repeated_edges_become_slices(pads, free):
    model = model_of([node("Pad", "x pads", "p", mode="edge"), node("Relu", "p", "y")], {"pads": pads}, free=free)
    assert set(rewritten(model)) == {"Slice", "Concat", "Relu"}


@pytest.mark.parametrize(
    ("mode", "inputs", "pads"),
    [
        ("reflect", "x pads", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("constant", "x pads", [0, 0, 1, 1, 0, 0, 1, 1]),
        ("edge", "x pads", [0, 0, -1, 1, 0, 0, 1, 1]),
        ("edge", "x pads", [0] * 8),
        ("edge", "x pads  axes", [1, 1, 1, 1]),
    ],
)
def test_other_padding_stays(mode, inputs, pads):
    pad = helper.make_node("Pad", inputs.split(" "), ["y"], mode=mode)
    model = model_of([pad], {"pads": pads} | ({"axes": [2, 3]} if "axes" in inputs else {}))
    assert rewritten(model) == ["Pad"]


def test_layers_are_called_as_in_the_network():
    assert (
        layer_of(node("Conv", "x step.network.temp1.leave.weight step.network.temp1.leave.bias", "y")) == "temp1.leave"
    )
    assert layer_of(node("Conv", "x network.temp1.grow1.weight:1x1", "y")) == "temp1.grow1"
    assert layer_of(node("Conv", "x val_3", "y")) == "node_y"
    assert layer_of(node("Relu", "x", "y")) == "node_y"


@pytest.mark.parametrize(("precision", "least"), [("fp32", 110), ("fp16", 60)])
def test_an_exported_network_has_none_of_it_left(tmp_path, precision, least):
    torch.manual_seed(0)
    network = trained_like(FastDVDnetMobile((16, 16, 16)))
    path = tmp_path / "student.onnx"
    export(Order(network, METADATA, precision, streaming=True, sizes=((14, 18),)), format_named("onnx"), path)
    model = onnx.load(path)
    assert set(modes(model)) == {"DCR"}
    assert not {"Pad", "ConvTranspose"} & {each.op_type for each in model.graph.node}
    clip = torch.rand(4, 3, 14, 18)
    with torch.inference_mode():
        expected = torch.stack(list(network.stream(clip)))
    error = (torch.stack(list(open_exported(path, 1).stream(clip))) - expected).square().mean()
    assert -10 * error.log10() >= least
