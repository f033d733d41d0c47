"""Converters run in a process of their own: what they print, break or eat up stays there."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.export import ExportedProgram

from distill.errors import CheckFailed
from export.graphs.graph import Graph, traced
from export.quiet import quiet

__all__ = ["Conversion", "convert_apart", "run_conversion"]

_LONGEST = 3600.0  # seconds that a conversion may take
_MEMORY_SHARE = 0.8  # of what is free when it starts
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "allocate memory")
_START = "from export.graphs.isolated import run_conversion; run_conversion()"


@dataclass(frozen=True)
class Conversion:
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
    network: str,
    precision: str,
    graph: Graph,
    target: Path,
    facts: Mapping[str, str],
    samples: Sequence[Mapping[str, Tensor]] = (),
) -> None:
    """Trace a graph here and convert it in a new process, which may use most of the free memory and one hour.

    Args:
        kind: name of the format, for messages.
        converter: "module:function", called with a `Conversion`; whatever it raises is told.
        network: its class's name, for messages.
        precision: one of the format's.
        graph: the network's, or what the format made of it.
        target: the file, or folder, that the converter writes.
        facts: what the file is to say of itself.
        samples: inputs by name, that ranges of activations are measured on.

    Raises:
        CheckFailed: the network cannot be traced or converted, or the converter ran out of memory or time.
    """
    failed = f"{network} cannot be exported to {kind}"
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
            "precision": precision,
            "samples": len(samples),
            "target": str(target.absolute()),
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        if reason := _run(folder):
            raise CheckFailed(f"{failed}: {reason}")


def run_conversion() -> None:
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
        conversion = Conversion(
            program=torch.export.load(folder / "program.pt2"),
            inputs=tuple(settings["inputs"]),
            outputs=tuple(settings["outputs"]),
            facts=settings["facts"],
            precision=settings["precision"],
            samples=samples,
            target=Path(settings["target"]),
        )
        pkgutil.resolve_name(settings["converter"])(conversion)
    except Exception as error:  # converters raise anything
        (folder / "reason").write_text(_reason(error), "utf-8")
        sys.exit(1)


def _write_program(graph: Graph, path: Path) -> None:
    for tensor in (*graph.module.parameters(), *graph.module.buffers()):
        tensor.data = tensor.data.contiguous()  # ExecuTorch stumbles over other strides
    with quiet():
        torch.export.save(traced(graph), path)


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
