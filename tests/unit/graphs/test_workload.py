"""What the graph of a network asks of a device: operators, multiply-accumulates, weights, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.networks import registry
from distill.networks.costs import HEIGHT, WIDTH, multiply_accumulates
from export.graphs.graph import streaming_graph, traced, windowed_graph
from export.graphs.workload import KINDS, workload
from export.plan.estimate import peak_megabytes
from tests.stand_ins.checks import workload_of
from tests.stand_ins.networks import Skip

SIZE = (24, 40)
BASE = 3 * 16 * 3 * 25  # a bicubic base of three channels, x4, for each low-resolution pixel
LUMINANCE = 9 + 16 * 25 + 9 + 2 * 16 * 25 + 16 * 9  # to YCbCr twice, its Y and its CbCr enlarged, back to RGB


@pytest.mark.parametrize(
    ("name", "keywords", "base"),
    [
        ("fastdvdnet-mobile", {}, BASE),
        ("vespcn-mobile", {}, BASE),
        ("vdsr", {"hidden_convs": 1, "channels": 4}, LUMINANCE),
        ("vsrnet", {"window": 1, "widths": (2, 2)}, LUMINANCE),
    ],
)
def test_multiply_accumulates_are_those_of_distill_list_and_the_base_image(name, keywords, base):
    network = registry.find(name).build(**keywords)
    with torch.device("meta"):
        expected = multiply_accumulates(registry.find(name).build(**keywords).eval())
    counted = workload(traced(windowed_graph(network, (HEIGHT, WIDTH)))).macs
    assert counted - expected == base * HEIGHT * WIDTH


def test_weights_are_those_of_the_network_and_the_base_image():
    network = registry.find("vespcn-mobile").build()
    parameters = sum(weight.numel() for weight in windowed_graph(network, SIZE).module.network.parameters())
    assert workload(traced(windowed_graph(network, SIZE))).weights == parameters + 48 * 3 * 25


def test_streaming_asks_for_the_work_of_one_frame():
    network = registry.find("fastdvdnet-mobile").build()
    window, frame = (workload(traced(make(network, SIZE))) for make in (windowed_graph, streaming_graph))
    assert 2.5 < window.macs / frame.macs < 2.8  # nine fusions and seven heads against three and one


def test_memory_is_what_lives_at_once():
    work = workload_of(Skip(), (1, 2, 4, 8))
    x, features = 2 * 4 * 8, 4 * 4 * 8
    assert work.peak_elements == x + 3 * features  # a, b and their sum; ReLU works in place; the caller holds x
    chain = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(5)))
    assert workload_of(chain, (1, 2, 4, 8)).peak_elements == 3 * x  # input, and the two ends of one convolution
    reshaped = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(2), nn.Unflatten(2, (4, 8)), nn.Conv2d(4, 4, 1))
    assert workload_of(reshaped, (1, 2, 4, 8)).peak_elements == x + 2 * features
    assert work.weights == 4 * 2 * 9 + 4 + 4 * 4 * 9 + 4
    assert peak_megabytes(work, "fp16") == pytest.approx(2e-6 * (work.peak_elements + work.weights))


def test_operators_are_named_counted_and_measured():
    conv, relu, change, add = workload_of(Skip(), (1, 2, 4, 8)).operations
    assert [each.kind for each in (conv, relu, change, add)] == ["Conv", "Relu", "Conv", "Add"]
    assert [each.free for each in (conv, relu, change, add)] == [False, True, False, False]
    assert (conv.macs, add.macs) == (2 * 4 * 9 * 32, 0)
    assert (conv.channels, conv.weights, conv.elements) == (4, 4 * 2 * 9 + 4, 2 * 32 + 4 * 32)
    grouped = workload_of(nn.Conv2d(6, 12, 1, groups=3), (1, 6, 4, 4)).operations[0]
    depthwise = workload_of(nn.Conv2d(6, 6, 1, groups=6), (1, 6, 4, 4)).operations[0]
    assert (grouped.channels, depthwise.channels) == (4, 6)


def test_what_depends_on_no_input_is_no_work():
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ramp = torch.arange(8.0) * 2 + torch.zeros_like(x)
            return x + ramp

    assert [each.kind for each in workload_of(Constant(), (1, 2, 4, 8)).operations if not each.free] == ["Add"]


def test_every_operator_of_every_mobile_student_has_a_name():
    for name in ("fastdvdnet-mobile", "vespcn-mobile"):
        work = workload(traced(windowed_graph(registry.find(name).build(), SIZE)))
        assert {each.kind for each in work.operations if not each.free} <= KINDS
