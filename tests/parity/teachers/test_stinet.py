"""STINet against the reference implementation, through the public loader, and frozen for those without its tensors."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

from distill.errors import CheckpointError
from distill.networks.checkpoint import read
from distill.networks.costs import multiply_accumulates
from distill.networks.registry import find
from teachers.stinet import STINet
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import randomise

SMALL = {
    "channels": 4,
    "motion_channels": 3,
    "blocks": 2,
    "graph_channels": 6,
    "offset_groups": 2,
    "projection_filter": 5,
    "projection_channels": 3,
    "projection_stages": 3,
}


def as_published(network):
    """Our weights by published names, shared blocks under both of theirs."""
    blocks = len(network.interpolation.shared)
    stacks = {
        "enter_l": ["interp_l"],
        "enter_h": ["interp_h.0"],
        "leave_l": [f"interp_l.{blocks + 2}", f"interp_l.{blocks + 3}"],
        "leave_h": [f"interp_h.{blocks + 1}", f"interp_h.{blocks + 2}"],
    }
    published = {}
    for name, tensor in network.state_dict().items():
        part, _, rest = name.partition(".")
        if part not in ("interpolation", "local", "graph"):
            published[name] = tensor
            continue
        stack, _, inner = rest.partition(".")
        index, _, leaf = inner.partition(".")
        if stack == "shared":
            published[f"interp_l.{int(index) + 2}.{leaf}"] = tensor
            published[f"interp_h.{int(index) + 1}.{leaf}"] = tensor
        elif stack == "enter_l" or stack == "enter_h":
            published[f"{stacks[stack][0]}.{inner}"] = tensor
        elif stack in stacks:
            published[f"{stacks[stack][int(index)]}.{leaf}"] = tensor
        else:
            published[rest.replace("conv_offset.", "conv_offset_mask.")] = tensor
    return published


def saved(state, path):
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize(("hr_tap", "tapped"), [("conv_last", [3]), ("h_blending", [0, 3])])
def test_stinet(golden, tmp_path, hr_tap, tapped):
    reference = golden("stinet_small")
    loaded = read(saved(reference["state_dict"], tmp_path / "stinet.pth"))
    network = STINet(**{**loaded.described.keywords, "hr_tap": hr_tap}).eval()
    network.load_state_dict(loaded.network.state_dict())
    given = reference["input"]
    with torch.no_grad():
        restored = network.with_flows(given["x"], given["flow_f"], given["flow_b"])
    assert_within_float32(restored.low, reference["output"]["l_rec"])
    pictures = torch.stack((restored.intermediate, restored.final), 1)
    assert_within_float32(pictures, reference["output"]["h_finalrec"])
    taps = reference["taps"]
    assert_within_float32(restored.lr_features[0], taps["upconv1_in"])
    for index in tapped:
        assert_within_float32(restored.hr_features[:, index], taps[f"{hr_tap}_in_t{index}"])
    others = {name for name in taps if not name.startswith(hr_tap)}
    assert len(taps) - len(others) == len(tapped)
    assert {name.partition("_in")[0] for name in others} | {hr_tap} == {"upconv1", "conv_last", "h_blending"}


def test_the_interface_normalises_and_estimates_flows(golden, tmp_path):
    """`forward` of frames in [0, 1] is the published pass of normalised ones with flows of frames one after another."""
    pytest.importorskip("cv2")
    from distill.networks.optical_flow import estimate_flow

    network = read(saved(golden("stinet_small")["state_dict"], tmp_path / "stinet.pth")).network
    assert network.flow == "farneback"
    clip = torch.rand(1, 4, 3, 24, 32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    onward = torch.cat([estimate_flow(clip[:, i], clip[:, i + 1], "farneback") for i in range(3)])[None]
    back = torch.cat([estimate_flow(clip[:, i + 1], clip[:, i], "farneback") for i in range(3)])[None]
    assert onward.abs().max() > 0.1
    assert (onward + back).abs().max() > 0.1  # so that swapping them would show
    with torch.no_grad():
        restored = network(clip)
        normalised = (clip - mean[:, None, None]) / deviation[:, None, None]
        expected = network.with_flows(normalised, onward, back)
    assert_within_float32(restored.frames, expected.final * deviation[:, None, None] + mean[:, None, None])
    assert_within_float32(restored.hr_features, expected.hr_features)


def test_published_key_list_opens_and_costs_what_is_published(tmp_path):
    path = GOLDEN / "stinet_keys.json"
    if not path.is_file():
        pytest.skip("the reference key list stinet_keys.json is not beside this checkout")
    shapes = json.loads(path.read_text())["keys"]
    assert len(shapes) == 247
    loaded = read(saved({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "stinet.pth"))
    network = loaded.network
    assert loaded.described.name == "stinet-l"
    assert sum(each.numel() for each in network.parameters()) == 11_761_602
    assert sum(each.numel() for each in network.DBPN.parameters()) == 7_345_830
    with torch.device("meta"):
        registered = find("stinet-l").build()
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in registered.state_dict().items()
    }
    # The published code also makes the two intermediate pictures, shrinks each frame's features once for each of its
    # two neighbours, and once more for edge attributes that it leaves unused.
    ours = multiply_accumulates(network.to("meta"))
    assert (ours + network.spared_macs(4, 120, 180)) / 1e12 == pytest.approx(3.738, abs=5e-4)


def test_the_small_entry_costs_what_a_cpu_bears():
    with torch.device("meta"):
        network = find("stinet-s").build().eval()
    assert sum(each.numel() for each in network.parameters()) == 325_414
    assert multiply_accumulates(network) / 4e9 == pytest.approx(25.8, abs=0.05)  # for each given frame


@pytest.mark.parametrize("old_bias", [False, True])
@pytest.mark.parametrize("shared", ["both", "interp_l", "interp_h"])
def test_every_size_and_layout_is_recognised(tmp_path, old_bias, shared):
    network = randomise(STINet(**SMALL), 1)
    state = as_published(network)
    if old_bias:
        state = {name.replace(".bias", ".fc_neigh.bias") if "SAG" in name else name: t for name, t in state.items()}
    dropped = {"both": (), "interp_l": ("interp_h.1.", "interp_h.2."), "interp_h": ("interp_l.2.", "interp_l.3.")}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(dropped[shared])}
    loaded = read(saved(state, tmp_path / "stinet.pth"))
    assert {name: loaded.described.keywords[name] for name in SMALL} == SMALL
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


@pytest.mark.parametrize("gone", ["SAG4.bias", "motion_feat.conv.weight", "interp_h.3.conv1.weight", "DBPN.up3."])
def test_incomplete_files_are_refused(tmp_path, gone):
    state = {name: each for name, each in as_published(STINet(**SMALL)).items() if not name.startswith(gone)}
    with pytest.raises(CheckpointError, match=r"lacks|is missing"):
        read(saved(state, tmp_path / "stinet.pth"))


@pytest.mark.parametrize(("length", "size"), [(1, (4, 5)), (2, (7, 6)), (4, (6, 5)), (5, (4, 4))])
@pytest.mark.parametrize("options", [{}, {"base": "bicubic", "edges": "weighted", "hr_tap": "h_blending"}])
def test_any_length_any_size(length, size, options):
    network = randomise(STINet(**SMALL, **options), 1)
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        restored = network(clip)
        alone = network(clip[1:])
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    count, high = 2 * length - 1, (4 * size[0], 4 * size[1])
    assert restored.frames.shape == (2, count, 3, *high)
    assert restored.hr_features.shape == (2, count, 4, *high)
    assert restored.lr_features.shape == (2, count, 4, *size)
    assert_within_float32(restored.frames[1], alone.frames[0])
    assert_within_float32(streamed, alone.frames[0])


def test_a_cut_between_chunks_is_felt_by_the_graph_alone():
    network = randomise(STINet(**SMALL), 1)
    clip = torch.rand(8, 3, 6, 7)
    network.chunk = 4
    with torch.no_grad():
        whole, streamed = network(clip[None]).frames[0], torch.stack(list(network.stream(iter(clip))))
        assert streamed.shape == whole.shape
        assert (streamed - whole).abs().max() > 1e-5
        network.graph.SAG4.fc_neigh.weight.zero_()
        network.graph.SAG4.bias.zero_()
        whole, streamed = network(clip[None]).frames[0], torch.stack(list(network.stream(iter(clip))))
    assert_within_float32(streamed, whole)


def test_moments_between_frames_follow_equation_1():
    network = randomise(STINet(**SMALL), 1)
    clip, (onward, back) = torch.rand(1, 3, 3, 6, 7), torch.randn(2, 1, 2, 2, 6, 7)
    seen = []
    network.interpolation.motion_feat.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        restored = network.with_flows(clip, onward, back, (0.25, 0.5, 0.75))
        assert restored.final.shape[:2] == (1, 9)
        for call, time in enumerate((0.25, 0.5, 0.75)):
            # t' = t - 1 + 2 * time: to t + 1 by (t + 1 - t') / 2, to t - 1 by (t' - (t - 1)) / 2
            expected = torch.cat(((1 - time) * onward[:, 0], time * back[:, 0]), 1)
            torch.testing.assert_close(seen[call], expected)
        assert network.interpolate(clip, (0.25, 0.5, 0.75)).frames.shape == (1, 9, 3, 24, 28)
        torch.testing.assert_close(network.interpolate(clip, (0.5,)).frames, network(clip).frames)


@pytest.mark.parametrize("times", [(0.0,), (1.0,), (0.5, 0.25), (0.5, 0.5), (float("nan"),)])
def test_moments_outside_are_refused(times):
    with pytest.raises(ValueError, match="ascending moments"):
        STINet(**SMALL).interpolate(torch.rand(1, 2, 3, 4, 4), times)


def test_an_untrained_network_with_a_base_is_its_base():
    network = STINet(**SMALL, base="bicubic").eval()
    clip = torch.rand(1, 2, 3, 5, 6)
    with torch.no_grad():
        frames = network.interpolate(clip, (0.25,)).frames[0]
    mixed = torch.stack((clip[0, 0], 0.75 * clip[0, 0] + 0.25 * clip[0, 1], clip[0, 1]))
    expected = functional.interpolate(mixed, scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(frames, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("edges", ["unweighted", "weighted"])
def test_every_weight_that_makes_the_picture_learns(edges):
    network = randomise(STINet(**SMALL, edges=edges), 1).train()
    network(torch.rand(1, 3, 3, 5, 6)).frames.square().mean().backward()
    idle = ("DBPN.output_conv2.", "reconstruction_h.", "reconstruction_l.")
    idle += ("graph.h_down_gcn.",) if edges == "unweighted" else ()
    for name, parameter in network.named_parameters():
        if name.startswith(idle):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            # a PReLU's slope learns only where something is negative
            assert name.endswith(".act.weight") or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("wrong", [{"base": "bilinear"}, {"edges": "none"}, {"hr_tap": "conv_hr"}, {"flow": "raft"}])
def test_unknown_words_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        STINet(**SMALL, **wrong)


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="dividing"):
        STINet(channels=6, offset_groups=4)


def test_frozen_stinet():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    restored = frozen_input(STINet(**SMALL))
    expected = torch.load(FROZEN / "stinet.pt", weights_only=True)
    torch.testing.assert_close(restored.final, expected["frames"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.low, expected["low"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.hr_features.mean(2), expected["hr_mean"], rtol=1e-4, atol=1e-4)


def frozen_input(network):
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(1, 2, 3, 4, 6, generator=generator)
    onward, back = torch.randn(2, 1, 1, 2, 4, 6, generator=generator)
    with torch.no_grad():
        return randomise(network, 1).with_flows(frames, onward, back)
