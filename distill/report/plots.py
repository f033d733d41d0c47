"""Plots of a comparison as inline SVG: differences with their intervals, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distill.pages.markup import Markup, element, joined
from distill.pages.plots import framed, percent

__all__ = ["Difference", "Line", "differences", "lines"]

_ROW = 46  # pixels
_HEIGHT, _ABOVE = 170, 16


@dataclass(frozen=True)
class Difference:
    """One row of a plot of differences.

    Attributes:
        label: on its left.
        told: on its right.
        mean: where its dot is.
        wide: ends of the thin line, where there is one.
        narrow: ends of the thick line, where there is one.
        tone: number of its colour.
    """

    label: str
    told: str
    mean: float
    wide: tuple[float, float] | None
    narrow: tuple[float, float] | None
    tone: int


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        points: (x, y), at least one.
        tone: number of its colour.
        thick: a mean; False is one of those it is the mean of.
        name: told where the pointer rests.
    """

    points: tuple[tuple[float, float], ...]
    tone: int
    thick: bool
    name: str


def differences(rows: Sequence[Difference], unit: str, title: str) -> Markup:
    """Dots with intervals about a line at zero."""
    ends = [end for row in rows for end in (row.mean, *(row.wide or ()), *(row.narrow or ()))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = 0.06 * (high - low) or 1.0
    low, high = low - room, high + room
    foot = _ROW * len(rows) + 6

    def place(value: float) -> str:
        return percent((value - low) / (high - low))

    parts = []
    for value in _ticks(low, high):
        kind = "zero" if value == 0 else "grid"
        parts += [
            element("line", x1=place(value), x2=place(value), y1=0, y2=foot, class_=kind),
            element("text", f"{value:g}", x=place(value), y=foot + 15, class_="soft", text_anchor="middle"),
        ]
    for number, row in enumerate(rows):
        middle = _ROW * number + 32
        parts += [
            element("text", row.label, x="0", y=middle - 14),
            element("text", row.told, x="100%", y=middle - 14, text_anchor="end", class_="strong"),
        ]
        for interval, thickness in ((row.wide, 1.5), (row.narrow, 6)):
            if interval is not None:
                start, stop = (place(end) for end in interval)
                parts.append(
                    element(
                        "line", x1=start, x2=stop, y1=middle, y2=middle, class_=f"l{row.tone}", stroke_width=thickness
                    )
                )
        parts.append(element("circle", element("title", row.told), cx=place(row.mean), cy=middle, r=4, class_="dot"))
    parts.append(element("text", unit, x="0", y=foot + 31, class_="soft"))
    return framed(title, foot + 36, parts)


def lines(curves: Sequence[Line], title: str, *, logarithmic: bool = False) -> Markup:
    """Curves over training steps.

    Args:
        curves: drawn in this order.
        title: read out in place of the plot.
        logarithmic: the height, where all of it is above zero.
    """
    points = [point for curve in curves for point in curve.points]
    logarithmic = logarithmic and all(y > 0 for _, y in points)

    def height(y: float) -> float:
        return math.log10(y) if logarithmic else y

    last = max(x for x, _ in points) or 1
    low, high = min(height(y) for _, y in points), max(height(y) for _, y in points)
    room = 0.04 * (high - low) or 0.5
    low, high = low - room, high + room
    foot = _ABOVE + _HEIGHT
    parts = []
    for value in _decades(low, high) if logarithmic else _ticks(low, high):
        y = round(foot - _HEIGHT * (height(value) - low) / (high - low), 1)
        parts += [
            element("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"),
            element("text", f"{value:g}", x="0", y=y - 3, class_="soft"),
        ]
    drawn = [
        element(
            "polyline",
            element("title", curve.name),
            points=" ".join(
                f"{100 * x / last:.2f},{_HEIGHT * (high - height(y)) / (high - low):.2f}" for x, y in curve.points
            ),
            class_=f"line l{curve.tone}{' thick' if curve.thick else ''}",
        )
        for curve in curves
    ]
    box = {"viewBox": f"0 0 100 {_HEIGHT}", "preserveAspectRatio": "none"}
    parts += [
        element("line", x1="0", x2="100%", y1=foot, y2=foot, class_="axis"),
        element("svg", *drawn, y=_ABOVE, width="100%", height=_HEIGHT, **box),
        element("text", "step 0", x="0", y=foot + 14, class_="soft"),
        element("text", f"{last:g}", x="100%", y=foot + 14, class_="soft", text_anchor="end"),
    ]
    return joined(framed(title, foot + 18, parts))


def _ticks(low: float, high: float) -> list[float]:
    """Some round values from low to high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where these are many, from 10^low to 10^high."""
    factors = (1, 2, 5) if high - low < 2 else (1,)
    found = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [float(f"{value:g}") for value in found if low <= math.log10(value) <= high]
