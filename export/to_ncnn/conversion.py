"""Export to ncnn: a folder `NAME.ncnn` of one size, with model.param, model.bin and metadata.json."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import torch

from distill.files import sha256_of
from export.graphs.isolated import Conversion, convert_apart
from export.interfaces import Order
from export.to_ncnn.program import METADATA, MODEL, WEIGHTS, NcnnProgram
from export.to_ncnn.single_pictures import SinglePictures

__all__ = ["convert", "write"]


def write(order: Order, target: Path) -> None:
    """Write an .ncnn folder, see `export.interfaces.Format.write`; precisions are "fp32" and "fp16".

    ncnn knows no batch: what a network does to several pictures at once is written once for each, weights included, so
    that the file may be several times larger. A streaming one seldom does.

    "fp16" holds weights in half precision. What computes with them is the runtime's choice, and the interface stays
    float32.

    Raises:
        CheckFailed: the network cannot be expressed in ncnn.
    """
    graph = order.graph()
    facts = order.facts() | {"inputs": json.dumps(list(graph.inputs)), "outputs": json.dumps(graph.outputs)}
    convert_apart(
        "ncnn",
        "export.to_ncnn.conversion:convert",
        type(order.network).__name__,
        order.precision,
        graph,
        target,
        facts,
    )


def convert(conversion: Conversion) -> None:
    """Write the folder that a conversion asks for, and run it once, here where it may crash.

    Raises:
        ValueError: the network needs what ncnn does not have.
    """
    conversion.target.mkdir(exist_ok=True)
    param, weights = conversion.target / MODEL, conversion.target / WEIGHTS
    _translate(conversion, param, weights)
    for line in param.read_text().splitlines()[2:]:
        kind = line.split()[0]
        if "." in kind or "::" in kind:  # a layer that was left as PyTorch calls it
            raise ValueError(f"ncnn has no {kind}")
    facts = conversion.facts | {"sha256": json.dumps({each.name: sha256_of(each) for each in (param, weights)})}
    (conversion.target / METADATA).write_text(json.dumps(facts, indent=1, sort_keys=True))
    assert conversion.program.example_inputs is not None
    examples = conversion.program.example_inputs[0]
    named = {name: tensor.numpy() for name, tensor in zip(conversion.inputs, examples, strict=True)}
    for name, array in NcnnProgram(conversion.target, 1).run(named).items():
        if array.ndim != 4:
            raise ValueError(f"its result `{name}` comes out as {array.shape}")


def _translate(conversion: Conversion, param: Path, weights: Path) -> None:
    """Have pnnx translate what a trace of the graph sees."""
    import pnnx

    assert conversion.program.example_inputs is not None
    examples = conversion.program.example_inputs[0]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        source = Path(folder) / "model.pt"
        single = torch.export.export(SinglePictures(conversion.program), examples, strict=False).module()
        # traced as a function, not as a module, whose attributes the file format would stumble over
        torch.jit.trace(lambda *tensors: single(*tensors), examples, check_trace=False).save(str(source))
        shapes = ",".join(f"{list(tensor.shape)}f32".replace(" ", "") for tensor in examples)
        halves = int(conversion.precision == "fp16")
        command = [pnnx.EXEC_PATH, str(source), f"inputshape={shapes}", f"fp16={halves}", "device=cpu"]
        command += [f"ncnnparam={param}", f"ncnnbin={weights}"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if process.returncode:
        said = (process.stderr.strip() or process.stdout.strip() or "nothing").splitlines()[-1]
        raise ValueError(f"pnnx ended with code {process.returncode}, saying: {said}")
