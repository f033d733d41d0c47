from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.errors import ConfigError
from distill.losses.intermediate import Intermediate
from distill.losses.star import StarFlow, StarSpace, StarSpaceTime, StarTime
from distill.losses.term import Seen, Surroundings
from distill.networks.optical_flow import estimate_flow
from students.fastdvdnet import FastDVDnet
from students.space_time import SpaceTime
from teachers.starnet import STARnet
from teachers.starnet_flow import FlowRefinement
from teachers.stinet import STINet

ALONE = Surroundings()
SMALL_STAR = {"base_filter": 8, "channels": 4, "res_blocks": 1, "spatial_blocks": 1}
SMALL_STI = {
    "channels": 8,
    "motion_channels": 8,
    "blocks": 1,
    "graph_channels": 8,
    "offset_groups": 4,
    "projection_filter": 8,
    "projection_channels": 8,
    "projection_stages": 2,
}


@pytest.fixture
def starnet():
    return STARnet(version="v3", **SMALL_STAR)


@pytest.fixture
def refining():
    network = STARnet(version="v1", **SMALL_STAR)
    network.flow_net = FlowRefinement(width=2)
    return network.eval()


@pytest.fixture
def stinet():
    return STINet(**SMALL_STI)


@pytest.fixture
def student():
    return SpaceTime(FastDVDnet(channels=8, blocks=1, widths=(8, 8, 8), frame_channels=4))


def seen(network, frames=5, size=(12, 16)):
    """What a step on so many frames shows: the network is given every second one."""
    low, truth = torch.rand(2, frames, 3, *size), torch.rand(2, frames, 3, *(4 * side for side in size))
    restored, intermediates = network.with_intermediates(low[:, ::2])
    return Seen(low[:, ::2], restored.frames.float(), truth, 0, network, low_truth=low, intermediates=intermediates)


def mean_distance(made, wanted, places):
    """L_1 over some places of a clip, summed pixel by pixel."""
    distances = [np.abs(made[clip, t] - wanted[clip, t]) for clip in range(len(made)) for t in places]
    return sum(float(each.sum()) for each in distances) / sum(each.size for each in distances)


def arrays(*tensors):
    return (each.detach().double().numpy() for each in tensors)


def test_space_and_space_time_look_at_the_given_frames_and_at_those_between(student):
    shown = seen(student)
    restored, truth = arrays(shown.restored, shown.truth)
    assert StarSpace(ALONE)(shown).item() == pytest.approx(mean_distance(restored, truth, (0, 2, 4)), rel=1e-5)
    assert StarSpaceTime(ALONE)(shown).item() == pytest.approx(mean_distance(restored, truth, (1, 3)), rel=1e-5)


@pytest.mark.parametrize("name", ["starnet", "stinet"])
def test_time_looks_at_the_low_resolution_frames_between(name, request):
    shown = seen(request.getfixturevalue(name))
    made = shown.intermediates
    low, truth = arrays(made.low if made.refined_low is None else made.refined_low, shown.low_truth)
    assert StarTime(ALONE)(shown).item() == pytest.approx(mean_distance(low, truth, (1, 3)), rel=1e-5)


@pytest.mark.parametrize("name", ["starnet", "stinet"])
def test_intermediate_pictures_of_both_resolutions_are_supervised(name, request):
    shown = seen(request.getfixturevalue(name))
    high, low, truth, low_truth = arrays(
        shown.intermediates.frames, shown.intermediates.low, shown.truth, shown.low_truth
    )
    expected = np.sqrt((high - truth) ** 2 + 1e-12).mean() + np.sqrt((low - low_truth) ** 2 + 1e-12).mean()
    assert Intermediate(ALONE)(shown).item() == pytest.approx(expected, rel=1e-5)


def test_flow_is_that_through_the_frame_between(refining):
    shown = seen(refining)
    low, flows = shown.low_truth, shown.intermediates.flows
    squares = []
    for clip in range(2):
        for pair in range(2):
            first, middle, second = (low[clip, 2 * pair + k][None] for k in range(3))
            forward = estimate_flow(first, middle) + estimate_flow(middle, second)
            backward = estimate_flow(second, middle) + estimate_flow(middle, first)
            for way, wanted in enumerate((forward, backward)):
                squares.append(((flows[clip, way, pair] - wanted[0]) / 150).square().mean())
    expected = 2 * torch.stack(squares).mean()  # two directions, added
    torch.testing.assert_close(StarFlow(ALONE)(shown), expected)


