"""Networks in memory that take part in a profile."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distill.interfaces import SlidingNetwork
from export.graphs.graph import Graph, streaming_graph, windowed_graph
from export.latency.contender import Contender, NetworkEntry, Opened
from export.latency.row import FAILED, Row
from export.machine import seconds_of


class _Network(Opened):
    precision = "fp32"

    def __init__(self, entry: NetworkEntry) -> None:
        self._entry = entry

    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        entry = self._entry
        graph = _graph(entry.network, size, streaming=entry.streaming)
        row = Row(
            entry.name,
            "torch.compile" if entry.compiled else "pytorch",
            precision=self.precision,
            mode="streaming" if entry.streaming else "windowed",
            size=size,
            scale=entry.network.scale,
            time_scale=entry.network.time_scale,
            threads=threads,
            unit_asked="cpu",
            unit_got="cpu",
            runtime="torch",
            runtime_version=str(torch.__version__),
            input_shapes={name: list(tensor.shape) for name, tensor in graph.inputs.items()},
            parameters=_parameters(graph),
            macs=_macs(graph),
            fidelity=entry.fidelity,
        )
        steps = _Steps(graph, threads, compiled=entry.compiled)
        try:
            with warnings.catch_warnings():  # of torch about itself
                warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
                first = steps()
        except Exception as error:  # whatever a compiler raises, such as that there is no C++ compiler
            reason = " ".join(str(error).split("\n\n")[0].split()) or repr(error)
            return Contender(replace(row, absent=FAILED, reason=reason))
        return Contender(replace(row, first_ms=first * 1e3), steps)


_SPINNING_SECONDS = 0.01
"""So long OpenMP's threads wait busily for more work, and would slow down whatever runs next."""


class _Steps:
    """Runs a graph in PyTorch, as `_Feed` does a file, and returns the seconds."""

    def __init__(self, graph: Graph, threads: int, *, compiled: bool) -> None:
        self._module: Callable[..., Any] = graph.module
        if compiled:  # as a whole or not at all: what stays eager must not be called compiled
            self._module = torch.compile(graph.module, dynamic=False, fullgraph=True)
        draw = torch.Generator().manual_seed(0)
        with torch.inference_mode():  # as the memories that come back are: compiled code is for one kind of tensors
            self._tensors = [
                torch.rand(tensor.shape, generator=draw) if name.partition("_")[0] == "frame" else tensor.clone()
                for name, tensor in graph.inputs.items()
            ]
        self._threads, self._pictures = threads, len(graph.pictures)

    def __call__(self) -> float:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            seconds = seconds_of(self._step)
        if self._threads > 1:
            time.sleep(_SPINNING_SECONDS)
        return seconds

    def _step(self) -> None:
        memories = self._module(*self._tensors)[self._pictures :]
        self._tensors[len(self._tensors) - len(memories) :] = memories


def _graph(network: SlidingNetwork, size: tuple[int, int], *, streaming: bool) -> Graph:
    return (streaming_graph if streaming else windowed_graph)(network, size)


def _parameters(graph: Graph) -> int:
    return sum(parameter.numel() for parameter in graph.module.parameters())


def _macs(graph: Graph) -> int:
    """Multiply-accumulates of one run, counted on tensors without content."""
    module = copy.deepcopy(graph.module).to("meta")
    inputs: list[Tensor] = [tensor.to("meta") for tensor in graph.inputs.values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops()) // 2
