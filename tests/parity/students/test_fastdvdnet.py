"""FastDVDnet: its cost against the paper, shared work against plain. Its blocks: test_fastdvdnet_denoiser."""

from __future__ import annotations

import pytest
import torch

from distill.interfaces import windows
from distill.layers import BicubicUpsample
from distill.networks.costs import multiply_accumulates
from students.fastdvdnet import FastDVDnet
from tests.places import FROZEN
from tests.stand_ins.networks import randomise_with_statistics


@pytest.mark.parametrize(("channels", "macs"), [(64, 0.0592), (32, 0.0383), (16, 0.0315)])
def test_cost_is_the_papers_for_180x120(channels, macs):
    with torch.device("meta"):
        network = FastDVDnet(channels).eval()
    assert multiply_accumulates(network) / 1e12 == pytest.approx(macs, abs=5e-5)
    assert network.hr_channels == 64


@pytest.mark.parametrize("length", [1, 2, 4, 9])
@pytest.mark.parametrize("size", [(8, 12), (9, 14)])
def test_once_per_clip_equals_once_per_window(length, size):
    network = randomise_with_statistics(FastDVDnet(8, 1, (8, 8, 8), 4))
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        shared = network(clip)
        plain = network.reconstruct(windows(clip, 7).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    assert shared.frames.shape == (2, length, 3, 4 * size[0], 4 * size[1])
    assert shared.hr_features.shape == (2, length, 64, 4 * size[0], 4 * size[1])
    assert shared.lr_features.shape == (2, length, 8, *size)
    for ours, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(streamed, shared.frames[1], rtol=1e-4, atol=1e-5)


def test_an_untrained_student_is_its_bicubic_base():
    clip = torch.rand(1, 3, 3, 8, 8)
    with torch.no_grad():
        frames = FastDVDnet(16, 1).eval()(clip).frames[0]
    expected = torch.nn.functional.interpolate(clip[0], scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (13, 8)])
def test_the_fixed_convolution_is_torchs_bicubic(scale, size):
    picture = torch.rand(2, 3, *size)
    expected = torch.nn.functional.interpolate(picture, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(BicubicUpsample(scale)(picture), expected, rtol=0, atol=2e-6)


def test_frozen_fastdvdnet():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    network = randomise_with_statistics(FastDVDnet(8, 1, (8, 8, 8), 4))
    clip = torch.rand(1, 7, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        restored = network.reconstruct(clip)
    expected = torch.load(FROZEN / "fastdvdnet.pt", weights_only=True)
    torch.testing.assert_close(restored.frames, expected["frames"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.hr_features.mean(1), expected["hr_mean"], rtol=1e-4, atol=1e-4)
