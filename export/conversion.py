"""Converters run in a process of their own: what they print, break or eat up stays there."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional

from distill.errors import CheckFailed
from export.formats import Order
from export.graph import Graph, traced

__all__ = ["Task", "convert_apart", "in_common_operators", "quiet", "run_task"]

_LONGEST = 3600.0  # seconds that a conversion may take
_MEMORY_SHARE = 0.8  # of what is free when it starts
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "allocate memory")
_START = "from export.conversion import run_task; run_task()"


@dataclass(frozen=True)
class Task:
    """What a converter works on.

    Attributes:
        program: the graph.
        inputs: names, in order.
        outputs: names, in order.
        facts: what the file is to say of itself.
        precision: one of the format's.
        samples: inputs by name, that ranges of activations are measured on.
        target: the file, or folder, to write.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: dict[str, str]
    precision: str
    samples: list[dict[str, Tensor]]
    target: Path


def convert_apart(
    kind: str,
    converter: str,
    order: Order,
    graph: Graph,
    target: Path,
    facts: Mapping[str, str],
    samples: Sequence[Mapping[str, Tensor]] = (),
) -> None:
    """Trace a graph here and convert it in a new process, which may use most of the free memory and one hour.

    Args:
        kind: name of the format, for messages.
        converter: "module:function", called with a `Task`; whatever it raises is told.
        order: what is exported.
        graph: its graph, or what the format made of it.
        target: the file, or folder, that the converter writes.
        facts: what the file is to say of itself.
        samples: inputs by name, that ranges of activations are measured on.

    Raises:
        CheckFailed: the network cannot be traced or converted, or the converter ran out of memory or time.
    """
    failed = f"{type(order.network).__name__} cannot be exported to {kind}"
    with tempfile.TemporaryDirectory(prefix="distill-export-") as name:
        folder = Path(name)
        try:
            _write_program(graph, folder / "program.pt2")
        except Exception as error:  # whatever torch.export raises
            raise CheckFailed(f"{failed}: {_reason(error)}") from error
        named = {f"{place} {key}": tensor for place, each in enumerate(samples) for key, tensor in each.items()}
        save_file({key: tensor.clone().contiguous() for key, tensor in named.items()}, folder / "samples.safetensors")
        settings = {
            "converter": converter,
            "inputs": list(graph.inputs),
            "outputs": graph.outputs,
            "facts": dict(facts),
            "precision": order.precision,
            "samples": len(samples),
            "target": str(target.absolute()),
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        if reason := _run(folder):
            raise CheckFailed(f"{failed}: {reason}")


def run_task() -> None:
    """Convert what `convert_apart` left in the folder named on the command line; a reason to fail is left there."""
    folder = Path(sys.argv[1])
    _limit_memory()
    warnings.simplefilter("ignore")
    settings = json.loads((folder / "settings.json").read_text())
    samples: list[dict[str, Tensor]] = [{} for _ in range(settings["samples"])]
    for key, tensor in load_file(folder / "samples.safetensors").items():
        place, _, name = key.partition(" ")
        samples[int(place)][name] = tensor
    try:
        task = Task(
            program=torch.export.load(folder / "program.pt2"),
            inputs=tuple(settings["inputs"]),
            outputs=tuple(settings["outputs"]),
            facts=settings["facts"],
            precision=settings["precision"],
            samples=samples,
            target=Path(settings["target"]),
        )
        _function(settings["converter"])(task)
    except Exception as error:  # converters raise anything
        (folder / "reason").write_text(_reason(error), "utf-8")
        sys.exit(1)


def in_common_operators(program: ExportedProgram) -> ExportedProgram:
    """The same with splits and repeated edges as slices and concatenations.

    Delegates take these, where the others would be computed beside them; a split into one part even stops a converter.
    """
    aten = torch.ops.aten
    table = {
        aten.pad.default: _padded,
        aten.split.Tensor: _split,
        aten.split_with_sizes.default: _split_with_sizes,
    }
    with quiet():
        same: ExportedProgram = program.run_decompositions(table)
    return same


def _padded(tensor: Tensor, padding: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
    if mode != "replicate" or len(padding) != 4:
        return functional.pad(tensor, padding, mode, value)
    for axis, (before, after) in ((3, padding[:2]), (2, padding[2:])):
        first, last = tensor.narrow(axis, 0, 1), tensor.narrow(axis, tensor.shape[axis] - 1, 1)
        tensor = torch.cat([first] * before + [tensor] + [last] * after, axis)
    return tensor


def _split(tensor: Tensor, size: int, axis: int = 0) -> list[Tensor]:
    length = tensor.shape[axis]
    return _split_with_sizes(tensor, [min(size, length - start) for start in range(0, length, size)], axis)


def _split_with_sizes(tensor: Tensor, sizes: list[int], axis: int = 0) -> list[Tensor]:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [
        torch.ops.aten.slice.Tensor(tensor, axis, start, start + size)
        for start, size in zip(starts, sizes, strict=True)
    ]


def _write_program(graph: Graph, path: Path) -> None:
    for tensor in (*graph.module.parameters(), *graph.module.buffers()):
        tensor.data = tensor.data.contiguous()  # ExecuTorch stumbles over other strides
    with quiet():
        torch.export.save(traced(graph), path)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back a deprecation inside torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        yield


def _run(folder: Path) -> str:
    """Run the converter; why it failed, or nothing."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            return f"the conversion was stopped after {_LONGEST:.0f} seconds"
        finally:
            _end(process)
    if code == 0:
        return ""
    if (folder / "reason").exists():
        return (folder / "reason").read_text("utf-8")
    lines = log.read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    stopped = f"was stopped by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"the converter {stopped} ({last[:200]})"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the converter and what it started, if it still runs."""
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _limit_memory() -> None:
    """Let this process, and each that it starts, take most of what is free, so that the rest of the system lives on."""
    facts = Path("/proc/meminfo")
    if sys.platform == "win32" or not facts.exists():
        return
    import resource

    fields = dict(line.split(":", 1) for line in facts.read_text().splitlines())
    limit = int(int(fields["MemAvailable"].split()[0]) * 1024 * _MEMORY_SHARE)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _reason(error: Exception) -> str:
    """One line, with the operator where the message names it further down."""
    text = str(error).strip() or type(error).__name__
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return "the conversion needs more memory than is free: free some, or give a smaller size"
    first = text.splitlines()[0].strip().rstrip(".")
    operator = re.search(r"torch\.ops\.([\w.]+)", text)
    if operator is None or operator.group(1) in first:
        return first
    return f"{first} (at {operator.group(1)})"


def _function(reference: str) -> Callable[[Task], None]:
    module, _, name = reference.partition(":")
    function: Callable[[Task], None] = getattr(importlib.import_module(module), name)
    return function
