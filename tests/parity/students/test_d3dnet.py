"""D3DNet against the reference implementation."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional

from distill.errors import CheckpointError
from distill.networks.checkpoint import read
from students.d3dnet import D3DNet
from tests.stand_ins import checks
from tests.stand_ins.networks import randomise

SMALL = {"window": 3, "channels": 4, "align_blocks": 1, "reconstruct_blocks": 1}


def published(network):
    """A state_dict of ours in the published names."""
    return {name.replace("reconstruction.", "reconstruct."): tensor for name, tensor in network.state_dict().items()}


def test_golden(golden, tmp_path):
    reference = golden("d3dnet_small")
    torch.save({"state_dict": reference["state_dict"], "epoch": 3}, tmp_path / "d3dnet.pth.tar")
    loaded = read(tmp_path / "d3dnet.pth.tar")
    assert loaded.described.name == "d3dnet"
    after_blocks = []
    loaded.network.reconstruction.register_forward_hook(lambda *call: after_blocks.append(call[2]))
    with torch.no_grad():
        restored = loaded.network.restore_planes(reference["input"])
    checks.assert_within_float32(restored.frames, reference["output"])
    checks.assert_within_float32(restored.hr_features, reference["taps"]["f_sr"])
    checks.assert_within_float32(restored.lr_features, reference["taps"]["f_ta"])
    checks.assert_within_float32(after_blocks[0], reference["taps"]["f_lr"])


def test_published_key_list_opens(tmp_path):
    state = checks.published_zeros("d3dnet_keys")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.name == "d3dnet"
    assert loaded.described.keywords == {
        "window": 7, "channels": 64, "align_blocks": 5, "reconstruct_blocks": 6, "scale": 4, "colour": "y"
    }  # fmt: skip


def test_costs_are_the_tables():
    checks.assert_costs("d3dnet", 2_579_941, 0.3204)


@pytest.mark.parametrize(
    "keywords",
    [
        {"window": 5, "channels": 3, "align_blocks": 2, "reconstruct_blocks": 1, "scale": 2, "colour": "y"},
        {"window": 3, "channels": 2, "align_blocks": 1, "reconstruct_blocks": 3, "scale": 3, "colour": "rgb"},
    ],
)
def test_sizes_come_from_the_tensors(tmp_path, keywords):
    network = randomise(D3DNet(**keywords))
    torch.save({"state_dict": published(network)}, tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.keywords == keywords
    clip = torch.rand(1, 2, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(loaded.network(clip).frames, network(clip).frames)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("TA.weight", None, "This D3DNet lacks the tensors TA.weight"),
        ("residual_layer.0.dcn1.bias", None, "residual_layer.0.dcn1.bias is missing"),
        ("residual_layer.0.dcn0.conv_offset.weight", torch.zeros(81, 4, 3, 3, 3), "81 offsets; expected 54"),
        ("input.0.weight", torch.zeros(4, 2, 3, 3, 3), "3 frames of 2 planes"),
    ],
)
def test_incomplete_files_are_named(tmp_path, name, change, sentence):
    state = published(D3DNet(**SMALL))
    state.pop(name)
    torch.save(state if change is None else {**state, name: change}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb", "scale": 2}])
@pytest.mark.parametrize(("size", "length"), [((8, 12), 3), ((5, 6), 1)])
def test_clip_windows_and_stream_agree(keywords, size, length):
    checks.assert_slides(randomise(D3DNet(**{**SMALL, **keywords}), 0.7), size, length)


def test_an_untrained_network_is_the_bilinear_middle_frame():
    clip = torch.rand(1, 3, 3, 8, 8)
    with torch.no_grad():
        frames = D3DNet(**SMALL, colour="rgb")(clip).frames[0]
    expected = functional.interpolate(clip[0], scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-6)


def test_mixed_precision():
    checks.assert_mixed_precision(D3DNet(**SMALL))


def test_every_weight_learns():
    checks.assert_gradients(randomise(D3DNet(**SMALL)))


@pytest.mark.parametrize("keywords", [{"colour": "grey"}, {"window": 4}])
def test_wrong_keywords(keywords):
    with pytest.raises(ValueError, match=str(next(iter(keywords.values())))):
        D3DNet(**keywords)


@pytest.mark.slow
def test_onnx(tmp_path):
    checks.assert_exports(randomise(D3DNet(**SMALL)), tmp_path / "d3dnet.onnx")


def test_frozen_d3dnet():
    checks.assert_frozen(randomise(D3DNet(**SMALL)), "d3dnet")
