"""What to expect of a student on a device before it is trained: operators, memory, time, and how wide it may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.errors import CheckFailed, ConfigError
from distill.networks.opening import Named, named
from distill.text_tables import aligned
from export.graphs.graph import Graph, streaming_graph, traced, windowed_graph
from export.graphs.workload import Workload, workload
from export.plan.device import BYTES, BadOperator, Device, read_device
from export.plan.estimate import METHOD, BadlyRun, Estimate, badly_run, estimate, peak_megabytes
from export.plan.variants import Variant, variants

__all__ = ["Candidate", "StudentPlan", "Widest", "parse_budget", "plan_student"]

_MODES: Mapping[str, Callable[..., Graph]] = {"windowed": windowed_graph, "streaming": streaming_graph}


@dataclass(frozen=True)
class Candidate:
    """The student in one mode and one precision.

    Attributes:
        mode: "windowed" (a window of frames in) or "streaming" (one frame and memories in); all is of one run: of
            one restored frame, or of two where the student doubles the frame rate.
        precision: "fp32", "fp16" or "int8", of everything.
        macs: multiply-accumulates.
        weights_mb: all weights, MB (1e6 bytes).
        memory_mb: weights and the activations alive at once.
        estimate: of the time.
        verdict: whether it is within the budget, see `StudentPlan`.
    """

    mode: str
    precision: str
    macs: int
    weights_mb: float
    memory_mb: float
    estimate: Estimate
    verdict: str


@dataclass(frozen=True)
class Widest:
    """The widest variant whose estimate is within the budget; where none is, the narrowest, and `fits` is false.

    Attributes:
        mode: as in `Candidate`.
        precision: as in `Candidate`.
        fits: whether there is one.
        variant: the widths.
        setting: of `distill train` or `distill pretrain`, what follows `--set`.
        macs: multiply-accumulates.
        estimate: of the time.
        last: whether it is the widest that is tried at all.
    """

    mode: str
    precision: str
    fits: bool
    variant: Variant
    setting: str
    macs: int
    estimate: Estimate
    last: bool


@dataclass(frozen=True)
class StudentPlan:
    """What `plan_student` found. Nothing in it was measured.

    A verdict is "yes" where the whole interval is within the budget, "likely" where the estimate is, "unlikely" where
    only the interval's low end is, and "no". What an operator takes that leaves the unit is not in the table: then
    `complete` is false, estimates are lower bounds, and a verdict that is not "no" is "unknown".

    Attributes:
        student: as given.
        name: of the network, as the registry knows it.
        size: (height, width) of the low-resolution frames.
        budget_ms: for one run, see `Candidate`.
        device: the table.
        candidates: a mode and a precision each.
        badly: the operators that the device runs badly, by mode.
        widest: a mode and a precision each; empty where it is not known how the student's widths scale.
    """

    student: str
    name: str
    size: tuple[int, int]
    budget_ms: float
    device: Device
    candidates: tuple[Candidate, ...]
    badly: Mapping[str, tuple[BadlyRun, ...]]
    widest: tuple[Widest, ...]

    @property
    def complete(self) -> bool:
        """Whether the estimates are of all operators."""
        return not any(each.operator.effect == "leaves" for found in self.badly.values() for each in found)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        height, width = self.size
        return {
            "student": self.student,
            "network": self.name,
            "width": width,
            "height": height,
            "budget_ms": self.budget_ms,
            "measured": False,
            "complete": self.complete,
            "method": METHOD,
            "device": asdict(self.device),
            "estimates": [asdict(candidate) for candidate in self.candidates],
            "runs_badly": {mode: [asdict(each) for each in found] for mode, found in self.badly.items()},
            "widest": [asdict(each) for each in self.widest],
        }

    def text(self) -> str:
        """For people."""
        return "\n".join(
            [*self._head(), "", *self._table(), "", *self._operators(), "", *self._widths(), *self._tail()]
        )

    def _head(self) -> list[str]:
        height, width = self.size
        device = self.device
        origin = "measured on it" if device.measured else "NOT measured on it by this project"
        return [
            f"{self.student}, frames of {width}x{height}, {_ms(self.budget_ms)} ms a frame, on {device.title}",
            f"  unit: {device.unit}; figures {origin}",
            "  All times are ESTIMATES from the network's graph and the device's table; nothing was run.",
        ]

    def _table(self) -> list[str]:
        head = ("mode", "precision", "GMACs", "weights MB", "memory MB", "estimate ms", "from - to", "in budget")
        rows = [(*head, "spent on")]
        for row in self.candidates:
            time = row.estimate
            parts = (("computing", time.compute), ("memory", time.memory), ("launches", time.overhead))
            spent = ", ".join(f"{name} {part / time.ms:.0%}" for name, part in parts)
            figures = (f"{row.macs / 1e9:.2f}", f"{row.weights_mb:.2f}", f"{row.memory_mb:.1f}", self._at_least(time))
            rows.append((row.mode, row.precision, *figures, _interval(time), row.verdict, spent))
        lines = aligned(rows, left=(0, 1, 7, 8))
        limit = self.device.memory
        if limit is not None:
            worst = max(candidate.memory_mb for candidate in self.candidates)
            lines.append(f"memory: {worst:.1f} MB at most, of {limit.value:g} MB that the device has for it")
        return lines

    def _at_least(self, time: Estimate) -> str:
        return ("" if self.complete else ">") + _ms(time.ms)

    def _operators(self) -> list[str]:
        if not any(self.badly.values()):
            return ["operators: none that this device's table warns of"]
        lines = ["operators that this device runs badly:"]
        counted: dict[BadOperator, list[str]] = {}
        for mode, found in self.badly.items():
            for each in found:
                counted.setdefault(each.operator, []).append(f"{each.count} {mode}")
        for operator, counts in counted.items():
            effect = "leaves the unit" if operator.effect == "leaves" else "is slow"
            lines.append(f"  {operator.kind} ({', '.join(counts)}) {effect}: {operator.why}")
            lines.append(f"    {_origin(operator.measured, operator.date)}: {operator.source}")
        if not self.complete:
            lines.append("  What leaves the unit is not in the estimates: they are lower bounds.")
        return lines

    def _widths(self) -> list[str]:
        if not self.widest:
            return [f"widths: how {self.student} scales is not known here, so only it itself was estimated"]
        lines = [f"widest variant expected within {_ms(self.budget_ms)} ms (estimate, interval):"]
        for each in self.widest:
            time = f"{self._at_least(each.estimate)} ms ({_interval(each.estimate)}), {each.macs / 1e9:.2f} GMACs"
            what = f"  {each.mode} {each.precision}: "
            if not each.fits:
                what += f"none; the narrowest, --set '{each.setting}', needs {time}"
            elif each.variant.factor == 1:
                what += f"{self.student} as it is, {time}"
            else:
                what += f"--set '{each.setting}', {time}"
            lines.append(what + (", the widest that is tried" if each.fits and each.last else ""))
        lines.append(
            f"  to train it: distill train --student {self.name} --set ..., or distill pretrain {self.name} --set ..."
        )
        return lines

    def _tail(self) -> list[str]:
        lines = ["", f"method: {METHOD}", "figures:"]
        for key, figure in self.device.figures().items():
            lines.append(f"  {key} {figure.value:g}: {_origin(figure.measured, figure.date)}: {figure.source}")
        spread = self.device.spread
        origin = f"{_origin(spread.measured, spread.date)}: " if spread.date else ""
        return [*lines, f"  interval {spread.low:g} to {spread.high:g} times the estimate: {origin}{spread.source}"]


def plan_student(student: str, size: tuple[int, int], budget_ms: float, device: str | Path) -> StudentPlan:
    """Estimate a student, windowed and streaming, and find the widest variant of it that a budget allows.

    Nothing is run or trained, and weights do not matter. Networks are traced on tensors without content.

    Args:
        student: the name of a network, a file of weights or a run folder.
        size: (height, width) of the low-resolution frames.
        budget_ms: milliseconds for one run, see `Candidate`.
        device: the name of a table that ships, or a file; see docs/planning.md.

    Raises:
        CheckFailed: the network cannot be traced.
        CheckpointError: the file of weights cannot be used.
        ConfigError: the size, the budget, the device's name or its table is wrong, or there is no such network.
        InputError: it is no network of fixed windows.
    """
    if min(size) < 1:
        raise ConfigError(f"The size is {size[1]}x{size[0]}, but width and height must be at least 1.")
    if not 0 < budget_ms < float("inf"):
        raise ConfigError(f"The budget is {budget_ms:g} ms, expected more than 0.")
    table = read_device(device)
    network = named(student)
    family = _Family(network, size)
    itself = next(index for index, each in enumerate(family.variants) if each.factor == 1)
    candidates, badly, widest = [], {}, []
    for mode in family.modes:
        work = family.workload_of(itself, mode)
        badly[mode] = badly_run(work, table)
        leaving = any(each.operator.effect == "leaves" for each in badly[mode])
        for precision in table.compute:
            found = _candidate(work, mode, precision, table, budget_ms)
            candidates.append(replace(found, verdict="unknown") if leaving and found.verdict != "no" else found)
            if len(family.variants) > 1:
                widest.append(_widest(family, mode, precision, table, budget_ms))
    return StudentPlan(student, network.entry.name, size, budget_ms, table, tuple(candidates), badly, tuple(widest))


def parse_budget(text: str) -> float:
    """Milliseconds for a frame, from "16ms", "0.016s" or "60fps".

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|fps)\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise ConfigError(f"The budget is {text!r}, expected a time or a rate for one frame: 16ms, 0.016s or 60fps.")
    value, unit = float(match[1]), match[2].lower()
    return 1e3 / value if unit == "fps" else value * (1e3 if unit == "s" else 1)


