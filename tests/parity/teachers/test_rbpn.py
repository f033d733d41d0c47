"""RBPN against the reference implementation, through the public loader, and frozen for those without its tensors."""

from __future__ import annotations

import json

import pytest
import torch

from distill.errors import CheckpointError
from distill.interfaces import windows
from distill.layers import BicubicUpsample
from distill.networks.checkpoint import read
from distill.networks.costs import multiply_accumulates
from distill.networks.optical_flow import estimate_flow
from distill.networks.registry import find
from teachers.rbpn import RBPN
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import randomise

SMALL = {"window": 5, "base_filter": 6, "channels": 4, "res_blocks": 1}


def loaded(tmp_path, state):
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "rbpn.pth")
    return read(tmp_path / "rbpn.pth")


def published(**changes):
    """A network of seeded weights as published, and its file."""
    network = randomise(RBPN(**{**SMALL, "head": "published", **changes}), 0.5)
    return network, network.state_dict()


@pytest.fixture
def counted_flow(monkeypatch):
    """A flow that is cheap, differs from pair to pair and is not zero for equal frames; how many were estimated."""
    counts = []

    def flow(first, second, method):
        counts.append(len(first))
        return (second - first)[:, :2] * 3 + 0.5

    monkeypatch.setattr("teachers.rbpn.estimate_flow", flow)
    return counts


def test_golden(golden, tmp_path):
    reference = golden("rbpn_small_x4_3f")
    given = reference["input"]
    network = loaded(tmp_path, reference["state_dict"]).network
    alike = RBPN(3, 24, 16, 2, head="published").eval()
    alike.load_state_dict(reference["state_dict"])  # the published names are ours
    states = []
    alike.DBPN.register_forward_hook(lambda *arguments: states.append(arguments[2]))
    with torch.no_grad():
        split = network.restore(given["x"], given["neighbor"], given["flow"])
        plain = alike.restore(given["x"], given["neighbor"], given["flow"])
    assert_within_float32(split.frames, reference["output"])
    assert_within_float32(plain.frames, reference["output"])
    assert_within_float32(plain.hr_features, reference["taps"]["f_sr_cat"])
    for ours, theirs in zip(states, reference["taps"]["h0"], strict=True):
        assert_within_float32(ours, theirs)
    assert split.hr_features.shape[1:] == (64, 40, 48)
    assert_within_float32(split.hr_features[:, :3], reference["output"])
    states_of_golden = reference["taps"]["f_sr_cat"].unflatten(1, (2, 16)).mean(1)
    assert_within_float32(split.hr_features[:, 3:], states_of_golden[:, [each % 16 for each in range(3, 64)]])


def test_published_key_list_opens(tmp_path):
    path = GOLDEN / "rbpn_7f_x4_keys.json"
    if not path.is_file():
        pytest.skip(f"the reference key list {path.name} is not beside this checkout")
    shapes = json.loads(path.read_text())["keys"]
    checkpoint = loaded(tmp_path, {name: torch.zeros(shape) for name, shape in shapes.items()})
    assert checkpoint.described.name == "rbpn-7f"
    assert isinstance(checkpoint.network, RBPN)
    with torch.device("meta"):
        network = find("rbpn-published").build()
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == shapes
    assert sum(each.numel() for each in network.parameters()) == 12_771_943
    assert multiply_accumulates(network) / 1e12 == pytest.approx(3.185, abs=5e-4)


@pytest.mark.parametrize("sizes", [{}, {"window": 3, "scale": 2, "channels": 70}, {"scale": 8, "res_blocks": 2}])
def test_published_file_of_any_size_computes_the_same(tmp_path, sizes):
    network, state = published(**sizes)
    checkpoint = loaded(tmp_path, state)
    expected = {**SMALL, "scale": 4, **sizes, "base": "none", "head": "split"}
    assert checkpoint.described.keywords == expected
    clip = torch.rand(1, 3, 3, 5, 7)
    with torch.no_grad():
        ours, theirs = checkpoint.network(clip), network(clip)
    assert ours.hr_features.shape == (1, 3, 64, 5 * network.scale, 7 * network.scale)
    assert theirs.hr_features.shape[2] == network.hr_channels
    assert_within_float32(ours.frames, theirs.frames)
    assert_within_float32(ours.lr_features, theirs.lr_features)


@pytest.mark.parametrize("sizes", [{}, {"window": 3, "base_filter": 8, "channels": 16}, {"window": 3, "channels": 64}])
def test_a_file_of_the_split_network_is_taken_as_it_is(tmp_path, sizes):
    """What stands before its last convolution is 64 channels, not neighbours."""
    network = RBPN(**{**SMALL, **sizes}).eval()
    checkpoint = loaded(tmp_path, network.state_dict())
    assert checkpoint.described.keywords == {**SMALL, "scale": 4, **sizes, "base": "none", "head": "split"}
    for name, tensor in network.state_dict().items():
        assert torch.equal(checkpoint.network.state_dict()[name], tensor)


