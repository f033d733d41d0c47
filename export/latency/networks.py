"""Networks in memory that take part in a profile."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distill.interfaces import SlidingNetwork
from export.graphs.graph import Graph, streaming_graph, windowed_graph
from export.latency.contender import Contender, Entry
from export.latency.row import FAILED, Absence, ColdStart, Execution, Fidelity, Row, Subject, Work
from export.machine import seconds_of

__all__ = ["NetworkEntry", "graph_of", "work_of"]


class NetworkEntry(Entry):
    """A network in PyTorch to be measured on the CPU: its deployed copy, as it would be exported.

    Args:
        network: on any device, in any mode; it is not changed.
        name: that rows give it.
        streaming: step by step with memories, instead of window by window.
        compiled: by torch.compile, instead of eager.
        fidelity: how good its pictures are, where that is known.
    """

    precision = "fp32"

    def __init__(
        self,
        network: SlidingNetwork,
        name: str,
        streaming: bool = False,
        compiled: bool = False,
        fidelity: Fidelity | None = None,
    ) -> None:
        self._network, self._name, self._fidelity = network, name, fidelity
        self._streaming, self._compiled = streaming, compiled

    def contender(self, size: tuple[int, int], threads: int) -> Contender:
        graph = graph_of(self._network, size, streaming=self._streaming)
        shapes = {name: list(tensor.shape) for name, tensor in graph.inputs.items()}
        row = partial(
            Row,
            Subject(
                self._name,
                "torch.compile" if self._compiled else "pytorch",
                self.precision,
                "streaming" if self._streaming else "windowed",
                size,
                self._network.scale,
                self._network.time_scale,
            ),
            threads,
            work=work_of(graph),
            execution=Execution("cpu", "cpu", "torch", str(torch.__version__), shapes),
            fidelity=self._fidelity,
        )
        steps = _Steps(graph, threads, compiled=self._compiled)
        try:
            with warnings.catch_warnings():  # of torch about itself
                warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
                first = steps()
        except Exception as error:  # whatever a compiler raises, such as that there is no C++ compiler
            reason = " ".join(str(error).split("\n\n")[0].split()) or repr(error)
            return Contender(row(absence=Absence(FAILED, reason)))
        return Contender(row(cold_start=ColdStart(first * 1e3)), steps)


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


def graph_of(network: SlidingNetwork, size: tuple[int, int], *, streaming: bool) -> Graph:
    """What is measured of a network at a size, (height, width)."""
    return (streaming_graph if streaming else windowed_graph)(network, size)


def work_of(graph: Graph) -> Work:
    """What a run computes, counted on tensors without content.

    The figures are those of `export.graphs.workload`, which needs a trace: that takes some ten times as long, and
    networks that cannot be traced, such as rbpn, can be measured all the same.
    """
    module = copy.deepcopy(graph.module).to("meta")
    inputs: list[Tensor] = [tensor.to("meta") for tensor in graph.inputs.values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    parameters = sum(parameter.numel() for parameter in graph.module.parameters())
    return Work(parameters, int(counter.get_total_flops()) // 2)
