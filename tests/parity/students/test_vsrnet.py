"""VSRNet against the reference implementation, and its shared first layer against the plain path."""

from __future__ import annotations

import re

import pytest
import torch

from distill.errors import CheckpointError
from distill.networks.checkpoint import read
from students.vsrnet import VSRNet
from tests.stand_ins import checks
from tests.stand_ins.networks import randomise

SMALL = {"widths": (6, 4), "kernels": (5, 3, 3)}


def test_golden(golden, tmp_path):
    reference = golden("vsrnet_5f_y")
    torch.save(reference["state_dict"], tmp_path / "vsrnet.pth")
    loaded = read(tmp_path / "vsrnet.pth")
    assert loaded.described.name == "vsrnet"
    with torch.no_grad():
        restored = loaded.network.restore_planes(reference["input"])
    checks.assert_within_float32(restored.frames, reference["output"])
    checks.assert_within_float32(restored.hr_features, reference["taps"]["f_sr"])


def test_costs_are_the_tables():
    checks.assert_costs("vsrnet", 272_577, 0.0977)


@pytest.mark.parametrize(
    "keywords",
    [
        {"window": 3, "widths": (5, 4), "kernels": (9, 5, 5), "colour": "y"},
        {"window": 7, "widths": (4, 6), "kernels": (5, 1, 3), "colour": "rgb"},
        {"window": 1, "widths": (3, 2), "kernels": (3, 3, 3), "colour": "y"},
    ],
)
def test_sizes_come_from_the_tensors(tmp_path, keywords):
    network = randomise(VSRNet(**keywords))
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.keywords == {**keywords, "base": "none"}
    clip = torch.rand(1, 2, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(loaded.network(clip).frames, network(clip).frames)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("conv3.weight", None, "This VSRNet lacks the tensors conv3.weight"),
        ("conv1_f1.weight", None, "has 2 first layers of 6 channels, for 3 frames"),
        ("conv3.weight", torch.zeros(2, 4, 3, 3), "makes 2 planes"),
        ("conv2.weight", torch.zeros(4, 30), "has 4 dimensions"),
        ("conv1_f2.bias", None, "conv1_f2.bias is missing"),
    ],
)
def test_incomplete_files_are_named(tmp_path, name, change, sentence):
    state = VSRNet(**SMALL).state_dict()
    state.pop(name)
    torch.save(state if change is None else {**state, name: change}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb", "base": "bicubic"}, {"window": 3}])
@pytest.mark.parametrize(("size", "length"), [((8, 12), 7), ((5, 6), 2), ((4, 7), 1)])
def test_once_per_frame_equals_once_per_window(keywords, size, length):
    checks.assert_slides(randomise(VSRNet(**{**SMALL, **keywords})), size, length)


def test_a_first_layer_runs_once_per_clip():
    network = VSRNet(**SMALL)
    seen = []
    for index in range(3):
        network.get_submodule(f"conv1_f{index}").register_forward_hook(lambda *call: seen.append(call[1][0].shape[0]))
    with torch.no_grad():
        network(torch.rand(2, 4, 3, 4, 4))
    assert seen == [8, 8, 8]


def test_frames_at_equal_distance_share_a_filter():
    network = randomise(VSRNet(**SMALL))
    network.conv2.weight.data[:] = network.conv2.weight.data[:, :6].repeat(1, 5, 1, 1)
    frames = torch.rand(1, 5, 8, 8)
    with torch.no_grad():
        forth, back = (network.restore_planes(each).frames for each in (frames, frames.flip(1)))
    torch.testing.assert_close(forth, back, rtol=1e-5, atol=1e-5)


def test_the_base_is_what_training_starts_from():
    checks.assert_starts_at_bicubic(VSRNet(**SMALL, base="bicubic"), VSRNet(**SMALL))


def test_mixed_precision():
    checks.assert_mixed_precision(VSRNet(**SMALL, base="bicubic"))


def test_every_weight_learns():
    checks.assert_gradients(randomise(VSRNet(**SMALL)))


@pytest.mark.parametrize("keywords", [{"colour": "grey"}, {"window": 4}, {"kernels": (9, 4, 5)}, {"base": "nearest"}])
def test_wrong_keywords(keywords):
    with pytest.raises(ValueError, match=re.escape(str(next(iter(keywords.values()))))):
        VSRNet(**keywords)


@pytest.mark.slow
def test_onnx(tmp_path):
    checks.assert_exports(randomise(VSRNet(**SMALL, base="bicubic")), tmp_path / "vsrnet.onnx")


def test_frozen_vsrnet():
    checks.assert_frozen(randomise(VSRNet(**SMALL)), "vsrnet")
