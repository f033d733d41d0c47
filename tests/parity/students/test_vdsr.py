"""VDSR against the reference implementation, and the stack of seven frames that is one reading of STD's VSRNet."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional

from distill.errors import CheckpointError
from distill.layers import LumaChroma
from distill.networks.checkpoint import read
from students.vdsr import VDSR
from tests.stand_ins import checks
from tests.stand_ins.networks import randomise


def newer(state):
    """A state_dict in the names of the other published layout."""
    last = max(int(name.split(".")[1]) for name in state)
    names = {0: "input", last: "output"}
    return {
        f"{names.get(position, f'residual_layer.{position // 2 - 1}.conv')}.weight": state[
            f"features.{position}.weight"
        ]
        for position in range(0, last + 1, 2)
    }


@pytest.mark.parametrize("layout", [dict, newer])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_golden(golden, tmp_path, layout, wrapper):
    reference = golden("vdsr_small")
    state = {f"module.{name}": tensor for name, tensor in layout(reference["state_dict"]).items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "vdsr.pth")
    loaded = read(tmp_path / "vdsr.pth")
    assert loaded.described.name == "vdsr"
    assert loaded.described.keywords.items() >= reference["config"].items()
    with torch.no_grad():
        restored = loaded.network.restore_planes(reference["input"])
    checks.assert_within_float32(restored.frames, reference["output"])
    checks.assert_within_float32(restored.hr_features, reference["taps"]["f_sr"])


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("vdsr", 664_704, 0.2297), ("vdsr-rgb", 667_008, 0.2305), ("vsrnet-std", 677_376, 0.2341)],
)
def test_costs_are_the_tables(name, parameters, macs):
    checks.assert_costs(name, parameters, macs)


@pytest.mark.parametrize(
    ("keywords", "name"),
    [
        ({"hidden_convs": 0, "channels": 5}, "vdsr"),
        ({"hidden_convs": 3, "channels": 3, "colour": "rgb"}, "vdsr-rgb"),
        ({"hidden_convs": 1, "channels": 4, "colour": "rgb", "window": 7}, "vsrnet-std"),
        ({"hidden_convs": 2, "channels": 4, "colour": "y", "window": 3}, "vsrnet-std"),
    ],
)
@pytest.mark.parametrize("layout", [dict, newer])
def test_sizes_come_from_the_tensors(tmp_path, keywords, name, layout):
    network = randomise(VDSR(**keywords))
    torch.save(layout(network.state_dict()), tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.name == name
    assert loaded.described.keywords.items() >= keywords.items()
    clip = torch.rand(1, 2, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(loaded.network(clip).frames, network(clip).frames)


def broken(change):
    state = VDSR(3, 4).state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("features.4.weight"), "lacks features.4.weight"),
        (lambda state: state.pop("features.8.weight"), "makes 4 planes of 1"),
        (lambda state: [state.pop(f"features.{index}.weight") for index in (2, 4, 6, 8)], "all but the first"),
        (lambda state: state.update({"features.0.weight": torch.zeros(4, 2, 3, 3)}), "makes 1 planes of 2"),
    ],
)
def test_incomplete_files_are_named(tmp_path, change, sentence):
    torch.save(broken(change), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=re.escape(sentence)) as caught:
        read(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_other_networks_stacks_are_not_taken_for_it():
    classifier = {"features.0.weight": torch.zeros(4, 3, 3, 3), "features.0.bias": torch.zeros(4)}
    assert VDSR.recognise(classifier) is None
    assert VDSR.recognise({"features.0.weight": torch.zeros(4, 3)}) is None
    assert VDSR.recognise({}) is None


@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb"}, {"colour": "rgb", "window": 3}])
@pytest.mark.parametrize(("size", "length"), [((8, 12), 3), ((5, 6), 1)])
def test_clip_windows_and_stream_agree(keywords, size, length):
    checks.assert_slides(randomise(VDSR(2, 6, **keywords)), size, length)


def test_luminance_alone_is_restored():
    network = randomise(VDSR(2, 6))
    frame = torch.rand(1, 1, 3, 8, 12)
    space = LumaChroma()
    with torch.no_grad():
        ours = space(network.reconstruct(frame).frames)
        large = space(functional.interpolate(frame[:, 0], scale_factor=4, mode="bicubic", align_corners=False))
        expected = network.restore_planes(large[:, :1]).frames
    torch.testing.assert_close(ours[:, 1:], large[:, 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[:, :1], expected, rtol=0, atol=1e-5)
    assert (expected - large[:, :1]).abs().max() > 0.05


@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb", "window": 7}])
def test_an_untrained_network_is_the_bicubic_middle_frame(keywords):
    clip = torch.rand(1, 3, 3, 8, 8)
    with torch.no_grad():
        frames = VDSR(2, 8, **keywords)(clip).frames[0]
    expected = functional.interpolate(clip[0], scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(frames, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb", "window": 3}])
def test_a_fresh_network_sees_no_brightness(keywords):
    network = VDSR(2, 6, **keywords)
    flat = torch.rand(1, network.window * network.planes.count, 1, 1).expand(-1, -1, 16, 16)
    with torch.no_grad():
        features = network.restore_planes(flat).hr_features
    assert features[..., 4:-4, 4:-4].abs().max() < 1e-5
    assert features.abs().max() > 0.01, "where the picture ends there is an edge"


def test_mixed_precision():
    checks.assert_mixed_precision(VDSR(2, 6))


def test_every_weight_learns():
    checks.assert_gradients(randomise(VDSR(2, 6, "rgb", 3)))


@pytest.mark.parametrize("keywords", [{"colour": "grey"}, {"window": 4}, {"window": 0}])
def test_wrong_keywords(keywords):
    with pytest.raises(ValueError, match=str(next(iter(keywords.values())))):
        VDSR(**keywords)


@pytest.mark.slow
@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb", "window": 7}])
def test_onnx(tmp_path, keywords):
    checks.assert_exports(randomise(VDSR(2, 8, **keywords)), tmp_path / "vdsr.onnx")


def test_frozen_vdsr():
    checks.assert_frozen(randomise(VDSR(3, 8, window=3)), "vdsr")
