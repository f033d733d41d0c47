"""ONNX Runtime's own format, for its smallest builds."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from distill.errors import ConfigError
from export.to_onnx.program import read_model

__all__ = ["ort_operators", "write_ort"]


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

    if {entry.key: entry.value for entry in read_model(path).metadata_props}["precision"] == "fp16":
        raise ConfigError(f"{path} is fp16, and an .ort file of it would compute in float32: take the .onnx file.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", form)
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    # a memory layout that ARM has not
    left_out = {"disabled_optimizers": ["NchwcTransformer"]}
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], **left_out)
