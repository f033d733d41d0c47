from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from distill.data import degrade, find_clips, sample_clips
from distill.errors import CheckFailed, ConfigError
from distill.interfaces import Upsampled, WindowNetwork
from distill.layers import warp
from export.formats import export, format_named, open_exported
from export.interfaces import Order
from export.to_onnx.ort import ort_operators, write_ort
from export.to_onnx.quantize import measured
from export.to_onnx.sensitivity import layer_costs
from export.to_onnx.session import open_session
from students.vespcn_mobile import VESPCNMobile
from tests.stand_ins.networks import METADATA, trained_like

ONNX = format_named("onnx")
WIDTHS = (16, (16, 16, 16), (16, 16))


@pytest.fixture(scope="module")
def clip():
    """Three low-resolution frames of a real clip, 60 rows and 108 columns."""
    frames = find_clips(sample_clips("held_out"))[0].frames(0, 3)
    footage = torch.stack([torch.from_numpy(frame) for frame in frames]).permute(0, 3, 1, 2).float() / 255
    return degrade(footage, "bi")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return trained_like(VESPCNMobile(*WIDTHS))


@pytest.fixture(scope="module", params=[False, True], ids=["windowed", "streaming"])
def path(request, network, clip, tmp_path_factory):
    target = tmp_path_factory.mktemp("int8") / "student.onnx"
    export(Order(network, METADATA, "int8", request.param, clips=[clip]), ONNX, target)
    return target


def restored(network, clip):
    with torch.inference_mode():
        return torch.stack(list(network.stream(clip)))


def psnr(first: Tensor, second: Tensor) -> float:
    error = (first - second).square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def is_integer(model, conv):
    """Whether a convolution's weights come in 8 bits."""
    return any(conv.input[1] in node.output and node.op_type == "DequantizeLinear" for node in model.graph.node)


def layer(conv):
    return conv.input[1].split(".weight")[0].split("network.")[-1]


def test_the_file_computes_nearly_what_the_network_does(path, network, clip):
    expected = restored(network, clip)
    base = restored(VESPCNMobile(*WIDTHS).eval(), clip)
    assert psnr(base, expected) < 20, "the test would compare base images only"
    assert psnr(restored(open_exported(path, 1), clip), expected) > 35
    assert psnr(restored(open_exported(path, 1), clip[..., :37, :54]), restored(network, clip[..., :37, :54])) > 35


def test_all_but_the_base_is_in_integers(path):
    model = onnx.load(path)
    layers = {layer(node): is_integer(model, node) for node in model.graph.node if node.op_type == "Conv"}
    assert sum(layers.values()) == len(layers) - 1 == 13
    (base,) = [node for node in model.graph.node if node.op_type == "Conv" and not is_integer(model, node)]
    constants = {each.name: each for each in model.graph.initializer}
    assert tuple(constants[base.input[1]].dims) == (48, 3, 5, 5)
    float_weights = [
        each for each in constants.values() if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) > 1
    ]
    assert len(float_weights) == 1
    assert not {node.op_type for node in model.graph.node} & {"Relu", "Identity"}


def test_the_file_tells_what_it_is_and_loads_in_silence(path, capfd):
    metadata = open_exported(path, 1).program.metadata
    assert metadata.items() >= {"precision": "int8", "memory_type": "float32", **METADATA}.items()
    assert metadata["x64_session_options"] == "session.x64quantprecision=1"
    assert "onnx.infer" not in metadata
    assert {each.domain for each in onnx.load(path).opset_import} == {""}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings too
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert capfd.readouterr() == ("", "")


def test_the_same_network_and_clips_give_the_same_bytes(path, network, clip, tmp_path):
    streaming = "streaming" in open_exported(path, 1).program.metadata["mode"]
    export(Order(network, METADATA, "int8", streaming, clips=[clip]), ONNX, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("streaming", [False, True])
def test_the_base_loses_nothing_and_frames_keep_their_range(streaming, clip, tmp_path):
    silent = VESPCNMobile(*WIDTHS).eval()
    dark = clip * 0.3
    export(Order(silent, METADATA, "int8", streaming, ((60, 108),), [dark]), ONNX, tmp_path / "silent.onnx")
    exported = open_exported(tmp_path / "silent.onnx", 1)
    assert (restored(exported, clip) - restored(silent, clip)).abs().max() < 1e-5
    model = onnx.load(tmp_path / "silent.onnx")
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    (head,) = [node for node in model.graph.node if node.op_type == "Conv" and layer(node) == "head.0"]
    rounding = next(node for node in model.graph.node if head.input[0] in node.output)
    assert constants[rounding.input[1]] == np.float32(1 / 255)
    assert constants[rounding.input[2]] == 0


def test_frames_of_another_size_than_the_files(network, clip, tmp_path):
    for size in ((40, 60), (72, 116)):
        target = tmp_path / "fixed.onnx"
        export(Order(network, METADATA, "int8", True, (size,), [clip]), ONNX, target)
        frames = clip.repeat(1, 1, 2, 2)[..., : size[0], : size[1]]
        assert psnr(restored(open_exported(target, 1), frames), restored(network, frames)) > 35


def test_no_clips(network, tmp_path):
    for ask in (lambda order: export(order, ONNX, tmp_path / "student.onnx"), measured):
        with pytest.raises(ConfigError, match="needs real frames to measure ranges on, and none were given"):
            ask(Order(network, METADATA, "int8"))


class Warped(WindowNetwork):
    """Features moved by an estimated flow, and a picture that is no sum with a base."""

    window, lr_channels, hr_channels = 1, 8, None

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.flow = nn.Conv2d(8, 2, 3, padding=1)
        self.picture = nn.Conv2d(8, 48, 3, padding=1)

    def reconstruct(self, window: Tensor) -> Upsampled:
        features = self.middle(self.features(window[:, 0]))
        moved = warp(features, 5 * torch.tanh(self.flow(features)))
        return Upsampled(functional.pixel_shuffle(self.picture(moved), 4), None, features)


class Plain(WindowNetwork):
    """One convolution, which makes the picture."""

    window, lr_channels, hr_channels = 1, 3, None

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3, padding=1)

    def reconstruct(self, window: Tensor) -> Upsampled:
        return Upsampled(functional.pixel_shuffle(self.conv(window[:, 0]), 4), None, window[:, 0])


