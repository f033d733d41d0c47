"""VESPCN's two public forms through the public loader, the high-resolution reading by its cost, and frozen outputs."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import distill
from distill.errors import CheckpointError, ConfigError
from distill.interfaces import windows
from distill.layers import BicubicUpsample, LumaChroma
from distill.networks import registry
from distill.networks.checkpoint import read
from distill.networks.costs import multiply_accumulates
from students.vespcn import VESPCN, VESPCNLoSealL
from students.vespcn_motion import SubpixelMotion, WideMotion
from students.vespcn_std import VESPCNStd
from tests.places import FROZEN, GOLDEN
from tests.stand_ins.checks import assert_within_float32
from tests.stand_ins.networks import moving_clip, randomise

SMALL = {
    "vespcn": lambda: VESPCN("y", widths=(6, 5), motion_width=4),
    "vespcn-rgb": lambda: VESPCN("rgb", widths=(6,), motion_width=4, scale=2),
    "vespcn-loseall": lambda: VESPCNLoSealL("rgb", channels=6, blocks=2, motion_width=4),
    "vespcn-loseall-y": lambda: VESPCNLoSealL("y", 5, channels=6, blocks=0, motion_width=4, scale=3),
    "vespcn-std": lambda: VESPCNStd(channels=6, depth=2, motion_width=4),
}


def small(name):
    return randomise(SMALL[name](), 0.5)


def published_juheonyi(network):
    names = {
        "motion.coarse.": "motionCompensator.C_flow.",
        "motion.fine.": "motionCompensator.F_flow.",
        "espcn.": "espcn.net.",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        prefix = next(each for each in names if name.startswith(each))
        state[names[prefix] + name.removeprefix(prefix)] = tensor
    return state


def published_loseall(network):
    state = {}
    for name, tensor in network.state_dict().items():
        part, *rest = name.split(".")
        if part == "motion":
            name = f"mc.flownet.{rest[0]}_flow.{int(rest[1]) // 2}.0.{rest[2]}"
        elif part == "body":
            name = f"sr.{name}"
        else:
            name = f"sr.{'conv' if part == 'expand' else part}.body.0.{rest[0]}"
        state[name] = tensor
    return state


def test_vespcn(golden, tmp_path):
    reference = golden("vespcn_juheonyi_mf2_y")
    torch.save(reference["state_dict"], tmp_path / "vespcn.pt")
    loaded = read(tmp_path / "vespcn.pt")
    network = loaded.network
    assert loaded.described.name == "vespcn"
    luminance = torch.stack(reference["input"], 1)
    with torch.no_grad():
        assert_within_float32(network.restore(luminance).frames, reference["output"])
        for place, number in ((0, 1), (2, 3)):
            moved, flow = network.motion(luminance[:, place], luminance[:, 1])
            assert_within_float32(moved, reference["taps"][f"mc{number}"])
            # the reference counts in halves of the frame, and subtracts
            height, width = flow.shape[-2:]
            in_its_units = flow * -2 / torch.tensor([width - 1, height - 1])[:, None, None]
            assert_within_float32(in_its_units, reference["taps"][f"flow{number}"])
        # the whole way, from RGB without colour and back
        grey = torch.cat((luminance, torch.full_like(luminance, 128 / 255).expand(-1, -1, 2, -1, -1)), 2)
        frames = network(LumaChroma().rgb(grey.flatten(0, 1)).unflatten(0, (1, 3))).frames[:, 1]
        assert_within_float32(LumaChroma()(frames)[:, :1], reference["output"])


def test_published_key_list_of_loseall_opens(tmp_path):
    path = GOLDEN / "vespcn_loseall_x4_keys.json"
    if not path.is_file():
        pytest.skip(f"the reference key list {path.name} is not beside this checkout")
    shapes = json.loads(path.read_text())["keys"]
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").described.name == "vespcn-loseall"
    loaded = distill.load(tmp_path / "a.pth")
    assert sum(each.numel() for each in loaded.parameters()) == 878_787
    assert multiply_accumulates(loaded.to("meta")) / 1e9 == pytest.approx(18.65, abs=5e-3)


def on_meta(name):
    with torch.device("meta"):
        return registry.find(name).build().eval()


def macs(network, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*(torch.empty(1, *shape, device="meta") for shape in inputs))
    return counter.get_total_flops() / 2


def parameters(network):
    return sum(each.numel() for each in network.parameters())


def test_costs_are_those_of_the_tables():
    vespcn, std = on_meta("vespcn"), on_meta("vespcn-std")
    assert (parameters(vespcn.espcn), parameters(vespcn.motion)) == (121_286, 53_392)
    assert parameters(vespcn) == 174_678
    assert macs(vespcn.espcn, (3, 120, 180)) / 1e9 == pytest.approx(2.61, abs=5e-3)
    assert multiply_accumulates(std) / 1e12 == pytest.approx(0.2640, abs=5e-5)
    assert 2 * macs(std.motion, (3, 480, 720), (3, 480, 720)) / 1e9 == pytest.approx(6.8, abs=0.05)


@pytest.mark.parametrize(
    ("name", "published", "entry"),
    [
        ("vespcn", published_juheonyi, "vespcn"),
        ("vespcn-rgb", published_juheonyi, "vespcn"),
        ("vespcn-loseall", published_loseall, "vespcn-loseall"),
        ("vespcn-loseall-y", published_loseall, "vespcn-loseall"),
    ],
)
def test_other_sizes_are_worked_out_from_the_tensors(tmp_path, name, published, entry):
    network = small(name)
    state = {f"module.{key}": tensor for key, tensor in published(network).items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.name == entry
    clip = moving_clip(network.window, 8, 12)[None]
    with torch.no_grad():
        assert torch.equal(loaded.network.reconstruct(clip).frames, network.reconstruct(clip).frames)


def test_incomplete_files_get_a_sentence(tmp_path):
    state = published_juheonyi(small("vespcn"))
    motion = {name: tensor for name, tensor in state.items() if name.startswith("motion")}
    cases = [
        (motion, "motion compensation alone"),
        ({name.removeprefix("motionCompensator."): tensor for name, tensor in motion.items()}, "compensation alone"),
        ({name: tensor for name, tensor in state.items() if name.startswith("espcn")}, "upsampling network alone"),
        ({name: tensor for name, tensor in state.items() if "F_flow" not in name}, "lacks the tensors motion.fine"),
        ({name: tensor for name, tensor in state.items() if "espcn.net.7" not in name}, "does not end in a 1x1"),
        (
            {**state, "motionCompensator.C_flow.0.weight": torch.zeros(12, 2, 5, 5).repeat(1, 2, 1, 1)},
            "sees 4 channels",
        ),
        ({k: v for k, v in published_loseall(small("vespcn-loseall")).items() if "exit" not in k}, "lacks the tensors"),
    ]
    for place, (tensors, sentence) in enumerate(cases):
        torch.save(tensors, tmp_path / f"{place}.pt")
        with pytest.raises(CheckpointError, match=sentence):
            read(tmp_path / f"{place}.pt")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("length", "size"), [(1, (8, 12)), (4, (9, 6)), (2, (4, 5))])
def test_any_size_and_length(name, length, size):
    network = small(name)
    clip = torch.stack([moving_clip(length, *size, speed=speed) for speed in (1, 2)])
    with torch.no_grad():
        whole = network(clip)
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
        alone = network.reconstruct(windows(clip, network.window)[1:, length - 1])
    scale = network.scale
    assert whole.frames.shape == (2, length, 3, scale * size[0], scale * size[1])
    for field, channels, large in (
        ("hr_features", network.hr_channels, scale),
        ("lr_features", network.lr_channels, 1),
    ):
        features = getattr(whole, field)
        if channels is None:
            assert features is None
        else:
            assert features.shape == (2, length, channels, large * size[0], large * size[1])
    torch.testing.assert_close(streamed, whole.frames[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.frames[0], whole.frames[1, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("motion", [SubpixelMotion, WideMotion])
def test_fresh_motion_compensation_moves_nothing_and_learns_where_to(motion):
    torch.manual_seed(1)
    network = motion(1)
    neighbour, centre = moving_clip(2, 16, 20)[:, :1].split(1)
    moved, flow = network(neighbour, centre)
    torch.testing.assert_close(moved, neighbour, rtol=0, atol=1e-5)
    assert flow.abs().max() == 0
    before = (moved - centre).square().mean()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss = (network(neighbour, centre)[0] - centre).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.8 * before


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_the_first_layers(name):
    network = small(name)
    network(moving_clip(3, 8, 8)[None]).frames.square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
    assert network.motion.coarse[0].weight.grad.abs().max() > 0


def test_a_fresh_high_resolution_reading_is_its_bicubic_base():
    clip = moving_clip(3, 8, 8)[None]
    with torch.no_grad():
        frames = VESPCNStd(8, 2)(clip).frames[0]
    torch.testing.assert_close(frames, BicubicUpsample()(clip[0]), rtol=0, atol=1e-6)


def test_luminance_alone_is_restored():
    """Chroma is bicubic, whatever the weights."""
    network = small("vespcn")
    clip = moving_clip(3, 8, 12)[None]
    with torch.no_grad():
        chroma = LumaChroma()(network.reconstruct(clip).frames)[:, 1:]
    expected = LumaChroma()(BicubicUpsample()(clip[:, 1]))[:, 1:]
    torch.testing.assert_close(chroma, expected, rtol=0, atol=1e-5)


def test_wrong_keywords_get_a_sentence():
    with pytest.raises(ConfigError, match="colour is 'grey'"):
        registry.find("vespcn").build(colour="grey")
    with pytest.raises(ConfigError, match="odd window, not 4"):
        registry.find("vespcn-loseall").build(window=4)


@pytest.mark.parametrize("name", ["vespcn", "vespcn-loseall", "vespcn-std"])
def test_frozen_vespcn(name):
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    with torch.no_grad():
        frames = small(name).reconstruct(moving_clip(3, 8, 12)[None]).frames
    expected = torch.load(FROZEN / "vespcn.pt", weights_only=True)[name]
    torch.testing.assert_close(frames[..., 1::3, 1::3], expected, rtol=1e-4, atol=1e-4)
