"""EDVR against the reference implementation, through the public loader, and frozen for those without its tensors."""

from __future__ import annotations

import json

import pytest
import torch

import distill
from distill.interfaces import windows
from distill.networks.checkpoint import read
from teachers.deformable import DeformablePack, deform_conv2d
from teachers.edvr import EDVR
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import randomise


def cases(opened):
    for case in opened["cases"]:
        names = ("x", "offset", "weight", "bias", "mask")
        inputs = [case[name] if case[name] is None else case[name].clone().requires_grad_() for name in names]
        yield case, dict(zip(names, inputs, strict=True))


def test_deformable_convolution_forward_and_every_gradient(golden):
    for case, inputs in cases(golden("dcn_op")):
        settings = {name: case["cfg"][name] for name in ("stride", "padding", "dilation")}
        output = deform_conv2d(*inputs.values(), **settings)
        torch.testing.assert_close(output, case["output"], rtol=0, atol=1e-12)
        output.backward(case["grad_output"])
        for name, tensor in inputs.items():
            if tensor is not None:
                torch.testing.assert_close(tensor.grad, case["grads"][name], rtol=0, atol=1e-12, msg=name)


def test_zero_offsets_make_an_ordinary_convolution():
    features, weight, bias = torch.randn(2, 8, 7, 9), torch.randn(6, 4, 3, 3), torch.randn(6)
    mask = torch.ones(2, 2 * 9, 7, 9)
    deformed = deform_conv2d(features, torch.zeros(2, 36, 7, 9), weight, bias, mask, padding=1)
    plain = torch.nn.functional.conv2d(features, weight, bias, padding=1, groups=2)
    torch.testing.assert_close(deformed, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["edvr_small_5f", "edvr_small_wotsa"])
@pytest.mark.parametrize(("hr_tap", "tap"), [("conv_last", "f_sr"), ("conv_hr", "f_sr_ps")])
def test_edvr(golden, tmp_path, name, hr_tap, tap):
    reference = golden(name)
    torch.save({"params": reference["state_dict"]}, tmp_path / "edvr.pth")
    loaded = read(tmp_path / "edvr.pth")
    network = EDVR(**{**loaded.described.keywords, "hr_tap": hr_tap})
    network.load_state_dict(loaded.network.state_dict())
    with torch.no_grad():
        restored = network.reconstruct(reference["input"])
        whole = network(reference["input"])
    for field, expected in (
        ("frames", reference["output"]),
        ("hr_features", reference["taps"][tap]),
        ("lr_features", reference["taps"]["f_lr_fused"]),
    ):
        assert_within_float32(getattr(restored, field), expected)
        assert_within_float32(getattr(whole, field)[:, network.window // 2], expected)


@pytest.mark.parametrize(
    ("name", "network", "parameters", "macs"),
    [("edvr_m_keys", "edvr-m", 3_300_131, 0.1826), ("edvr_l_vimeo_7f_keys", "edvr-l", 20_699_363, 0.9846)],
)
def test_published_key_lists_open(tmp_path, name, network, parameters, macs):
    path = GOLDEN / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"the reference key list {name}.json is not beside this checkout")
    shapes = json.loads(path.read_text())["keys"]
    torch.save({"params": {key: torch.zeros(shape) for key, shape in shapes.items()}}, tmp_path / "a.pth")
    loaded = distill.load(tmp_path / "a.pth")
    assert sum(each.numel() for each in loaded.parameters()) == parameters
    assert read(tmp_path / "a.pth").described.name == network
    from distill.networks.costs import multiply_accumulates

    assert multiply_accumulates(loaded.to("meta")) / 1e12 == pytest.approx(macs, abs=5e-5)


@pytest.mark.parametrize("size", [(12, 16), (9, 14), (4, 5)])
@pytest.mark.parametrize("attention", [True, False])
def test_once_per_frame_equals_once_per_window(size, attention):
    network = randomise(EDVR(5, 8, 2, 1, 1, attention, base="bicubic"), 0.5)
    clip = torch.rand(2, 4, 3, *size)
    with torch.no_grad():
        shared = network(clip)
        plain = network.reconstruct(windows(clip, 5).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    assert shared.frames.shape == (2, 4, 3, 4 * size[0], 4 * size[1])
    assert shared.hr_features.shape == (2, 4, 64, 4 * size[0], 4 * size[1])
    assert shared.lr_features.shape == (2, 4, 8, *size)
    for ours, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(streamed, shared.frames[1], rtol=1e-4, atol=1e-5)


def test_offsets_keep_float32_under_mixed_precision():
    pack = randomise(DeformablePack(8, 2), 0.5)
    features = torch.rand(1, 8, 6, 6)
    seen = []
    pack.conv_offset.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    with torch.no_grad():
        pack(features, features)
        with torch.autocast("cpu", torch.bfloat16):
            pack(features, features)
    assert torch.equal(seen[0], seen[1])


def test_frozen_edvr():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    network = randomise(EDVR(3, 8, 2, 1, 1), 0.5)
    clip = torch.rand(1, 3, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        restored = network.reconstruct(clip)
    expected = torch.load(FROZEN / "edvr.pt", weights_only=True)
    torch.testing.assert_close(restored.frames, expected["frames"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.hr_features.mean(1), expected["hr_mean"], rtol=1e-4, atol=1e-4)