def test_what_samples_and_what_makes_the_picture_stays_in_float(clip, tmp_path):
    torch.manual_seed(0)
    network = Warped().eval()
    export(
        Order(network, METADATA, "int8", sizes=((60, 108),), clips=[clip]),
        ONNX,
        tmp_path / "warped.onnx",
    )
    assert psnr(restored(open_exported(tmp_path / "warped.onnx", 1), clip), restored(network, clip)) > 45
    model = onnx.load(tmp_path / "warped.onnx")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    integer = {layer(node) for node in convolutions if is_integer(model, node)}
    assert integer == {"features.0", "middle.0"}
    assert len(convolutions) == 4
    with pytest.raises(CheckFailed, match="No convolution of Plain can compute in 8 bits"):
        export(
            Order(Plain(), METADATA, "int8", sizes=((60, 108),), clips=[clip]),
            ONNX,
            tmp_path / "plain.onnx",
        )


def test_sensitivity_finds_the_layer_that_8_bits_ruin(clip):
    torch.manual_seed(0)
    network = trained_like(VESPCNMobile(*WIDTHS))
    with torch.no_grad():
        network.head[0].bias[3] = -100  # a feature that is always 0
        network.espcn[0].weight[:, 16 + 3] = 50  # and, in the centre frame, weights that leave the others no steps
    order = Order(network, METADATA, "int8", True, ((60, 108),), [clip])
    costs = layer_costs(measured(order))
    assert costs[0].layer == "espcn.0"
    assert costs[0].gain_db > 6
    assert costs[0].psnr_db > costs[-1].psnr_db
    assert [cost.gain_db for cost in costs] == sorted((cost.gain_db for cost in costs), reverse=True)
    layers = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)}
    assert {cost.layer for cost in costs} == layers


def test_the_form_for_onnx_runtimes_smallest_builds(path, clip, tmp_path):
    target = tmp_path / "student.ort"
    write_ort(path, target)
    # the rewritten graph has the kernels that ARM takes, so the other one must be kept from x86's precise ones
    exported, plain, small = open_exported(path, 1), open_session(path, settings={}), open_session(target)
    names = [each.name for each in plain.get_outputs()]
    inputs = list(exported.inputs_of(clip))[-1]
    for value, again in zip(plain.run(names, inputs), small.run(names, inputs), strict=True):
        assert np.abs(again - value).max() < 1e-5
    assert small.get_modelmeta().custom_metadata_map == exported.program.metadata
    assert b"student.onnx" not in target.read_bytes()
    lines = dict(line.rsplit(";", 1) for line in ort_operators(path).splitlines())
    assert "QLinearConv" in lines["com.microsoft;1"].split(",")
    assert lines["ai.onnx;11"] == "Conv"


def test_the_form_of_a_float_file_and_not_of_half_precision(network, tmp_path):
    halves, floats = (tmp_path / f"{precision}.onnx" for precision in ("fp16", "fp32"))
    for target in (halves, floats):
        export(Order(network, METADATA, target.stem, False, ((16, 24),)), ONNX, target)
    write_ort(floats, tmp_path / "floats.ort")
    inputs = {f"frame_{place}": np.random.default_rng(place).random((1, 3, 16, 24), np.float32) for place in range(3)}
    small = onnxruntime.InferenceSession(str(tmp_path / "floats.ort")).run(None, inputs)[0]
    assert np.abs(small - open_exported(floats, 1).program.run(inputs)["restored"]).max() < 1e-5
    with pytest.raises(ConfigError, match=r"fp16.onnx is fp16, and an \.ort file of it would compute in float32"):
        write_ort(halves, tmp_path / "halves.ort")
