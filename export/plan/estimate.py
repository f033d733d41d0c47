"""From what a graph asks and what a device can do to milliseconds: a roofline, operator by operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

from export.graphs.workload import Operation, Shape, Workload
from export.plan.device import BYTES, BadOperator, Device, Figure

__all__ = ["METHOD", "BadlyRun", "Estimate", "KindCost", "badly_run", "estimate", "peak_megabytes"]

METHOD = (
    "estimate = for each operator the longer of multiply-accumulates / compute and bytes / bandwidth, plus launch; "
    "summed, plus run. Activations that directly follow a convolution and changes of shape count as free."
)


@dataclass(frozen=True)
class KindCost:
    """All operators of a kind: how many, their multiply-accumulates, and their part of the estimate in ms."""

    kind: str
    count: int
    macs: int
    ms: float


@dataclass(frozen=True)
class Estimate:
    """What one run is expected to take.

    Attributes:
        ms: the estimate.
        low_ms: and what `export.plan.device.Spread` makes of it,
        high_ms: at both ends.
        compute: the part of `ms` that waits for multiply-accumulates,
        memory: for the memory,
        overhead: and for launches.
        kinds: where the time goes, the most first.
    """

    ms: float
    low_ms: float
    high_ms: float
    compute: float
    memory: float
    overhead: float
    kinds: tuple[KindCost, ...]


@dataclass(frozen=True)
class BadlyRun:
    """What a device's table says of an operator, and how many of those a graph has."""

    operator: BadOperator
    count: int


def estimate(workload: Workload, device: Device, precision: str) -> Estimate:
    """Of one run of a graph.

    Args:
        workload: the graph at one size.
        device: that would run it.
        precision: of all operators; one of `device.compute`.
    """
    model = _Roofline(device, precision)
    compute = memory = overhead = 0.0
    kinds: dict[str, list[float]] = {}  # count, multiply-accumulates, seconds
    for operation in workload.operations:
        if operation.free:
            continue
        computing, moving = model.computing(operation), model.moving(operation)
        compute += computing if computing >= moving else 0
        memory += moving if computing < moving else 0
        overhead += model.launch
        sums = kinds.setdefault(operation.kind, [0, 0, 0])
        for place, amount in enumerate((1, operation.macs, max(computing, moving) + model.launch)):
            sums[place] += amount
    overhead += model.run
    ms = 1e3 * (compute + memory + overhead)
    costs = (KindCost(kind, int(count), int(macs), 1e3 * seconds) for kind, (count, macs, seconds) in kinds.items())
    return Estimate(
        ms,
        ms * device.spread.low,
        ms * device.spread.high,
        1e3 * compute,
        1e3 * memory,
        1e3 * overhead,
        tuple(sorted(costs, key=lambda each: -each.ms)),
    )


def badly_run(workload: Workload, device: Device) -> tuple[BadlyRun, ...]:
    """The operators of a graph that the device's table warns of, in the order of the table."""
    found = []
    for operator in device.operators:
        count = sum(operator.kind in operation.kinds for operation in workload.operations if not operation.free)
        if count:
            found.append(BadlyRun(operator, count))
    return tuple(found)


def peak_megabytes(workload: Workload, precision: str) -> float:
    """Activations alive at once, and all weights, in MB (1e6 bytes)."""
    return (workload.peak_elements + workload.weights) * BYTES[precision] / 1e6


class _Roofline:
    """A device's figures in seconds, bytes and multiply-accumulates."""

    def __init__(self, device: Device, precision: str) -> None:
        self.rate = device.compute[precision].value * 1e9 * _value(device.utilisation, 1)
        self.bandwidth = device.bandwidth.value * 1e9
        self.launch, self.run = 1e-6 * _value(device.launch, 0), 1e-6 * _value(device.run, 0)
        self.lanes, self.stored_lanes = int(_value(device.lanes, 1)), int(_value(device.stored_lanes, 1))
        self.onchip = 1e6 * _value(device.onchip, 0)
        self.bytes = BYTES[precision]

    def computing(self, operation: Operation) -> float:
        idle_lanes = _filled(operation.channels, self.lanes) / operation.channels if operation.channels else 1
        return operation.macs * idle_lanes / self.rate

    def moving(self, operation: Operation) -> float:
        tensors = [self.stored(shape) for shape in operation.read + operation.written]
        moved = sum(each for each in tensors if each > self.onchip) + operation.weights * self.bytes
        return moved / self.bandwidth

    def stored(self, shape: Shape) -> int:
        """Bytes of a tensor."""
        if len(shape) == 4:
            shape = (shape[0], _filled(shape[1], self.stored_lanes), *shape[2:])
        return math.prod(shape) * self.bytes


def _value(figure: Figure | None, otherwise: float) -> float:
    return otherwise if figure is None else figure.value


def _filled(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes
