"""STINet's graph by hand-made numbers."""

from __future__ import annotations

import math

import pytest
import torch

from teachers.stinet_graph import GlobalRefinement, GraphLayer, edge_weights, topology


def test_topology_of_two_frames():
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]
    assert topology(2, torch.zeros(())).tolist() == expected


def test_the_published_number_of_edges():
    """7 frames at two resolutions: 21 pairs each, and 7 from high to low."""
    assert topology(7, torch.zeros(())).sum() == 21 + 21 + 7


def test_a_layer_averages_over_neighbours_and_itself():
    layer = GraphLayer(2, 2)
    layer.fc_neigh.weight.data = torch.eye(2) * 2
    layer.bias.data = torch.tensor([0.0, 1.0])
    nodes = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    told = layer(nodes, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert told.tolist() == [[[2.0, 5.0], [4.0, 9.0]]]


def features(count, channels=3, size=(2, 3)):
    low = [torch.randn(2, channels, *size) for _ in range(count)]
    high = [torch.randn(2, channels, 4 * size[0], 4 * size[1]) for _ in range(count)]
    return low, high


def cosine(one, two):
    return float(one @ two / (one.norm() * two.norm()))


def pixel_cosine(one, two):
    rows, columns = one.shape[-2:]
    pixels = [cosine(one[:, y, x], two[:, y, x]) for y in range(rows) for x in range(columns)]
    return sum(pixels) / len(pixels)


def test_edge_weights_are_the_mean_of_the_three_attributes():
    low, high = features(3)
    shrunk, _ = features(3)
    nodes, moments = torch.randn(2, 6, 3), (0.0, 0.5, 2.0)
    weights = edge_weights(nodes, low, high, shrunk, moments)
    assert torch.equal(weights != 0, topology(3, nodes).bool().expand(2, -1, -1))
    for (to, source), one, two, apart in (
        ((2, 0), high[2][1], high[0][1], 2.0),
        ((5, 4), low[2][1], low[1][1], 1.5),
        ((4, 1), shrunk[1][1], low[1][1], 0.0),
    ):
        closeness = 1 - 1 / (1 + math.exp(-apart))
        expected = (cosine(nodes[1, to], nodes[1, source]) + pixel_cosine(one, two) + closeness) / 3
        assert weights[1, to, source].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("edges", ["unweighted", "weighted"])
def test_frames_hear_of_earlier_ones_alone(edges):
    refinement = GlobalRefinement(3, 5, edges)
    low, high = features(4)
    before = refinement(low, high, (0, 1, 2, 3))
    low[2], high[2] = low[2] + 5, high[2] - 5
    after = refinement(low, high, (0, 1, 2, 3))
    for one, two in zip(before, after, strict=True):
        assert one.shape == (2, 4, 3)
        assert torch.equal(one[:, :2], two[:, :2])
        assert not torch.allclose(one[:, 3], two[:, 3])


def test_weights_and_moments_matter_only_where_edges_are_weighted():
    refinement = GlobalRefinement(3, 5, "weighted")
    low, high = features(3)
    near, far = (refinement(low, high, moments)[0] for moments in ((0, 1, 2), (0, 4, 8)))
    assert not torch.equal(near, far)
    refinement.edges = "unweighted"
    plain, plain_far = (refinement(low, high, moments)[0] for moments in ((0, 1, 2), (0, 4, 8)))
    assert torch.equal(plain, plain_far)
    assert not torch.equal(plain, near)
