"""Export to ncnn: a folder `NAME.ncnn` of one size, with model.param, model.bin and metadata.json."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import torch

from distill.files import sha256_of
from export.conversion import Task, convert_apart
from export.formats import Order
from export.ncnn_program import METADATA, MODEL, WEIGHTS, NcnnProgram
from export.single_pictures import SinglePictures

__all__ = ["convert", "write"]


def write(order: Order, target: Path) -> None:
    """Write an .ncnn folder, see `export.formats.Format.write`; precisions are "fp32" and "fp16".

    ncnn knows no batch: what a network does to several pictures at once is written once for each, weights included, so
    that the file may be several times larger. A streaming one seldom does.

    "fp16" holds weights in half precision. What computes with them is the runtime's choice, and the interface stays
    float32.

    Raises:
        CheckFailed: the network cannot be expressed in ncnn.
    """
    graph = order.graph()
    facts = order.facts() | {"inputs": json.dumps(list(graph.inputs)), "outputs": json.dumps(graph.outputs)}
    convert_apart("ncnn", "export.to_ncnn:convert", order, graph, target, facts)


def convert(task: Task) -> None:
    """Write the folder that a task asks for, and run it once, here where it may crash.

    Raises:
        ValueError: the network needs what ncnn does not have.
    """
    task.target.mkdir(exist_ok=True)
    param, weights = task.target / MODEL, task.target / WEIGHTS
    _translate(task, param, weights)
    for line in param.read_text().splitlines()[2:]:
        kind = line.split()[0]
        if "." in kind or "::" in kind:  # a layer that was left as PyTorch calls it
            raise ValueError(f"ncnn has no {kind}")
    facts = task.facts | {"sha256": json.dumps({each.name: sha256_of(each) for each in (param, weights)})}
    (task.target / METADATA).write_text(json.dumps(facts, indent=1, sort_keys=True))
    assert task.program.example_inputs is not None
    examples = task.program.example_inputs[0]
    named = {name: tensor.numpy() for name, tensor in zip(task.inputs, examples, strict=True)}
    for name, array in NcnnProgram(task.target, 1).run(named).items():
        if array.ndim != 4:
            raise ValueError(f"its result `{name}` comes out as {array.shape}")


def _translate(task: Task, param: Path, weights: Path) -> None:
    """Have pnnx translate what a trace of the graph sees."""
    import pnnx

    assert task.program.example_inputs is not None
    examples = task.program.example_inputs[0]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        source = Path(folder) / "model.pt"
        single = torch.export.export(SinglePictures(task.program), examples, strict=False).module()
        # traced as a function, not as a module, whose attributes the file format would stumble over
        torch.jit.trace(lambda *tensors: single(*tensors), examples, check_trace=False).save(str(source))
        shapes = ",".join(f"{list(tensor.shape)}f32".replace(" ", "") for tensor in examples)
        halves = int(task.precision == "fp16")
        command = [pnnx.EXEC_PATH, str(source), f"inputshape={shapes}", f"fp16={halves}", "device=cpu"]
        command += [f"ncnnparam={param}", f"ncnnbin={weights}"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if process.returncode:
        said = (process.stderr.strip() or process.stdout.strip() or "nothing").splitlines()[-1]
        raise ValueError(f"pnnx ended with code {process.returncode}, saying: {said}")
