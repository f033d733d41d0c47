"""STARnet against the reference implementation, through the public loader, and frozen for those without its tensors."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from distill.errors import CheckpointError
from distill.layers import BicubicUpsample
from distill.networks.checkpoint import read
from distill.networks.costs import HEIGHT, WIDTH
from distill.networks.optical_flow import estimate_flow
from distill.networks.registry import find
from teachers.starnet import STARnet
from teachers.starnet_flow import FlowRefinement
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import randomise

SMALL = {"base_filter": 4, "channels": 3, "res_blocks": 1, "spatial_blocks": 1}
MEAN, DEVIATION = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def loaded(tmp_path, state, prefix="module."):
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "starnet.pth")
    return read(tmp_path / "starnet.pth")


def seeded(**keywords):
    return randomise(STARnet(**{**SMALL, **keywords}), 0.5)


def multiply_accumulates(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 2, 3, HEIGHT, WIDTH, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_golden(golden, tmp_path, version):
    reference = golden(f"starnet_small_{version}")
    checkpoint = loaded(tmp_path, reference["state_dict"])
    assert checkpoint.described.name == f"starnet-{version}"
    network, given, taps = checkpoint.network, reference["input"], reference["taps"]
    seen = {"f_sr": [], "f_lr": []}
    for name, part in (("f_sr", network.reconstruction_h), ("f_lr", network.reconstruction_l)):
        part.register_forward_hook(lambda _, arguments, __, name=name: seen[name].append(arguments[0]))
    with torch.no_grad():
        pair = network.restore_pair(given["im1"], given["im2"], given["flow_f"], given["flow_b"])
    for name, estimates in reference["output"].items():
        for ours, theirs in zip(getattr(pair, name), estimates, strict=True):
            assert_within_float32(ours, theirs)
    early, *high = seen["f_sr"]
    assert all(each is feature for each, feature in zip((high[1], high[0], high[2]), pair.hr_features, strict=True))
    expected = taps["f_sr"] if len(taps["f_sr"]) > 1 else [early, *taps["f_sr"], *high[1:]]  # of v1 it holds one
    for ours, theirs in zip(seen["f_sr"], expected, strict=True):
        assert_within_float32(ours, theirs)
    for ours, theirs in zip(seen["f_lr"], taps["f_lr"], strict=True):
        assert_within_float32(ours, theirs)
    assert seen["f_lr"][1] is pair.lr_features[1]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("starnet-v1", 48.97, 2.87),
        ("starnet-v2", 54.04, 3.24),
        ("starnet-v3", 51.60, 2.83),
        ("starnet-v4", 58.09, 3.33),
        ("starnet-s", 0.38, 0.02),
    ],
)
def test_costs_are_those_published(name, parameters, macs):
    with torch.device("meta"):
        network = find(name).build().eval()
    assert round(sum(each.numel() for each in network.parameters()) / 1e6, 2) == parameters
    assert round(multiply_accumulates(network) / 1e12, 2) == macs


def test_published_key_list_fits():
    """On the meta device: 112 million parameters are too many to write to a file in a test."""
    path = GOLDEN / "starnet_v4_ref_keys.json"
    if not path.is_file():
        pytest.skip(f"the reference key list {path.name} is not beside this checkout")
    shapes = json.loads(path.read_text())["keys"]
    with torch.device("meta"):
        published = STARnet.recognise({name: torch.empty(shape) for name, shape in shapes.items()})
        network = STARnet(**published.keywords)
    assert published.name == "starnet-v4-ref"
    sizes = {"base_filter": 256, "channels": 64, "res_blocks": 5, "spatial_blocks": 5, "scale": 4}
    assert published.keywords == {"version": "v4", **sizes, "refine_flow": True, "base": "none"}
    ours = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in published.weights.items()}
    assert round(sum(each.numel() for each in network.flow_net.parameters()) / 1e6, 2) == 53.52


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
@pytest.mark.parametrize("sizes", [{}, {"scale": 2, "res_blocks": 2}, {"scale": 8, "channels": 2}])
def test_file_of_any_size_opens(tmp_path, version, sizes):
    network = seeded(version=version, **sizes)
    checkpoint = loaded(tmp_path, network.state_dict())
    expected = {**SMALL, "scale": 4, **sizes, "version": version, "refine_flow": False, "base": "none"}
    assert checkpoint.described.keywords == expected
    clip = torch.rand(1, 2, 3, 5, 7)
    with torch.no_grad():
        for ours, theirs in zip(checkpoint.network(clip), network(clip), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("keywords", [{"version": "v4", "scale": 2}, {"version": "v1", "base": "bicubic"}])
def test_whole_clip_equals_pair_by_pair(length, keywords):
    network = seeded(**keywords)
    clip = torch.nn.functional.interpolate(torch.rand(2 * length, 3, 3, 3), (9, 11), mode="bicubic")
    clip = clip.unflatten(0, (2, length))
    with torch.no_grad():
        whole = network(clip)
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    after, high = 2 * length - 1, (9 * network.scale, 11 * network.scale)
    assert whole.frames.shape == (2, after, 3, *high)
    assert whole.hr_features.shape == (2, after, 3, *high)
    assert whole.lr_features.shape == (2, after, 6, 9, 11)
    torch.testing.assert_close(streamed, whole.frames[1], rtol=1e-4, atol=1e-5)


def test_frames_and_features_stand_in_order_of_time():
    network = seeded(version="v4")
    clip = torch.rand(1, 3, 3, 8, 12)

    def pair(index):
        first, second = clip[:, index], clip[:, index + 1]
        flows = [network.scaled_flow(estimate_flow(*each)) for each in ((first, second), (second, first))]
        return network.restore_pair((first - MEAN) / DEVIATION, (second - MEAN) / DEVIATION, *flows)

    with torch.no_grad():
        whole, (early, late) = network(clip), (pair(0), pair(1))
    pictures = [each * DEVIATION + MEAN for each in (early.h1[1], early.ht[1], early.h2[1], late.ht[1], late.h2[1])]
    torch.testing.assert_close(whole.frames, torch.stack(pictures, 1), rtol=1e-4, atol=1e-5)
    for ours, one, other in (
        (whole.hr_features, early.hr_features, late.hr_features),
        (whole.lr_features, early.lr_features, late.lr_features),
    ):
        torch.testing.assert_close(ours, torch.stack((*one, *other[1:]), 1), rtol=1e-4, atol=1e-5)
    for features, picture in zip(early.hr_features, (early.h1, early.ht, early.h2), strict=True):
        assert torch.equal(network.reconstruction_h(features), picture[1])


def test_flow_is_limited_scaled_and_negative():
    flow = torch.tensor([0.0, 15.0, -300.0, 1e4])
    torch.testing.assert_close(STARnet(**SMALL).scaled_flow(flow), torch.tensor([0.0, -0.1, 1.0, -1.0]))


def refinement(width=2):
    return randomise(FlowRefinement(width), 0.5)


@pytest.mark.parametrize("size", [(4, 5), (31, 40), (33, 64), (50, 47)])
def test_flow_of_any_size_is_refined(size):
    flow, first, second = torch.rand(2, 2, *size), torch.rand(2, 3, *size), torch.rand(2, 3, *size)
    with torch.no_grad():
        refined = refinement()(flow, first, second)
    assert refined.shape == flow.shape
    assert (refined - flow > 0).all()
    assert (refined - flow < 1).all()


def test_refinement_is_in_the_way_of_the_flow(tmp_path):
    """The published files hold the refined network under model. and its U-Net under flow_net."""
    network = seeded(version="v4")
    network.flow_net = refinement()
    first, second = torch.randn(2, 1, 3, 8, 12)
    forward, backward = torch.randn(2, 1, 2, 8, 12)
    with torch.no_grad():
        refined = network.restore_pair(first, second, forward, backward)
        flows = network.flow_net(forward, first, second), network.flow_net(backward, second, first)
        network.flow_net = None
        for ours, theirs in zip(
            refined.hr_features, network.restore_pair(first, second, *flows).hr_features, strict=True
        ):
            assert torch.equal(ours, theirs)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    state |= {f"flow_net.{name}": tensor for name, tensor in refinement().state_dict().items() if "num_" not in name}
    published = STARnet.recognise(state)
    assert published.keywords["refine_flow"]
    inner = {name.removeprefix("flow_net."): each for name, each in published.weights.items() if "flow_net." in name}
    refinement().load_state_dict(inner)  # strictly, though the file lacks the counters


def test_fresh_network_with_a_base_is_the_base_and_learns():
    network = find("starnet-s").build()
    clip = torch.rand(1, 2, 3, 6, 8)
    restored = network(clip)
    between = (clip[:, :1] + clip[:, 1:]) / 2
    frames = torch.cat((clip[:, :1], between, clip[:, 1:]), 1)
    torch.testing.assert_close(restored.frames[0], BicubicUpsample()(frames[0]), rtol=1e-5, atol=1e-5)
    (restored.frames - 0.5).square().mean().backward()
    assert network.reconstruction_h.conv.weight.grad.abs().max() > 0
    torch.nn.init.normal_(network.reconstruction_h.conv.weight)
    network(clip).frames.square().mean().backward()
    for first in (network.RBPN.feat0, network.RBPN.feat1, network.motion_feat):
        assert first.conv.weight.grad.abs().max() > 0


def test_small_picture_has_its_base_too():
    network = STARnet(**SMALL, base="bicubic").eval()
    first, second = torch.randn(2, 1, 3, 8, 8)
    with torch.no_grad():
        pair = network.restore_pair(first, second, *torch.zeros(2, 1, 2, 8, 8))
    for estimate in pair.l:
        torch.testing.assert_close(estimate, (first + second) / 2)


def test_what_does_not_fit_is_told(tmp_path):
    state = seeded(version="v4").state_dict()
    kept = {name: tensor for name, tensor in state.items() if name != "RBPN.feat0.conv.weight"}
    with pytest.raises(CheckpointError, match=r"This STARnet lacks the tensors feat0\.conv\.weight"):
        loaded(tmp_path, kept)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("t_net")}
    with pytest.raises(CheckpointError, match="expected version v1 to v4"):
        loaded(tmp_path, kept)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("reconstruction_l")}
    with pytest.raises(CheckpointError, match=r"reconstruction_l\.conv\.weight is missing"):
        loaded(tmp_path, kept)
    for wrong in ({"version": "v5"}, {"base": "bilinear"}, {"flow": "none"}, {"scale": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            STARnet(**{**SMALL, **wrong})


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_frozen(version):
    """What the proven networks made of seeded weights; protects whoever has only this repository."""
    random = torch.Generator().manual_seed(1)
    frames, flows = torch.randn(2, 1, 3, 4, 5, generator=random), torch.randn(2, 1, 2, 4, 5, generator=random)
    with torch.no_grad():
        pair = seeded(version=version).restore_pair(*frames, *flows)
    expected = torch.load(FROZEN / "starnet.pt", weights_only=True)[version]
    for name in ("ht", "h2", "l"):
        torch.testing.assert_close(getattr(pair, name)[1][..., :8], expected[name], rtol=1e-4, atol=1e-6)


def test_frozen_refinement():
    random = torch.Generator().manual_seed(1)
    flow, first, second = (torch.randn(1, channels, 33, 40, generator=random) for channels in (2, 3, 3))
    with torch.no_grad():
        refined = refinement()(flow, first, second)
    expected = torch.load(FROZEN / "starnet.pt", weights_only=True)["refined"]
    torch.testing.assert_close(refined[..., ::4, ::4], expected, rtol=1e-4, atol=1e-6)
