"""STVUN against the reference implementation, through the public loader, and frozen for those without its tensors."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

import distill
from distill.errors import CheckpointError
from distill.interfaces import windows
from distill.networks.checkpoint import read
from distill.networks.costs import multiply_accumulates
from teachers.pwc import PWCNet, correlation
from teachers.stvun import STVUN
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import randomise

KEYS = GOLDEN / "stvun_keys.json"


def small(**keywords) -> STVUN:
    return randomise(STVUN(**{"channels": 4, "interpolates": False, **keywords}), 0.5)


def moving(network: STVUN, right: float, down: float) -> STVUN:
    """With a flow network that sees so much motion from each frame to the next."""
    calls = []

    def seen(first, second):
        sign = -1 if len(calls) % 2 else 1  # asked for there, then for back
        calls.append(first.shape)
        height, width = first.shape[-2] // 4, first.shape[-1] // 4
        return sign * torch.tensor([right, down])[None, :, None, None].expand(first.shape[0], 2, height, width)

    network.pwcnet.forward = seen
    return network


def test_stvun(golden, tmp_path):
    reference = golden("stvun_small_spatial")
    torch.save(reference["state_dict"], tmp_path / "stvun.pth")
    network = read(tmp_path / "stvun.pth").network
    window = (torch.stack(reference["input"], 1) + 1) / 2
    fused, taps = [], reference["taps"]
    network.efst.register_forward_hook(lambda module, inputs, output: fused.append(output))
    decoded = []
    network.decoder.register_forward_hook(lambda module, inputs, output: decoded.extend(output[0]))
    with torch.no_grad():
        levels = network.encoder(2 * window[:, 3] - 1)
        restored = network.reconstruct(window)
    for ours, theirs in (
        *zip(levels, taps["enc_center"], strict=True),
        *zip(fused, taps["efst"], strict=True),
        *zip(decoded, taps["dec"], strict=True),
        (restored.lr_features, taps["dec"][-1]),
        (2 * restored.frames - 1, reference["output"]),
    ):
        assert_within_float32(ours, theirs)
    assert restored.hr_features is None


def test_published_key_list_opens(tmp_path):
    if not KEYS.is_file():
        pytest.skip(f"the reference key list {KEYS.name} is not beside this checkout")
    shapes = json.loads(KEYS.read_text())["keys"]
    torch.save({key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}, tmp_path / "a.pth")
    checkpoint = read(tmp_path / "a.pth")
    assert checkpoint.described.name == "stvun-l"
    assert sum(each.numel() for each in checkpoint.network.parameters()) == 30_882_276
    assert sum(each.numel() for each in checkpoint.network.pwcnet.parameters()) / 1e6 == pytest.approx(9.37, abs=5e-3)
    assert multiply_accumulates(checkpoint.network.to("meta")) / 1e12 == pytest.approx(0.5507, abs=5e-5)


@pytest.mark.parametrize("keywords", [{"channels": 6, "window": 5}, {"scale": 2}, {"window": 3, "interpolates": True}])
def test_sizes_are_read_off_the_tensors(tmp_path, keywords):
    network = small(**keywords)
    torch.save({"state_dict": {**network.state_dict(), "optimiser.step": torch.zeros(1)}}, tmp_path / "a.pth")
    loaded = distill.load(tmp_path / "a.pth")
    window = torch.rand(1, network.window, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded.reconstruct(window).frames, network.reconstruct(window).frames)
    assert loaded.interpolates == network.interpolates


def test_what_does_not_fit_is_said(tmp_path):
    state = small().state_dict()
    del state["decoder.rconv1.weight"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"lacks the tensors decoder\.rconv1\.weight"):
        read(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="window is 4"):
        STVUN(4, window=4)


@pytest.mark.parametrize(("length", "size"), [(1, (4, 5)), (4, (9, 14)), (3, (8, 8))])
def test_once_per_frame_equals_once_per_window(length, size):
    network = small()
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        shared = network(clip)
        plain = network.reconstruct(windows(clip, 7).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    assert shared.frames.shape == (2, length, 3, 4 * size[0], 4 * size[1])
    assert shared.lr_features.shape == (2, length, 4, *size)
    torch.testing.assert_close(shared.frames.flatten(0, 1), plain.frames, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.lr_features.flatten(0, 1), plain.lr_features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(streamed, shared.frames[1], rtol=1e-4, atol=1e-5)


def test_an_untrained_network_gives_its_base_image_and_learns_everywhere():
    network = STVUN(4, interpolates=False)
    window = torch.rand(1, 7, 3, 8, 8)
    base = functional.interpolate(window[:, 3], scale_factor=4, mode="bilinear")
    torch.testing.assert_close(network.reconstruct(window).frames, base)
    randomise(network, 0.5)
    network.reconstruct(window).frames.square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_correlation_equals_its_formula():
    first, second = torch.randn(2, 5, 6, 7), torch.randn(2, 5, 6, 7)
    costs = correlation(first, second)
    assert costs.shape == (2, 81, 6, 7)
    for dy, dx, y, x in [(0, 0, 3, 3), (-4, 2, 5, 1), (3, -1, 2, 6), (4, 4, 1, 2)]:
        expected = (first[:, :, y, x] * second[:, :, y + dy, x + dx]).mean(1)
        torch.testing.assert_close(costs[:, (dy + 4) * 9 + dx + 4, y, x], expected)
    assert (costs[:, 0, 0] == 0).all()  # four rows above the picture


def test_frames_in_between_follow_a_constant_motion():
    """Eq. 4: seen at time t, what moves by 4 pixels lies t * 4 pixels from where it was."""
    network = moving(STVUN(4), 4.0, 0.0).eval()  # untrained, so that frames are bilinear base images
    picture = torch.rand(1, 3, 12, 40)
    window = torch.stack([picture.roll(4 * t, -1) for t in range(-3, 4)], 1)
    with torch.no_grad():
        frames = network.between(window, [0, 0.25, 0.5, 1])
    for frame, shift in zip(frames.unbind(1), (0, 1, 2, 4), strict=True):
        expected = functional.interpolate(picture.roll(shift, -1), scale_factor=4, mode="bilinear")
        torch.testing.assert_close(frame[..., 40:-40], expected[..., 40:-40], rtol=1e-4, atol=1e-5)


def test_frames_in_between_have_any_size_and_reject_other_times():
    network = small(interpolates=True)
    window = torch.rand(2, 7, 3, 9, 18)
    with torch.no_grad():
        assert network.between(window, [0.5, 0.9]).shape == (2, 2, 3, 36, 72)
    with pytest.raises(ValueError, match="expected numbers from 0 to 1"):
        network.between(window, [1.5])
    with pytest.raises(ValueError, match="no flow network"):
        small().between(window, [0.5])


def test_half_precision_leaves_the_flow_alone():
    network = randomise(PWCNet(), 0.5)
    pictures = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain = network(*pictures)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(*pictures)
    assert plain.shape == (1, 2, 16, 16)
    assert torch.equal(plain, mixed)


def test_frozen_stvun():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    network = small(interpolates=True)
    for parameter in network.pwcnet.parameters():
        if parameter.ndim > 1:
            parameter.data *= 2.2  # a motion that can be told from none
    window = torch.rand(1, 7, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    expected = torch.load(FROZEN / "stvun.pt", weights_only=True)
    with torch.no_grad():
        restored = network.reconstruct(window)
        between = network.between(window, [0.25])
    torch.testing.assert_close(restored.frames, expected["frames"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.lr_features, expected["lr_features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(between, expected["between"], rtol=1e-4, atol=1e-4)