@pytest.mark.parametrize("length", [1, 2, 6])
@pytest.mark.parametrize("keywords", [{"base": "bicubic"}, {"head": "published", "scale": 2}])
def test_once_per_pair_equals_once_per_window(counted_flow, length, keywords):
    network = randomise(RBPN(**SMALL, **keywords), 0.5)
    clip = torch.rand(2, length, 3, 4, 5)
    with torch.no_grad():
        shared = network(clip)
        assert sum(counted_flow) == 2 * {1: 0, 2: 2, 6: 18}[length]  # ordered pairs of at most two frames' distance
        plain = network.reconstruct(windows(clip, 5).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    high = (4 * network.scale, 5 * network.scale)
    assert shared.frames.shape == (2, length, 3, *high)
    assert shared.hr_features.shape == (2, length, network.hr_channels, *high)
    assert shared.lr_features.shape == (2, length, network.lr_channels, 4, 5)
    for ours, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(streamed, shared.frames[1], rtol=1e-4, atol=1e-5)


def test_a_still_clip_has_no_flow(counted_flow):
    """A window cannot tell a repeated edge from a frame shown twice, so both must count as still."""
    network = RBPN(**SMALL).eval()
    frame = torch.rand(1, 3, 4, 5)
    with torch.no_grad():
        still = network(frame[:, None].repeat(1, 3, 1, 1, 1)).frames
        expected = network.restore(frame, [frame] * 4, [torch.zeros(1, 2, 4, 5)] * 4).frames
    torch.testing.assert_close(still, expected[:, None].expand_as(still), rtol=1e-4, atol=1e-5)


def test_flows_lead_from_the_centre_to_neighbours_in_order_of_time():
    network = randomise(RBPN(**SMALL, head="published"), 0.5)
    ramp = torch.linspace(0, 1, 24) * torch.ones(1, 3, 20, 1)
    clip = torch.stack([ramp.roll(shift, -1) * (0.8 + 0.05 * shift) for shift in range(5)], 1)
    with torch.no_grad():
        centre, neighbours = clip[:, 2], [clip[:, index] for index in (0, 1, 3, 4)]
        flows = [estimate_flow(centre, each) for each in neighbours]
        expected = network.restore(centre, neighbours, flows)
        reconstructed = network.reconstruct(clip)
    for ours, theirs in zip(reconstructed, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_fresh_network_with_a_base_is_the_base_and_learns():
    network = find("rbpn-s").build()
    clip = torch.rand(1, 2, 3, 4, 6)
    restored = network(clip)
    torch.testing.assert_close(restored.frames[0], BicubicUpsample()(clip[0]))
    (restored.frames - 0.5).square().mean().backward()
    assert network.output.conv.weight.grad.abs().max() > 0
    torch.nn.init.normal_(network.output.conv.weight)
    network(clip).frames.square().mean().backward()
    for first in (network.feat0, network.feat1):
        assert first.conv.weight.grad.abs().max() > 0


def test_what_does_not_fit_is_told(tmp_path):
    _, state = published()
    with pytest.raises(CheckpointError, match=r"This RBPN lacks the tensors feat0\.conv\.weight; is the file complete"):
        loaded(tmp_path, {name: tensor for name, tensor in state.items() if name != "feat0.conv.weight"})
    with pytest.raises(CheckpointError, match="an even number of neighbours"):
        loaded(tmp_path, {**state, "output.conv.weight": torch.zeros(3, 4, 3, 3)})
    with pytest.raises(CheckpointError, match="4 projection stages"):
        loaded(tmp_path, {**state, "DBPN.output.conv.weight": torch.zeros(4, 16, 1, 1)})
    assert RBPN.recognise({"conv_first.weight": torch.zeros(1)}) is None
    for wrong in ({"window": 4}, {"scale": 3}, {"head": "both"}, {"base": "bilinear"}, {"flow": "none"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            RBPN(**{**SMALL, **wrong})


def test_frozen():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    network, _ = published()
    random = torch.Generator().manual_seed(1)
    centre, *neighbours = torch.rand(5, 1, 3, 4, 5, generator=random)
    flows = torch.randn(4, 1, 2, 4, 5, generator=random)
    with torch.no_grad():
        restored = network.restore(centre, neighbours, list(flows))
    expected = torch.load(FROZEN / "rbpn.pt", weights_only=True)
    for name, ours in restored._asdict().items():
        torch.testing.assert_close(ours[:, :3], expected[name], rtol=1e-4, atol=1e-6)
