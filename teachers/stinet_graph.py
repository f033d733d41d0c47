"""STINet's graph: every frame, at both resolutions, is a node, and learns of the frames before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from teachers.back_projection import KERNEL_STRIDE_PADDING, ConvBlock

__all__ = ["Edges", "GlobalRefinement", "GraphLayer", "edge_weights", "topology"]

Edges = Literal["unweighted", "weighted"]


class GlobalRefinement(nn.Module):
    """ST-GR (Sec. III-D): four GraphSAGE layers over frames' mean features, which tell a gain for each channel.

    Args:
        channels: of the features.
        hidden: channels between the layers.
        edges: "unweighted" as the published code computes it; "weighted" by the paper's edge attributes, see
            `edge_weights`. The code computes the attributes and then leaves them unused.
    """

    def __init__(self, channels: int, hidden: int, edges: Edges = "unweighted") -> None:
        super().__init__()
        if edges not in get_args(Edges):
            raise ValueError(f"edges is {edges!r}, expected one of {get_args(Edges)}")
        self.edges = edges
        # only weighted edges need it, but every published file has it
        self.h_down_gcn = ConvBlock(channels, channels, *KERNEL_STRIDE_PADDING[4], "lrelu")
        self.SAG1 = GraphLayer(channels, hidden)
        self.SAG2 = GraphLayer(hidden, hidden)
        self.SAG3 = GraphLayer(hidden, hidden)
        self.SAG4 = GraphLayer(hidden, channels)

    def forward(self, low: list[Tensor], high: list[Tensor], moments: Sequence[float]) -> tuple[Tensor, Tensor]:
        """What each frame's features are to be multiplied by.

        Args:
            low: of each frame, (N, C, h, w).
            high: of each frame, (N, C, 4h, 4w).
            moments: of each frame; given frames are 2 apart, as in the paper's Eq. 1.

        Returns:
            Two factors (N, T, C): for `low` and for `high`.
        """
        nodes = torch.stack([each.mean((-2, -1)) for each in (*high, *low)], 1)
        links = topology(len(low), nodes)
        weights = links
        if self.edges == "weighted":
            shrunk = [self.h_down_gcn(each) for each in high]
            weights = edge_weights(nodes, low, high, shrunk, moments)
        # each node is its own neighbour; the mean is over their number, whatever their weights, as in dgl
        average = (weights + torch.eye(2 * len(low)).to(nodes)) / (links.sum(1, keepdim=True) + 1)
        for layer in (self.SAG1, self.SAG2, self.SAG3):
            nodes = functional.relu(layer(nodes, average))
        for_high, for_low = (1 + 0.1 * self.SAG4(nodes, average)).chunk(2, 1)
        return for_low, for_high


class GraphLayer(nn.Module):
    """GraphSAGE with the "gcn" aggregator, by dgl's names: a linear map, averaged over neighbours, plus a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fc_neigh = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, nodes: Tensor, average: Tensor) -> Tensor:
        """(N, V, in_channels) and (V, V) or (N, V, V), from column to row -> (N, V, out_channels)."""
        messages: Tensor = average @ self.fc_neigh(nodes)
        return messages + self.bias


def topology(count: int, like: Tensor) -> Tensor:
    """Who hears whom among `count` frames at high, then at low resolution: (2 * count, 2 * count) of 0 and 1.

    Row i has a 1 in column j where j tells i: earlier frames tell later ones of their resolution, and each frame at
    high resolution tells itself at low resolution. These are the published code's; the paper's text has no direction.
    """
    earlier = torch.ones(count, count).tril(-1)
    high = torch.cat((earlier, torch.zeros(count, count)), 1)
    low = torch.cat((torch.eye(count), earlier), 1)
    return torch.cat((high, low)).to(like)


def edge_weights(
    nodes: Tensor, low: list[Tensor], high: list[Tensor], shrunk: list[Tensor], moments: Sequence[float]
) -> Tensor:
    """For each edge the mean of its three attributes: frame similarity, pixel similarity, temporal closeness.

    E^F is the cosine of two nodes, E^P the mean over pixels of the cosine of two frames' features, E^T = 1 -
    sigmoid(|t1 - t2|). The paper does not say how the three become one weight; their mean never exceeds 1, the
    weight of an unweighted edge.

    Args:
        nodes: (N, 2T, C), high resolution first.
        low: of each frame, (N, C, h, w).
        high: of each frame, (N, C, 4h, 4w).
        shrunk: `high` at low resolution, (N, C, h, w), which is compared with `low`.
        moments: of each frame, given frames 2 apart.

    Returns:
        (N, 2T, 2T), laid out as `topology`, 0 where that is 0.
    """
    directions = functional.normalize(nodes, dim=2)
    by_frame = directions @ directions.mT
    across = torch.diag_embed(torch.stack([_likeness(*pair) for pair in zip(shrunk, low, strict=True)], 1))
    high_rows = torch.cat((_with_earlier(high), torch.zeros_like(across)), 2)
    by_pixel = torch.cat((high_rows, torch.cat((across, _with_earlier(low)), 2)), 1)
    when = torch.tensor([*moments, *moments]).to(nodes)
    closeness = 1 - (when[:, None] - when).abs().sigmoid()
    return topology(len(low), nodes) * (by_frame + by_pixel + closeness) / 3


def _likeness(one: Tensor, two: Tensor) -> Tensor:
    """Mean over pixels of the cosine of two features (N, C, H, W): (N,)."""
    return functional.cosine_similarity(one, two, dim=1).mean((-2, -1))


def _with_earlier(features: list[Tensor]) -> Tensor:
    """`_likeness` of each frame (row) with every earlier one (column), else 0: (N, T, T)."""
    none = features[0].new_zeros(len(features[0]))
    rows = []
    for index, one in enumerate(features):
        earlier = [_likeness(one, other) for other in features[:index]]
        rows.append(torch.stack(earlier + [none] * (len(features) - index), 1))
    return torch.stack(rows, 1)
