"""The students made for phones: what they are built of, in PyTorch and in the exported graph, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from distill.errors import ConfigError
from distill.interfaces import windows
from distill.networks import registry
from distill.networks.costs import multiply_accumulates
from export.graphs.deploy import deployed
from tests.places import FROZEN
from tests.stand_ins.checks import assert_exports
from tests.stand_ins.networks import moving_clip, randomise_with_statistics

MOBILE = ["fastdvdnet-mobile", "vespcn-mobile"]
PICTURES = {3, 48}
"""Channels of a frame, and of the phases of a x4 picture."""


def fresh(name):
    return registry.find(name).build().eval()


def as_trained(name):
    return randomise_with_statistics(fresh(name))


@pytest.mark.parametrize("name", MOBILE)
def test_the_modules_are_those_a_phone_runs_well(name):
    network = fresh(name)
    allowed = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU)
    leaves = {type(module) for module in network.modules() if not list(module.children())}
    assert leaves - set(allowed) == {type(network.tail.base.phases)}
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        assert conv.groups == 1
        assert conv.in_channels % 16 == 0 or conv.in_channels in PICTURES
        assert conv.out_channels % 16 == 0
    assert network.tail.conv.out_channels == 48
    with torch.device("meta"):
        assert multiply_accumulates(registry.find(name).build().eval()) <= 4e9
    assert network.hr_channels is None
    assert network.lr_channels == network.tail.conv.in_channels


@pytest.mark.parametrize("name", MOBILE)
def test_every_batch_normalisation_folds(name):
    network = as_trained(name)
    window = moving_clip(network.window, 16, 20)[None]
    folded = deployed(network)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        difference = folded.reconstruct(window).frames - network.reconstruct(window).frames
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("name", MOBILE)
def test_the_exported_graph(tmp_path, name):
    import onnx

    network = as_trained(name)
    assert_exports(network, tmp_path / "student.onnx")
    model = onnx.load(tmp_path / "student.onnx")
    nodes = list(model.graph.node)
    operators = [node.op_type for node in nodes]
    assert not set(operators) & {"PRelu", "Resize", "GridSample", "BatchNormalization"}
    assert operators.count("DepthToSpace") == 1
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in nodes:
        if node.op_type in ("Conv", "ConvTranspose"):
            settings = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            assert settings.get("group", 1) == 1
            assert all(side % 16 == 0 or side in PICTURES for side in weights[node.input[1]][:2])
    # the base and the tail meet before the shuffle, which nothing follows
    shuffle = nodes[operators.index("DepthToSpace")]
    assert [node.op_type for node in nodes if shuffle.input[0] in node.output] == ["Add"]
    assert list(shuffle.output) == [model.graph.output[0].name]


@pytest.mark.parametrize("name", MOBILE)
@pytest.mark.parametrize(("length", "size"), [(1, (8, 12)), (2, (9, 14)), (4, (4, 5)), (9, (8, 8))])
def test_once_per_clip_equals_once_per_window(name, length, size):
    network = as_trained(name)
    clip = torch.rand(2, length, 3, *size)
    with torch.no_grad():
        shared = network(clip)
        plain = network.reconstruct(windows(clip, network.window).flatten(0, 1))
        streamed = torch.stack(list(network.stream(iter(clip[1]))))
    assert shared.frames.shape == (2, length, 3, 4 * size[0], 4 * size[1])
    assert shared.lr_features.shape == (2, length, network.lr_channels, *size)
    torch.testing.assert_close(shared.frames.flatten(0, 1), plain.frames, rtol=0, atol=1e-5)
    torch.testing.assert_close(shared.lr_features.flatten(0, 1), plain.lr_features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(streamed, shared.frames[1], rtol=0, atol=1e-5)


def test_one_frame_more_of_a_video_costs_three_fusions():
    network = fresh("fastdvdnet-mobile")
    calls = dict.fromkeys(("temp1", "temp2", "temp3"), 0)
    for name in calls:
        getattr(network, name).register_forward_hook(
            lambda module, arguments, result, name=name: calls.__setitem__(name, calls[name] + len(result))
        )
    with torch.no_grad():
        network.reconstruct(torch.rand(1, 7, 3, 8, 8))
        assert calls == {"temp1": 5, "temp2": 3, "temp3": 1}
        calls.update(dict.fromkeys(calls, 0))
        network(torch.rand(1, 20, 3, 8, 8))
        assert calls == {"temp1": 24, "temp2": 22, "temp3": 20}
        calls.update(dict.fromkeys(calls, 0))
        list(network.stream(torch.rand(20, 3, 8, 8)))
        assert calls == {"temp1": 26, "temp2": 26, "temp3": 20}, "once for each frame fed, edges included"


def test_a_video_costs_less_than_half_of_its_windows():
    with torch.device("meta"):
        network = registry.find("fastdvdnet-mobile").build().eval()
        figures = []
        for frames in (40, 20):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.empty(1, frames, 3, 120, 180))
            figures.append(counter.get_total_flops() / 2)
    per_frame = (figures[0] - figures[1]) / 20
    assert multiply_accumulates(network) / per_frame > 2.5


@pytest.mark.parametrize("name", MOBILE)
def test_an_untrained_student_is_its_bicubic_base(name):
    network = fresh(name)
    clip = torch.rand(1, 3, 3, 9, 8)
    with torch.no_grad():
        frames = network(clip).frames[0]
    expected = functional.interpolate(clip[0], scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MOBILE)
def test_every_frame_and_every_layer_counts(name):
    network = as_trained(name)
    window = torch.rand(1, network.window, 3, 8, 8, requires_grad=True)
    network.reconstruct(window).frames.square().sum().backward()
    assert (window.grad.abs().amax((0, 2, 3, 4)) > 0).all()
    for key, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("fastdvdnet-mobile", {"widths": (16, 24, 48)}),
        ("vespcn-mobile", {"features": 8}),
        ("vespcn-mobile", {"channels": (64, 20)}),
    ],
)
def test_channels_that_leave_lanes_empty_are_refused(name, keywords):
    with pytest.raises(ConfigError, match="multiples of 16 channels"):
        registry.find(name).build(**keywords)


@pytest.mark.parametrize("name", MOBILE)
def test_frozen_mobile_students(name):
    """What the network made of seeded weights when its other tests first passed."""
    network = as_trained(name)
    with torch.no_grad():
        frames = network.reconstruct(moving_clip(network.window, 8, 12)[None]).frames
    expected = torch.load(FROZEN / "mobile_students.pt", weights_only=True)[name]
    torch.testing.assert_close(frames[..., 1::3, 1::3], expected, rtol=1e-4, atol=1e-4)
