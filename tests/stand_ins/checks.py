"""What is asked of networks: references, costs, sliding, gradients, export."""

from __future__ import annotations

import json

import pytest
import torch

from distill.interfaces import windows
from distill.networks.costs import multiply_accumulates
from distill.networks.registry import find
from export.delivery.parity import check_parity
from export.exported import ExportedNetwork
from export.formats import export, format_named
from export.graphs.workload import workload
from export.interfaces import Order
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.networks import METADATA, moving_clip


def assert_within_float32(ours, theirs):
    """|difference| <= 1e-5 of the tensor's range.

    The reference tensors reach 22 and were computed in float32, whose own rounding puts them 3e-5 from the float64
    result; so 1e-5 is of the range, which for pictures in [0, 1] is the absolute figure.
    """
    assert ours.shape == theirs.shape
    limit = 1e-5 * max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max().item() <= limit


def assert_slides(network, size, length):
    """A clip, each of its windows by itself, and the stream of its frames give the same; sizes are the frames'."""
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        whole = network(clip)
        plain = network.reconstruct(windows(clip, network.window).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    high = tuple(network.scale * side for side in size)
    assert whole.frames.shape == (2, length, 3, *high)
    assert whole.hr_features.shape == (2, length, network.hr_channels, *high)
    if network.lr_channels is None:
        assert whole.lr_features is None
    else:
        assert whole.lr_features.shape == (2, length, network.lr_channels, *size)
    for ours, theirs in zip(whole, plain, strict=True):
        if ours is not None:
            assert_within_float32(ours.flatten(0, 1), theirs)
    assert_within_float32(streamed, whole.frames[1])


def assert_costs(name, parameters, macs):
    """Of a registered network: parameters and tera-MACs, as networks are tabled."""
    with torch.device("meta"):
        network = find(name).build().eval()
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert multiply_accumulates(network) / 1e12 == pytest.approx(macs, abs=5e-5)


def published_zeros(name):
    """Zeros of the shapes of a published key list."""
    path = GOLDEN / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"the reference key list {name}.json is not beside this checkout")
    return {key: torch.zeros(shape) for key, shape in json.loads(path.read_text())["keys"].items()}


def assert_starts_at_bicubic(based, published):
    """Untrained, a network with the base is the bicubic frame; as published, without one, it is not."""
    clip = torch.rand(1, 3, 3, 8, 8)
    expected = torch.nn.functional.interpolate(clip[0], scale_factor=4, mode="bicubic", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(based(clip).frames[0], expected, rtol=0, atol=2e-6)
        assert (published(clip).frames[0] - expected).abs().max() > 0.1


def assert_mixed_precision(network):
    """Training in bfloat16 runs, and what the picture starts from keeps float32's precision."""
    clip = torch.rand(1, 2, 3, 8, 8)
    expected = network(clip).frames
    with torch.autocast("cpu", torch.bfloat16):
        restored = network(clip)
    restored.frames.float().square().mean().backward()
    torch.testing.assert_close(restored.frames, expected, rtol=0, atol=1e-6)
    assert all(parameter.grad is not None for parameter in network.parameters())


def assert_gradients(network):
    """Every weight of a randomised network gets a gradient."""
    restored = network(torch.rand(1, 2, 3, 5, 6))
    restored.frames.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def exported(network, target, name="onnx", **order):
    """The file, opened, of a network with any metadata."""
    kind = format_named(name)
    export(Order(network, METADATA, **order), kind, target)
    return ExportedNetwork(kind.open(target), target)


def workload_of(module, *shapes):
    """What a module asks of a device, for inputs of these shapes."""
    return workload(torch.export.export(module.eval(), tuple(torch.zeros(shape) for shape in shapes)))


def assert_exports(network, target):
    """The ONNX files of a randomised network, windowed and streaming, agree with it at sizes that were not traced."""
    clips = [moving_clip(network.window + 2, 24, 20), moving_clip(2, 16, 36)]
    with torch.no_grad():
        frames = network.reconstruct(clips[0][None, : network.window]).frames
        idle = torch.nn.functional.interpolate(clips[0][network.window // 2][None], scale_factor=4, mode="bicubic")
    assert (frames - idle).abs().max() > 0.05, "the test would compare base images only"
    for streaming in (True, False):  # the windowed file stays
        proof = check_parity(network, exported(network, target, streaming=streaming), clips)
        assert proof.sizes == ((24, 20), (17, 11), (16, 36))
        assert proof.frames == (3 * (network.window + 2) + 2 if streaming else 4)
        assert proof.max_abs <= 1e-5 * max(1.0, frames.abs().max().item())


def assert_frozen(network, name):
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    clip = torch.rand(1, network.window, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        restored = network.reconstruct(clip)
    expected = torch.load(FROZEN / f"{name}.pt", weights_only=True)
    torch.testing.assert_close(restored.frames, expected["frames"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.hr_features.mean(1), expected["hr_mean"], rtol=1e-4, atol=1e-4)
