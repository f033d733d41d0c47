"""What a device can do, as a table that anyone can write: docs/planning.md tells how."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from distill.errors import ConfigError, did_you_mean
from distill.settings import read_file
from export.graphs.workload import KINDS

__all__ = [
    "ASSUMED_SPREAD",
    "BYTES",
    "BadOperator",
    "Device",
    "Figure",
    "Spread",
    "known_devices",
    "read_device",
]

BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "int8": 1}
"""Precisions that a table can speak of, and the bytes of a number."""

_SHIPPED = Path(__file__).with_name("devices")


@dataclass(frozen=True)
class Figure:
    """A number and where it is from.

    Attributes:
        value: in the unit that its key has.
        measured: on the device itself, by whoever wrote the table.
        date: when it was measured or looked up.
        source: a command, a publication, or how it was worked out of one.
    """

    value: float
    measured: bool
    date: str
    source: str

    def problems(self) -> Iterator[str]:
        yield from _unfit_number("value", self.value)
        yield from _blank_texts(self)


@dataclass(frozen=True)
class Spread:
    """What measured times were of estimated ones, at the lowest and at the highest; otherwise as `Figure`."""

    low: float
    high: float
    measured: bool
    date: str
    source: str

    def problems(self) -> Iterator[str]:
        yield from _unfit_number("low", self.low)
        yield from _unfit_number("high", self.high)
        if self.low > self.high:
            yield f"low is {self.low:g}, expected no more than high, {self.high:g}"
        yield from _blank_texts(self)


ASSUMED_SPREAD = Spread(0.5, 2.0, False, "", "assumed, since the table compares no estimate with a measured time")


@dataclass(frozen=True)
class BadOperator:
    """An operator that a device runs badly.

    Attributes:
        kind: one of `export.graphs.workload.KINDS`.
        effect: the device hands it to another unit, or it takes its time.
        why: one sentence.
        measured: as in `Figure`, and so are `date` and `source`.
        date: see above.
        source: see above.
    """

    kind: str
    effect: Literal["leaves", "slow"]
    why: str
    measured: bool
    date: str
    source: str

    def problems(self) -> Iterator[str]:
        if self.kind not in KINDS:
            hint = did_you_mean(self.kind, KINDS)
            yield f"kind is {self.kind!r}, expected one of {', '.join(sorted(KINDS))}.{hint}"
        yield from _blank_texts(self)


@dataclass(frozen=True)
class Device:
    """A processor, and what runs networks on it.

    Attributes:
        name: as typed.
        title: in words.
        unit: which part of the device, through which runtime.
        measured: whether the figures were measured on the device by whoever wrote the table.
        compute: by precision, 1e9 multiply-accumulates a second.
        utilisation: the share of `compute` that networks reach, up to 1; None where `compute` is what they reach.
        bandwidth: of the memory, 1e9 bytes a second.
        launch: microseconds that each operator takes besides; None is nothing.
        run: microseconds that each run takes besides; None is nothing.
        lanes: channels are computed in groups of so many, so that fewer cost as much; None is 1.
        stored_lanes: channels are stored in groups of so many; None is 1.
        onchip: MB (1e6 bytes); tensors up to this size are not moved to the memory and back; None is nothing.
        memory: MB that an app may use; None where the table does not tell.
        spread: of measured times over estimated ones.
        operators: that it runs badly.
    """

    name: str
    title: str
    unit: str
    measured: bool
    compute: Mapping[str, Figure]
    bandwidth: Figure
    utilisation: Figure | None = None
    launch: Figure | None = None
    run: Figure | None = None
    lanes: Figure | None = None
    stored_lanes: Figure | None = None
    onchip: Figure | None = None
    memory: Figure | None = None
    spread: Spread = ASSUMED_SPREAD
    operators: tuple[BadOperator, ...] = ()

    def problems(self) -> Iterator[str]:
        if not self.compute:
            yield f"compute is empty, expected one of {', '.join(BYTES)} at least"
        for each in self.compute.keys() - BYTES.keys():
            yield f"there is no key 'compute.{each}'.{did_you_mean(each, BYTES)}"
        if self.utilisation is not None and self.utilisation.value > 1:
            yield f"utilisation.value is {self.utilisation.value:g}, expected a share, up to 1"
        yield from _blank_texts(self)

    def figures(self) -> dict[str, Figure]:
        """Every number that the estimate rests on, by its key."""
        keys = ("utilisation", "bandwidth", "launch", "run", "lanes", "stored_lanes", "onchip", "memory")
        single = {key: getattr(self, key) for key in keys}
        by_precision = {f"compute.{precision}": figure for precision, figure in self.compute.items()}
        return by_precision | {key: figure for key, figure in single.items() if figure is not None}


def known_devices() -> list[str]:
    """Names of the tables that ship."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def read_device(device: str | Path) -> Device:
    """A table by the name of one that ships, or from a file.

    Args:
        device: a name, or a path: anything that ends in .yaml or .yml, has a folder in it, or exists.

    Raises:
        ConfigError: there is no such name, or the file cannot be read or is malformed.
    """
    path = Path(device)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or path.exists():
        return _read(path)
    if str(device) not in known_devices():
        hint = did_you_mean(str(device), known_devices())
        raise ConfigError(
            f"There is no device {str(device)!r}.{hint} Known: {', '.join(known_devices())}; or give a .yaml file, "
            "see docs/planning.md."
        )
    return _read(_SHIPPED / f"{device}.yaml")


def _read(path: Path) -> Device:
    device = read_file(Device, path, "device table")
    return replace(device, compute={each: device.compute[each] for each in BYTES if each in device.compute})


def _unfit_number(name: str, value: float) -> Iterator[str]:
    if not 0 < value < math.inf:
        yield f"{name} is {value:g}, expected a number above 0"


def _blank_texts(record: Any) -> Iterator[str]:
    """Texts that tell nothing, for every text of a table is for people."""
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str) and not value.strip():
            yield f"{field.name} is {value!r}, expected text"
