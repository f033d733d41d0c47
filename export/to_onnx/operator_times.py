"""Where the time of a run goes, operator by operator, as ONNX Runtime's own profiler tells it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.interfaces import Node, Operators, OperatorType
from export.program import Array
from export.to_onnx.session import open_session

__all__ = ["NODES", "operators"]

NODES = 10
"""The most expensive ones that are told singly."""

_WARMUP, _RUNS = 3, 20


def operators(path: Path, inputs: Mapping[str, Array], size: tuple[int, int], threads: int) -> Operators:
    """Profile an .onnx file on the CPU.

    Args:
        path: the file.
        inputs: of a run, by name.
        size: (height, width) of the low-resolution frames in them.
        threads: that compute together.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, threads, Path(folder) / "trace")
        for _ in range(_WARMUP + _RUNS):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    return _summed(events, path.name, size, threads)


def _summed(events: list[dict[str, Any]], entry: str, size: tuple[int, int], threads: int) -> Operators:
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)  # (index, name, type) -> ms of each run
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            facts, name = event["args"], event["name"].removesuffix("_kernel_time")
            times[facts["node_index"], name, facts["op_name"]].append(event["dur"] / 1e3)
    means = {node: sum(each[_WARMUP:]) / _RUNS for node, each in times.items()}
    whole = sum(means.values())
    by_type: dict[str, list[float]] = defaultdict(list)
    for (_, _, kind), ms in means.items():
        by_type[kind].append(ms)
    types = [OperatorType(kind, len(ms), sum(ms), sum(ms) / whole) for kind, ms in by_type.items()]
    nodes = [Node(name, kind, ms, ms / whole) for (_, name, kind), ms in means.items()]
    return Operators(
        entry,
        size,
        threads,
        _RUNS,
        whole,
        tuple(sorted(types, key=lambda each: -each.ms)),
        tuple(sorted(nodes, key=lambda each: -each.ms)[:NODES]),
    )
