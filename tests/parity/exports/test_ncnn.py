"""What ncnn alone needs: a network of single pictures, of four axes at the most and without batches."""

from __future__ import annotations

import pytest
import torch

from export.graphs.graph import streaming_graph, traced, windowed_graph
from export.to_ncnn.single_pictures import SinglePictures
from students.fastdvdnet_mobile import FastDVDnetMobile
from students.vdsr import VDSR
from students.vespcn import VESPCN
from students.vsrnet import VSRNet
from tests.stand_ins.networks import Tiny, randomise, thin_mobile

SIZE = (24, 40)


class InPlace(Tiny):
    """Changes a batch, and goes on to use what it was made of."""

    def reconstruct(self, window):
        first, middle, last = (window - 0.5).unbind(1)
        both = torch.cat((first, last))
        both.relu_()
        return super().reconstruct(torch.stack((both[:1], middle + first, both[1:]), 1))


NETWORKS = {
    "batches": lambda: FastDVDnetMobile(widths=(16, 16, 16)),
    "pairs": thin_mobile,
    "planes": lambda: VSRNet(widths=(4, 4), window=3),
    "planes-on-a-base": lambda: VDSR(hidden_convs=1, channels=4),
    "flow": VESPCN,
    "in-place": InPlace,
}


@pytest.mark.parametrize("make", [windowed_graph, streaming_graph])
@pytest.mark.parametrize("kind", NETWORKS)
def test_single_pictures_make_the_same(kind, make):
    graph = make(randomise(NETWORKS[kind]()), SIZE)
    program = traced(graph)
    tensors = [torch.rand(tensor.shape) for tensor in graph.inputs.values()]
    with torch.inference_mode():
        expected = graph.module(*tensors)
    single = SinglePictures(program)
    for ours, theirs in zip(single(*tensors), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    nodes = torch.export.export(single, tuple(tensors), strict=False).graph.nodes
    shapes = {tuple(node.meta["val"].shape) for node in nodes if node.op == "call_function"}
    assert all(len(shape) <= 4 and shape[0] == 1 for shape in shapes), shapes
