"""The published FastDVDnet denoiser through the public loader, and frozen for those without its tensors."""

from __future__ import annotations

import json

import pytest
import torch

import distill
from distill.errors import CheckpointError
from distill.interfaces import windows
from distill.networks.checkpoint import read
from distill.networks.costs import multiply_accumulates
from students.fastdvdnet_denoiser import FastDVDnetDenoiser
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import randomise_with_statistics


def small():
    return randomise_with_statistics(FastDVDnetDenoiser(0.1, (8, 12, 16), 4))


def test_the_published_denoiser(golden, tmp_path):
    reference = golden("fastdvdnet_small_denoise")
    torch.save({f"module.{name}": tensor for name, tensor in reference["state_dict"].items()}, tmp_path / "model.pth")
    loaded = read(tmp_path / "model.pth")
    network = loaded.network
    assert loaded.described.name == "fastdvdnet-denoiser"
    entering = []
    network.temp1.outc.register_forward_pre_hook(lambda module, arguments: entering.append(arguments[0]))
    with torch.no_grad():
        restored = network.denoise(reference["input"]["x"].unflatten(1, (5, 3)), reference["input"]["noise_map"])
    assert_within_float32(restored.frames[:, 0], reference["output"])
    *first, last = reference["taps"]["outc_in"]
    assert_within_float32(torch.cat(entering), torch.cat(first))
    assert_within_float32(restored.lr_features[:, 0], last)


def test_published_key_list_opens(tmp_path):
    path = GOLDEN / "fastdvdnet_keys.json"
    if not path.is_file():
        pytest.skip(f"the reference key list {path.name} is not beside this checkout")
    shapes = json.loads(path.read_text())["keys"]
    assert len(shapes) == 162
    torch.save({f"module.{key}": torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "model.pth")
    loaded = distill.load(tmp_path / "model.pth")
    assert sum(each.numel() for each in loaded.parameters()) == 2_479_096
    assert multiply_accumulates(loaded.to("meta")) / 1e9 == pytest.approx(13.742, abs=5e-4)


def test_files_without_counters_and_incomplete_ones(tmp_path):
    state = small().state_dict()
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, tmp_path / "old.pth")
    assert read(tmp_path / "old.pth").described.keywords == {"widths": (8, 12, 16), "frame_channels": 4}
    cases = [
        (
            {name: tensor for name, tensor in state.items() if not name.startswith("temp2.inc")},
            "lacks the tensors temp2",
        ),
        ({name: tensor for name, tensor in state.items() if "temp2.outc" not in name}, "temp2.outc.* is missing"),
        ({**state, "temp1.inc.convblock.0.weight": torch.zeros(12, 3, 3, 3)}, "sees no noise map"),
    ]
    for place, (tensors, sentence) in enumerate(cases):
        torch.save(tensors, tmp_path / f"{place}.pth")
        with pytest.raises(CheckpointError, match=sentence):
            read(tmp_path / f"{place}.pth")


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("size", [(8, 12), (9, 14), (4, 5)])
def test_once_per_clip_equals_once_per_window(length, size):
    network = small()
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        shared = network(clip)
        plain = network.reconstruct(windows(clip, 5).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    assert shared.frames.shape == (2, length, 3, *size)
    assert shared.hr_features.shape == shared.lr_features.shape == (2, length, 8, *size)
    for ours, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(streamed, shared.frames[1], rtol=1e-4, atol=1e-5)


def test_sigma_fills_the_noise_map():
    network = small()
    window = torch.rand(1, 5, 3, 8, 8)
    with torch.no_grad():
        by_map = network.denoise(window, torch.full((1, 1, 8, 8), 0.1)).frames[:, 0]
        assert torch.equal(network.reconstruct(window).frames, by_map)
        network.sigma = 0.2
        assert not torch.allclose(network.reconstruct(window).frames, by_map, atol=1e-3)


def test_a_fresh_denoiser_changes_nothing_and_every_layer_learns():
    network = FastDVDnetDenoiser(0.1, (8, 12, 16), 4)
    clip = torch.rand(1, 3, 3, 8, 8)
    assert torch.equal(network(clip).frames, clip)
    randomise_last = [block.outc.convblock[-1].weight for block in (network.temp1, network.temp2)]
    for weight in randomise_last:
        torch.nn.init.normal_(weight, std=0.1)
    network(clip).frames.square().sum().backward()
    for block in (network.temp1, network.temp2):
        assert block.inc.convblock[0].weight.grad.abs().max() > 0


def test_frozen_denoiser():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    window = torch.rand(1, 5, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        frames = small().reconstruct(window).frames
    expected = torch.load(FROZEN / "fastdvdnet_denoiser.pt", weights_only=True)
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-4)
