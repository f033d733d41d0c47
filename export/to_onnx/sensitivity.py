"""What each layer of an 8-bit file costs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from export.exported import ExportedNetwork
from export.interfaces import LayerCost
from export.to_onnx.layout import layer_of
from export.to_onnx.program import OnnxProgram
from export.to_onnx.quantize import Measured, quantised

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["layer_costs"]


_SHOWN_FRAMES = 3  # restored once for every layer


def layer_costs(floats: Measured) -> list[LayerCost]:
    """What leaving each quantised convolution in float would gain, on a few frames of the first of the clips.

    That is what the file then says. ONNX Runtime, from some version on, still quantises a float convolution that
    stands between quantised ones, one scale a tensor; here it is kept from that.

    Args:
        floats: what the 8-bit file was made of.

    Returns:
        The costliest layer first.

    Raises:
        CheckFailed: a graph is not valid.
    """
    parts = floats.parts
    shown = [clip[:_SHOWN_FRAMES] for clip in floats.clips[:1]]
    exact = _restored(floats.model, shown)

    def psnr(integer: Collection[str]) -> float:
        error = _restored(quantised(floats, integer), shown).sub(exact).square().mean().item()
        return -10 * math.log10(error) if error else math.inf

    layers: dict[str, set[str]] = {}
    for node in floats.model.graph.node:
        if node.op_type == "Conv" and node.name in parts.integer:
            layers.setdefault(layer_of(node), set()).add(node.name)
    whole = psnr(parts.integer)
    costs = []
    for layer, names in layers.items():
        without = psnr(parts.integer - names)
        costs.append(LayerCost(layer, without, without - whole if math.isfinite(whole) else 0.0))
    return sorted(costs, key=lambda cost: -cost.gain_db)


def _restored(model: ModelProto, clips: Iterable[Tensor]) -> Tensor:
    """All values of all frames that a model restores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "restored.onnx"
        path.write_bytes(model.SerializeToString())
        # it would quantise a float convolution, tensor-wise, between quantised ones
        exported = ExportedNetwork(OnnxProgram(path, without=["WeightBiasQuantization"]), path)
        return torch.cat([frame.flatten() for clip in clips for frame in exported.stream(clip)])
