"""Narrower and wider variants of a student: how its keywords grow with one factor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from distill.networks.opening import Named

__all__ = ["Variant", "variants"]

_FACTORS = (0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Variant:
    """A student of other widths.

    Attributes:
        factor: of the widths, about; 1 is the student as it was named.
        options: keywords that make it, without those that its name stands for.
    """

    factor: float
    options: Mapping[str, Any]

    def setting(self) -> str:
        """The options as `--set` takes them."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        return (
            f"student_options={yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False).strip()}"
        )


def variants(student: Named) -> list[Variant]:
    """From the narrowest to the widest, the student itself among them; it alone where no widths are known."""
    itself = Variant(1.0, dict(student.keywords))
    multiples = student.entry.network.width_multiples
    if not multiples:
        return [itself]
    built = inspect.signature(student.entry.network).parameters
    given = {**student.entry.keywords, **student.keywords}
    base = {name: _scaled(given.get(name, built[name].default), 1, 1) for name in multiples}
    found: list[Variant] = []
    for factor in _FACTORS:
        widths = {name: _scaled(base[name], factor, multiple) for name, multiple in multiples.items()}
        if factor == 1:
            found.append(itself)
        elif widths != base and all(widths != _widths(other, base) for other in found):
            found.append(Variant(factor, {**student.keywords, **widths}))
    return found


def _widths(variant: Variant, base: Mapping[str, Any]) -> dict[str, Any]:
    return {name: variant.options.get(name, base[name]) for name in base}


def _scaled(value: Any, factor: float, multiple: int) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_scaled(each, factor, multiple) for each in value)
    return max(multiple, round(value * factor / multiple) * multiple)