class _Family:
    """A student's variants, each traced when it is first asked for."""

    def __init__(self, student: Named, size: tuple[int, int]) -> None:
        self.student, self.size = student, size
        self.variants = variants(student)
        self.modes = list(_MODES) if student.build().step().memories else ["windowed"]
        self._workloads: dict[tuple[int, str], Workload] = {}

    def workload_of(self, index: int, mode: str) -> Workload:
        """The workload of variant number `index`."""
        if (index, mode) not in self._workloads:
            network = self.student.build(**self.variants[index].options)
            try:
                program = traced(_MODES[mode](network, self.size))
            except Exception as error:  # whatever torch.export raises
                cause = str(error).strip().splitlines()[0]
                raise CheckFailed(f"{self.student.entry.name} cannot be traced: {cause}") from error
            self._workloads[index, mode] = workload(program)
        return self._workloads[index, mode]


def _candidate(work: Workload, mode: str, precision: str, device: Device, budget_ms: float) -> Candidate:
    time = estimate(work, device, precision)
    weights = work.weights * BYTES[precision] / 1e6
    memory, verdict = peak_megabytes(work, precision), _verdict(time, budget_ms)
    return Candidate(mode, precision, work.macs, weights, memory, time, verdict)


def _widest(family: _Family, mode: str, precision: str, device: Device, budget_ms: float) -> Widest:
    """Wider ones take longer, so that halving the range finds the widest."""
    low, high = 0, len(family.variants)  # those below `low` fit, from `high` on none does
    while low < high:
        middle = (low + high) // 2
        if estimate(family.workload_of(middle, mode), device, precision).ms <= budget_ms:
            low = middle + 1
        else:
            high = middle
    index = max(low - 1, 0)
    variant, work = family.variants[index], family.workload_of(index, mode)
    time = estimate(work, device, precision)
    last = index == len(family.variants) - 1
    return Widest(mode, precision, low > 0, variant, variant.setting(), work.macs, time, last)


def _verdict(time: Estimate, budget_ms: float) -> str:
    for limit, verdict in ((time.high_ms, "yes"), (time.ms, "likely"), (time.low_ms, "unlikely")):
        if limit <= budget_ms:
            return verdict
    return "no"


def _ms(value: float) -> str:
    """With two digits that mean something."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _interval(time: Estimate) -> str:
    return f"{_ms(time.low_ms)} - {_ms(time.high_ms)}"


def _origin(measured: bool, date: str) -> str:
    return f"measured {date}" if measured else f"not measured by this project, {date}"
