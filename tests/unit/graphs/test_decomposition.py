"""A graph in the operators that every runtime has computes what it did."""

from __future__ import annotations

import pytest
import torch

from export.graphs.decomposition import in_common_operators
from export.graphs.graph import streaming_graph, traced
from students.fastdvdnet_mobile import FastDVDnetMobile
from students.vsrnet import VSRNet
from tests.stand_ins.networks import randomise, thin_mobile

NETWORKS = {
    "batches": lambda: FastDVDnetMobile(widths=(16, 16, 16)),
    "pairs": thin_mobile,
    "planes": lambda: VSRNet(widths=(4, 4), window=3),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_common_operators_make_the_same(kind):
    graph = streaming_graph(randomise(NETWORKS[kind]()), (24, 40))
    program = in_common_operators(traced(graph))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "pad." in name or "replication" in name or "split" in name]
    tensors = [torch.rand(tensor.shape) for tensor in graph.inputs.values()]
    with torch.inference_mode():
        for ours, theirs in zip(program.module()(*tensors), graph.module(*tensors), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
