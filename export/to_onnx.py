"""Export to ONNX: one self-contained file that holds neither paths nor times."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distill.errors import CheckFailed, ConfigError
from export.formats import Order
from export.graph import Graph, halved, traced
from export.onnx_layout import to_phone_operators, without_transposed
from export.onnx_program import read_metadata

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

__all__ = ["check", "onnx_model", "ort_operators", "write", "write_ort"]

_OPSET = 18  # what the exporter writes without converting: oldest runtimes, fewest surprises


def write(order: Order, target: Path) -> None:
    """Write an .onnx file, see `export.formats.Format.write`.

    The same network and metadata give the same bytes.

    Raises:
        ConfigError: int8 is asked for without clips.
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    if order.precision == "int8":
        from export.quantize import int8_model  # which exports what it quantises by this module

        model = int8_model(order)
    else:
        model = onnx_model(order)
    target.write_bytes(model.SerializeToString(deterministic=True))


def onnx_model(order: Order) -> ModelProto:
    """The file's content in a floating-point precision, "fp32" or "fp16".

    In half precision frames still are float32, and memories are float16.

    Raises:
        CheckFailed: the network cannot be expressed in ONNX, or the graph is not valid.
    """
    graph = order.graph()
    facts = order.facts()
    if order.precision == "fp16":
        graph = halved(graph)
        facts["memory_type"] = "float16"
    model = _translated(graph, type(order.network).__name__)
    _strip(model)
    to_phone_operators(model)
    if graph.free_size:
        _name_sizes(model, graph, order.network.scale)
    else:  # which alone accelerators take
        without_transposed(model)
    for key, value in sorted(facts.items()):
        model.metadata_props.add(key=key, value=value)
    check(model)
    return model


def _translated(graph: Graph, name: str) -> ModelProto:
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                traced(graph),
                tuple(graph.inputs.values()),
                dynamo=True,
                opset_version=_OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                verbose=False,
            )
    except Exception as error:  # whatever torch.export and the exporter raise
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise CheckFailed(f"{name} cannot be exported to ONNX: {cause}") from error
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


def _name_sizes(model: ModelProto, graph: Graph, scale: int) -> None:
    """Call the free sizes `height` and `width`, and enlarged ones `4*height` and `4*width`.

    Raises:
        CheckFailed: a size was fixed to the traced one, so that others would come out wrong.
    """
    enlarged = {memory.name: memory.enlarged for memory in graph.memories} | dict.fromkeys(graph.pictures, scale)
    for value in (*model.graph.input, *model.graph.output):
        factor = enlarged.get(value.name.removeprefix("next_"), 1)
        prefix = "" if factor == 1 else f"{factor}*"
        _name_last_two(value, f"{prefix}height", f"{prefix}width")


def _name_last_two(value: ValueInfoProto, *names: str) -> None:
    for dimension, name in zip(value.type.tensor_type.shape.dim[-2:], names, strict=True):
        if not dimension.dim_param:
            raise CheckFailed(f"The exported graph fixes the {name} of `{value.name}`: pass a size to export for it.")
        dimension.dim_param = name


def check(model: ModelProto) -> None:
    """Check a graph against ONNX's rules.

    Raises:
        CheckFailed: it is not valid.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"The exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error


def write_ort(path: Path, target: Path) -> None:
    """Convert an exported .onnx file to ONNX Runtime's own format, all that its smallest builds for phones can read.

    What can be rewritten ahead is, for ARM processors; on others the file is slower than the .onnx file. The metadata
    comes along. ONNX Runtime orders some of its tables by chance, so the bytes differ from time to time.

    Args:
        path: in fp32 or int8.
        target: where the .ort file goes.

    Raises:
        InputError: `path` is missing, is not ONNX, or was not written by this project.
        ConfigError: it is in fp16; operators that this host computes in float32 would be fixed to that.
    """
    _rewrite_for_arm(path, target, "ORT")


def ort_operators(path: Path) -> str:
    """The operators that the .ort form of an .onnx file needs, a line a version of a set of them.

    ONNX Runtime's `build.py --include_ops_by_config` builds a smaller library with those alone.

    Raises:
        InputError: `path` is missing, is not ONNX, or was not written by this project.
        ConfigError: it is in fp16.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / "rewritten.onnx"
        _rewrite_for_arm(path, rewritten, "ONNX")
        model = onnx.load(rewritten)
    versions = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    needed: dict[tuple[str, int], set[str]] = defaultdict(set)
    for node in model.graph.node:
        domain, version = node.domain or "ai.onnx", 1  # ONNX Runtime's own operators have one version
        if domain == "ai.onnx":
            version = onnx.defs.get_schema(node.op_type, versions[domain], "").since_version
        needed[domain, version].add(node.op_type)
    lines = (f"{domain};{version};{','.join(sorted(types))}\n" for (domain, version), types in sorted(needed.items()))
    return "".join(lines)


def _rewrite_for_arm(path: Path, target: Path, form: str) -> None:
    """As onnxruntime.tools.convert_onnx_models_to_ort does for ARM, which also prints and writes paths of this host."""
    import onnxruntime

    if read_metadata(path)["precision"] == "fp16":
        raise ConfigError(f"{path} is fp16, and an .ort file of it would compute in float32: take the .onnx file.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", form)
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    # a memory layout that ARM has not
    left_out = {"disabled_optimizers": ["NchwcTransformer"]}
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], **left_out)