def test_the_flows_are_those_that_the_network_works_with(refining):
    clip = torch.rand(1, 3, 3, 12, 16)
    flows = refining.with_intermediates(clip)[1].flows
    for place in range(2):
        first, second = clip[:, place], clip[:, place + 1]
        shown = [refining.colours.normalised(each) for each in (first, second)]
        for way, pair in enumerate((shown, shown[::-1])):
            raw = estimate_flow(*((first, second) if way == 0 else (second, first)))
            refined = refining.flow_net(-raw / 150, *pair)
            torch.testing.assert_close(flows[:, way, place], -150 * refined, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["starnet", "refining", "stinet"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_making_intermediates_changes_no_frame(name, length, request):
    network = request.getfixturevalue(name).eval()
    clip = torch.rand(2, length, 3, 12, 16)
    with torch.no_grad():
        usual = network(clip)
        restored, made = network.with_intermediates(clip)
    for field, other in zip(restored, usual, strict=True):
        torch.testing.assert_close(field, other, rtol=0, atol=0)
    assert made.frames.shape == usual.frames.shape
    assert made.low.shape == (2, 2 * length - 1, 3, 12, 16)
    if made.flows is not None:
        assert made.flows.shape == (2, 2, length - 1, 2, 12, 16)


def test_sizes_that_are_padded_are_cropped_again():
    network = STARnet(scale=2, **SMALL_STAR)
    with torch.no_grad():
        _, made = network.with_intermediates(torch.rand(1, 2, 3, 9, 11))
    assert made.frames.shape == (1, 3, 3, 18, 22)
    assert made.low.shape == made.refined_low.shape == (1, 3, 3, 9, 11)


def test_starnet_has_the_given_frames_as_they_were_given(starnet):
    clip = torch.rand(1, 3, 3, 12, 16)
    made = starnet.with_intermediates(clip)[1]
    for low in (made.low, made.refined_low):
        torch.testing.assert_close(low[:, ::2], clip)
        assert (low[:, 1::2] - (clip[:, 1:] + clip[:, :-1]) / 2).abs().max() > 1e-3
    assert (made.low - made.refined_low).abs().max() > 1e-6


@pytest.mark.parametrize(("network_class", "options"), [(STARnet, SMALL_STAR), (STINet, SMALL_STI)])
def test_an_untrained_network_on_a_base_makes_it_on_its_way_too(network_class, options):
    network = network_class(**options, base="bicubic")
    with torch.no_grad():
        restored, made = network.with_intermediates(torch.rand(1, 2, 3, 12, 16))
    torch.testing.assert_close(made.frames, restored.frames)


def taught(network, term, shown):
    """Names of the parameters that the term teaches."""
    network.zero_grad()
    term(shown).backward(retain_graph=True)
    return {name for name, each in network.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0}


def test_each_objective_teaches_its_own_part_of_starnet(starnet):
    shown = seen(starnet)
    space, time, both, early = (
        taught(starnet, term(ALONE), shown) for term in (StarSpace, StarTime, StarSpaceTime, Intermediate)
    )
    last_low, last_high, first_stage = (
        f"{name}.conv.weight" for name in ("reconstruction_l", "reconstruction_h", "RBPN.output")
    )
    assert last_low in time
    assert last_low not in space | both
    assert last_high in space & both
    assert last_high not in time
    assert first_stage in early
    assert first_stage not in space | time | both


def test_flow_refinement_is_taught_alone(refining):
    names = taught(refining, StarFlow(ALONE), seen(refining))
    assert names
    assert all(name.startswith("flow_net.") for name in names)


def test_heads_of_stinet_that_nothing_else_teaches_are_taught(stinet):
    shown = seen(stinet)
    heads = {"reconstruction_h.conv.weight", "reconstruction_l.conv.weight"}
    assert heads <= taught(stinet, Intermediate(ALONE), shown)
    assert not heads & taught(stinet, StarSpace(ALONE), shown)


def test_neither_truth_has_a_gradient(stinet):
    shown = seen(stinet)
    shown.truth.requires_grad_()
    (Intermediate(ALONE)(shown) + StarTime(ALONE)(shown) + StarSpaceTime(ALONE)(shown)).backward()
    assert shown.low_truth.grad is None
    assert shown.low_truth.requires_grad is False


def test_networks_that_lack_what_a_term_is_about_are_refused(student, starnet, stinet):
    for term in (StarTime, StarFlow, Intermediate):
        with pytest.raises(ConfigError, match=rf"{term.name} supervises what STARnet and STINet make .* SpaceTime"):
            term.check(student)
        term.check(stinet)
    with pytest.raises(ConfigError, match=r"star-space-time is about frames between .* FastDVDnet"):
        StarSpaceTime.check(student.spatial)
    StarSpaceTime.check(student)
    StarSpace.check(student.spatial)
    with pytest.raises(ConfigError, match="corrects optical flow"):
        StarFlow(ALONE)(seen(starnet))


@pytest.mark.parametrize("name", ["starnet", "stinet"])
def test_mixed_precision_leaves_the_losses_in_full(name, request):
    network = request.getfixturevalue(name)
    with torch.autocast("cpu", torch.bfloat16):
        shown = seen(network, frames=3)
        for term in (StarSpace, StarSpaceTime, StarTime, Intermediate):
            loss = term(ALONE)(shown)
            assert loss.dtype == torch.float32
            assert loss.isfinite()
