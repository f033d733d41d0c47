"""A format that this project does not have: torch.export's own program with its metadata, run by torch."""

from __future__ import annotations

import json
import warnings

import torch

from export.graphs.graph import traced
from export.interfaces import Format
from export.program import Program, check_own


class SavedProgram(Format):
    name, suffix, precisions, sizes = "pt2", ".pt2", ("fp32",), "one"
    needs = runtime = "torch"
    opener = "tests.stand_ins.saved_program:TorchProgram"

    def _write(self, order, target):
        graph = order.graph()
        facts = order.facts() | {"inputs": " ".join(graph.inputs), "outputs": " ".join(graph.outputs)}
        with warnings.catch_warnings(action="ignore"):  # of weights that are parts of larger tensors
            torch.export.save(traced(graph), target, extra_files={"facts": json.dumps(facts)})

    def _open(self, path, threads):
        return TorchProgram(path, threads)


class TorchProgram(Program):
    runtime, runtime_title, runtime_version, unit_asked, unit_got = "torch", "PyTorch", torch.__version__, "CPU", "CPU"

    def __init__(self, path, threads):
        found = {"facts": ""}
        self._module = torch.export.load(path, extra_files=found).module()
        self.metadata = json.loads(found["facts"])
        check_own(self.metadata, path, "a program", "give the .pt2 file that `distill export` wrote.")

    def _run(self, inputs):
        tensors = (torch.from_numpy(inputs[name]) for name in self.metadata["inputs"].split())
        with torch.inference_mode():
            results = self._module(*tensors)
        return dict(zip(self.metadata["outputs"].split(), (result.numpy() for result in results), strict=True))
