"""Export to ONNX: float32, one window of frames in, the restored middle frame out, one self-contained file."""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim

from distill.checkpoint import replacing
from distill.errors import CheckFailed, ConfigError, InputError
from distill.interfaces import WindowNetwork
from export.artifact import Artifact
from export.deploy import deployed

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

__all__ = ["GIVEN_METADATA", "SIZE_MULTIPLE", "export_onnx"]

GIVEN_METADATA = ("network", "keywords", "degradation", "provenance")
"""What the caller must tell of a network, because only its checkpoint knows."""

SIZE_MULTIPLE = 4
"""Networks pad to multiples of 4; in a graph of free size the caller does, so that no size is frozen into it."""

_OPSET = 18  # what the exporter writes without converting: oldest runtimes, fewest surprises
_TRACED = (24, 40)  # two sides that differ, so that neither is taken for the other


class _WindowGraph(nn.Module):
    """The graph's interface: (1, window, 3, h, w) -> (1, 3, scale*h, scale*w). Networks know nothing of export."""

    def __init__(self, network: WindowNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        return self.network.reconstruct(window).frames


def export_onnx(
    network: WindowNetwork, target: Path, *, metadata: Mapping[str, str], size: tuple[int, int] | None = None
) -> Artifact:
    """Write a network as one ONNX file that describes itself and holds neither paths nor times.

    The input is `window`, float32 (1, window, 3, height, width), RGB in [0, 1]; the output is `frame`, float32
    (1, 3, scale*height, scale*width), not clamped. Batch normalisations are folded. The same network and metadata
    give the same bytes.

    Args:
        network: on any device, in any mode; it is not changed.
        target: the file; replaced whole or not at all.
        metadata: `GIVEN_METADATA` and whatever else should stand in the file, as text (`keywords` as JSON).
        size: (height, width) of the low-resolution frames. None leaves both free: multiples of `SIZE_MULTIPLE`,
            to be padded by repeating the last row and column, and the result cropped, as `OnnxNetwork` does.

    Raises:
        ConfigError: `size` is not positive.
        InputError: the file cannot be written.
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    started = time.perf_counter()
    if missing := [key for key in GIVEN_METADATA if key not in metadata]:
        raise ValueError(f"metadata lacks {', '.join(missing)}")
    if size is not None and min(size) < 1:
        raise ConfigError(f"The size is {size[0]}x{size[1]}, but height and width must be at least 1.")
    model = _translated(_WindowGraph(deployed(network).cpu()).eval(), network.window, size)
    _strip(model)
    if size is None:
        _name_sizes(model, network.scale)
    facts = dict(metadata) | {
        "scale": str(network.scale),
        "window": str(network.window),
        "colour_range": "RGB 0..1",
        "layout": "N T C H W",
        "precision": "fp32",
        "distill_vsr_version": version("distill-vsr"),
        "torch_version": str(torch.__version__),
    }
    facts |= {"size_multiple": str(SIZE_MULTIPLE)} if size is None else {"size": f"{size[0]}x{size[1]}"}
    for key, value in sorted(facts.items()):
        model.metadata_props.add(key=key, value=value)
    _check(model)
    payload = model.SerializeToString(deterministic=True)
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(payload)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{target} cannot be written ({reason}): free the place or give another path.") from error
    digest = hashlib.sha256(payload).hexdigest()
    return Artifact(target, "onnx", len(payload), digest, facts, time.perf_counter() - started)


def _translated(graph: _WindowGraph, window: int, size: tuple[int, int] | None) -> ModelProto:
    # a side is 4 times a whole number, so padding to 4 is nothing and leaves the graph; 2, as 1 would be special
    free = {3: SIZE_MULTIPLE * Dim("_height", min=2), 4: SIZE_MULTIPLE * Dim("_width", min=2)}
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                (torch.zeros(1, window, 3, *(size or _TRACED)),),
                dynamo=True,
                opset_version=_OPSET,
                input_names=["window"],
                output_names=["frame"],
                dynamic_shapes={"window": free if size is None else None},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise CheckFailed(f"{type(graph.network).__name__} cannot be exported to ONNX: {cause}") from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter says about itself: that torchvision is not there, and a deprecation inside torch."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _strip(model: ModelProto) -> None:
    """Remove stack traces, source paths and the exporter's own notes, which no runtime reads."""
    graph = model.graph
    del graph.value_info[:]  # shapes of intermediate results: runtimes infer them
    del model.metadata_props[:]
    for holder in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del holder.metadata_props[:]
        holder.doc_string = ""


def _name_sizes(model: ModelProto, scale: int) -> None:
    """Call the free sizes `height` and `width`, and those of the output `4*height` and `4*width`.

    Raises:
        CheckFailed: a size of the output was fixed to the traced one, so that others would come out wrong.
    """
    _name_last_two(model.graph.input[0], "height", "width")
    _name_last_two(model.graph.output[0], f"{scale}*height", f"{scale}*width")


def _name_last_two(value: ValueInfoProto, *names: str) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim[-2:], names, strict=True):
        if not dimension.dim_param:
            raise CheckFailed(f"The exported graph fixes the {name} of `{value.name}`: pass a size to export for it.")
        dimension.dim_param = name


def _check(model: ModelProto) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"The exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
