"""ONNX Runtime on this host, and what a fresh process pays for a file of any format.

This file needs neither torch nor the rest of the project: run as a script it measures a cold start, and for ONNX the
memory it sees is the runtime's and the network's own.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["SESSION_OPTIONS", "open_session"]

SESSION_OPTIONS = {"session.x64quantprecision": "1"}
"""What an app on x86-64 has to set for 8-bit files; it does nothing on other processors, or for other files.

On processors with AVX2 or AVX-512 but without VNNI, ONNX Runtime's default kernels add pairs of 8-bit products in 16
bits, where they saturate: a right file then gives wrong pictures (onnxruntime issues 12088 and 14642). The option is
heeded where a graph is rewritten for the processor; an .ort file is rewritten already, for ARM, so there it does
nothing.
"""

# "session": an onnxruntime.InferenceSession, which has no types


def open_session(
    model: Path | bytes,
    threads: int | None = None,
    trace: Path | None = None,
    *,
    settings: Mapping[str, str] = SESSION_OPTIONS,
    without: Sequence[str] = (),
) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: an .onnx file, or its content.
        threads: that compute together; None leaves the choice to the runtime.
        trace: what the name of a file begins with that the session writes when its profiling ends; None for no
            profiling.
        settings: entries of the session's configuration.
        without: names of graph optimisers that are switched off.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors only
    # waiting threads must not burn the core that the next measurement, of another session, runs on
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    source = model if isinstance(model, bytes) else str(model)
    left_out = {"disabled_optimizers": list(without)} if without else {}
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], **left_out)


def _peak_megabytes() -> float | None:
    """The most memory this process ever held (VmHWM; ru_maxrss would count the parent's); None where not Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 / 1e6


def _cold_start(order: dict[str, Any]) -> dict[str, float | None]:
    """Times in ms and memory in MB (1e6 bytes) of loading a file and of the first run.

    Args:
        order: `path`; `threads`; `inputs`, for each name its shape and type; `opener`, "module:function" as in
            `export.formats.Format`, or null for ONNX; `modules`, imported before anything is measured, because
            importing a runtime is not loading a file.
    """
    import numpy as np

    draw = np.random.default_rng(0)
    inputs = {
        # `frame` and `frame_0` and so on; all else are memories, which start at zero
        name: (draw.random(shape) if name.partition("_")[0] == "frame" else np.zeros(shape)).astype(kind)
        for name, (shape, kind) in order["inputs"].items()
    }
    for module in order["modules"]:
        with suppress(ImportError):  # some packages make modules that no file stands for
            importlib.import_module(module)
    opened = _opener(order["opener"])
    before = _peak_megabytes()
    started = time.perf_counter()
    run = opened(Path(order["path"]), order["threads"])
    loaded = time.perf_counter()
    run(inputs)
    first = time.perf_counter()
    run(inputs)  # only now a runtime's memory plan is in force
    return {
        "load_ms": (loaded - started) * 1e3,
        "first_ms": (first - loaded) * 1e3,
        "start_mb": before,
        "peak_mb": _peak_megabytes(),
    }


def _opener(reference: str | None) -> Callable[[Path, int], Callable[[dict[str, Any]], Any]]:
    if reference is None:

        def opened(path: Path, threads: int) -> Callable[[dict[str, Any]], Any]:
            session = open_session(path, threads)
            return lambda inputs: session.run(None, inputs)

        return opened
    module, _, name = reference.partition(":")
    load = getattr(importlib.import_module(module), name)
    return lambda path, threads: load(path, threads).run


if __name__ == "__main__":
    # the last line: runtimes may print some of their own
    sys.stdout.write("\n" + json.dumps(_cold_start(json.load(sys.stdin))))
