"""What each layer of an 8-bit file costs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from export.exported import ExportedNetwork
from export.interfaces import Array, LayerCost, Order, Program
from export.to_onnx.integer_parts import _Parts
from export.to_onnx.layout import layer_of
from export.to_onnx.program import read_metadata
from export.to_onnx.quantize import _clips, _float_model, _quantised, _ranges
from export.to_onnx.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["sensitivity"]


_SHOWN_FRAMES = 3  # restored once for every layer


def sensitivity(order: Order) -> list[LayerCost]:
    """What leaving each quantised convolution in float would gain, on a few frames of the first of the order's clips.

    That is what the file then says. ONNX Runtime, from some version on, still quantises a float convolution that
    stands between quantised ones, one scale a tensor; here it is kept from that.

    Args:
        order: as for `int8_model`.

    Returns:
        The costliest layer first.

    Raises:
        ConfigError: there are no clips.
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    model, clips = _float_model(order), _clips(order)
    parts = _Parts(model)
    ranges = _ranges(model, parts, clips)
    shown = [clip[:_SHOWN_FRAMES] for clip in clips[:1]]
    exact = _restored(model, shown)

    def psnr(integer: Collection[str]) -> float:
        error = _restored(_quantised(model, ranges, integer), shown).sub(exact).square().mean().item()
        return -10 * math.log10(error) if error else math.inf

    layers: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name in parts.integer:
            layers.setdefault(layer_of(node), set()).add(node.name)
    whole = psnr(parts.integer)
    costs = []
    for layer, names in layers.items():
        without = psnr(parts.integer - names)
        costs.append(LayerCost(layer, without, without - whole if math.isfinite(whole) else 0.0))
    return sorted(costs, key=lambda cost: -cost.gain_db)


class _AsWritten(Program):
    """A file without ONNX Runtime's habit of quantising a float convolution, tensor-wise, between quantised ones."""

    def __init__(self, path: Path) -> None:
        self.metadata = read_metadata(path)
        self._session = open_session(path, without=["WeightBiasQuantization"])
        self._names = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))


def _restored(model: ModelProto, clips: Iterable[Tensor]) -> Tensor:
    """All values of all frames that a model restores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "restored.onnx"
        path.write_bytes(model.SerializeToString())
        exported = ExportedNetwork(_AsWritten(path), path)
        return torch.cat([frame.flatten() for clip in clips for frame in exported.stream(clip)])
