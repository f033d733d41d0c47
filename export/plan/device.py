"""What a device can do, as a table that anyone can write: docs/planning.md tells how."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from distill.errors import ConfigError, did_you_mean
from export.graphs.workload import KINDS

__all__ = [
    "ASSUMED_SPREAD",
    "BYTES",
    "EFFECTS",
    "BadOperator",
    "Device",
    "Figure",
    "Spread",
    "known_devices",
    "read_device",
]

BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "int8": 1}
"""Precisions that a table can speak of, and the bytes of a number."""

EFFECTS = ("leaves", "slow")
"""What a device does to an operator that it runs badly: it hands it to another unit, or it takes its time."""

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


@dataclass(frozen=True)
class Spread:
    """What measured times were of estimated ones, at the lowest and at the highest; otherwise as `Figure`."""

    low: float
    high: float
    measured: bool
    date: str
    source: str


ASSUMED_SPREAD = Spread(0.5, 2.0, False, "", "assumed, since the table compares no estimate with a measured time")


@dataclass(frozen=True)
class BadOperator:
    """An operator that a device runs badly.

    Attributes:
        kind: one of `export.graphs.workload.KINDS`.
        effect: one of `EFFECTS`.
        why: one sentence.
        measured: as in `Figure`, and so are `date` and `source`.
        date: see above.
        source: see above.
    """

    kind: str
    effect: str
    why: str
    measured: bool
    date: str
    source: str


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
        return _Table(path).device()
    if str(device) not in known_devices():
        hint = did_you_mean(str(device), known_devices())
        raise ConfigError(
            f"There is no device {str(device)!r}.{hint} Known: {', '.join(known_devices())}; or give a .yaml file, "
            "see docs/planning.md."
        )
    return _Table(_SHIPPED / f"{device}.yaml").device()


_REQUIRED = ("name", "title", "unit", "measured", "compute", "bandwidth")
_OPTIONAL = ("utilisation", "launch", "run", "lanes", "stored_lanes", "onchip", "memory", "spread", "operators")
_ORIGIN = ("measured", "date", "source")


class _Table:
    """A file, read key by key; every complaint names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"The device table {path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"The device table {path} is not YAML: {' '.join(str(error).split())}.") from error
        self.content = self.mapping(content, "", _REQUIRED, _OPTIONAL)

    def device(self) -> Device:
        content = self.content
        spread = ASSUMED_SPREAD if "spread" not in content else self.spread(content["spread"])
        known = {key: self.figure(content[key], key) for key in _OPTIONAL[:-2] if key in content}
        return Device(
            name=self.text(content, "name"),
            title=self.text(content, "title"),
            unit=self.text(content, "unit"),
            measured=self.flag(content, "measured"),
            compute=self.compute(content["compute"]),
            bandwidth=self.figure(content["bandwidth"], "bandwidth"),
            spread=spread,
            operators=self.operators(content.get("operators", [])),
            **known,
        )

    def compute(self, given: object) -> dict[str, Figure]:
        by_precision = self.mapping(given, "compute", (), tuple(BYTES))
        if not by_precision:
            self.complain("compute", "nothing", f"one of {', '.join(BYTES)} at least")
        return {
            precision: self.figure(by_precision[precision], f"compute.{precision}")
            for precision in BYTES
            if precision in by_precision
        }

    def figure(self, given: object, key: str) -> Figure:
        content = self.mapping(given, key, ("value", *_ORIGIN), ())
        value = self.number(content, "value", key)
        if key == "utilisation" and value > 1:
            self.complain("utilisation.value", value, "a share, up to 1")
        return Figure(value, **self.origin(content, key))

    def spread(self, given: object) -> Spread:
        content = self.mapping(given, "spread", ("low", "high", *_ORIGIN), ())
        low, high = (self.number(content, end, "spread") for end in ("low", "high"))
        if low > high:
            self.complain("spread.low", low, f"no more than spread.high, {high:g}")
        return Spread(low, high, **self.origin(content, "spread"))

    def operators(self, given: object) -> tuple[BadOperator, ...]:
        if not isinstance(given, Sequence) or isinstance(given, str):
            self.complain("operators", given, "a list")
        return tuple(self.operator(each, f"operators[{place}]") for place, each in enumerate(given))

    def operator(self, given: object, key: str) -> BadOperator:
        content = self.mapping(given, key, ("kind", "effect", "why", *_ORIGIN), ())
        kind, effect = self.text(content, "kind", key), self.text(content, "effect", key)
        if kind not in KINDS:
            self.complain(f"{key}.kind", kind, f"one of {', '.join(sorted(KINDS))}", did_you_mean(kind, KINDS))
        if effect not in EFFECTS:
            self.complain(f"{key}.effect", effect, f"one of {', '.join(EFFECTS)}")
        return BadOperator(kind, effect, self.text(content, "why", key), **self.origin(content, key))

    def origin(self, content: Mapping[str, Any], key: str) -> dict[str, Any]:
        date = content["date"]
        if isinstance(date, dt.date):  # which is what YAML makes of an unquoted one
            content = {**content, "date": date.isoformat()}
        return {
            "measured": self.flag(content, "measured", key),
            "date": self.text(content, "date", key),
            "source": self.text(content, "source", key),
        }

    def mapping(self, given: object, key: str, needed: Sequence[str], allowed: Sequence[str]) -> Mapping[str, Any]:
        if not isinstance(given, Mapping):
            self.complain(key or "the file", given, "keys with values")
        prefix = f"{key}." if key else ""
        for each in given:
            if each not in (*needed, *allowed):
                hint = did_you_mean(str(each), (*needed, *allowed))
                raise ConfigError(f"The device table {self.path} has an unknown key {prefix}{each}.{hint}")
        for each in needed:
            if each not in given:
                raise ConfigError(f"The device table {self.path} lacks the key {prefix}{each}, see docs/planning.md.")
        return given

    def text(self, content: Mapping[str, Any], name: str, key: str = "") -> str:
        value = content[name]
        if not isinstance(value, str) or not value.strip():
            self.complain(f"{key}.{name}" if key else name, value, "text")
        return " ".join(str(value).split())

    def flag(self, content: Mapping[str, Any], name: str, key: str = "") -> bool:
        value = content[name]
        if not isinstance(value, bool):
            self.complain(f"{key}.{name}" if key else name, value, "yes or no")
        return bool(value)

    def number(self, content: Mapping[str, Any], name: str, key: str) -> float:
        value = content[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.complain(f"{key}.{name}", value, "a number above 0")
        return float(value)

    def complain(self, key: str, value: object, expected: str, hint: str = "") -> NoReturn:
        raise ConfigError(f"The device table {self.path}: {key} is {value!r}, expected {expected}.{hint}")
