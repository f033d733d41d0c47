"""What a fresh process pays for a file of any format.

This script needs nothing of the project but what opens the file: where that needs no torch, the memory it sees is the
runtime's and the network's own.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


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
            `export.interfaces.Format`; `modules`, imported before anything is measured, because importing a runtime is
            not loading a file.
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
    load = pkgutil.resolve_name(order["opener"])
    before = _peak_megabytes()
    started = time.perf_counter()
    run = load(Path(order["path"]), order["threads"]).run
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


if __name__ == "__main__":
    # the last line: runtimes may print some of their own
    sys.stdout.write("\n" + json.dumps(_cold_start(json.load(sys.stdin))))
