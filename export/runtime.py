"""ONNX Runtime on this host, and what a fresh process pays for it.

This file needs neither torch nor the rest of the project: run as a script it measures a cold start, and the memory
it sees is the runtime's and the network's own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["open_session"]

# "session": an onnxruntime.InferenceSession, which has no types


def open_session(path: Path, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        path: an .onnx file.
        threads: that compute together; None leaves the choice to the runtime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors only
    # waiting threads must not burn the core that the next measurement, of another session, runs on
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _peak_megabytes() -> float | None:
    """The most memory this process ever held (VmHWM; ru_maxrss would count the parent's); None where not Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 / 1e6


def _cold_start(path: Path, threads: int, shape: tuple[int, ...]) -> dict[str, float | None]:
    """Times in ms and memory in MB (1e6 bytes) of loading the file and of the first run."""
    import numpy as np
    import onnxruntime  # noqa: F401 -- importing it is not loading the file

    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    before = _peak_megabytes()
    started = time.perf_counter()
    session = open_session(path, threads)
    loaded = time.perf_counter()
    session.run(None, {"window": noise})
    first = time.perf_counter()
    session.run(None, {"window": noise})  # only now the runtime's memory plan is in force
    return {
        "load_ms": (loaded - started) * 1e3,
        "first_ms": (first - loaded) * 1e3,
        "start_mb": before,
        "peak_mb": _peak_megabytes(),
    }


if __name__ == "__main__":
    file, threads, *shape = sys.argv[1:]
    sys.stdout.write(json.dumps(_cold_start(Path(file), int(threads), tuple(map(int, shape)))))
