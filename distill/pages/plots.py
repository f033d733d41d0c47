"""Plots as inline SVG: as wide as the page, in its colours, with text that keeps its size on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["COLOURS", "Bar", "Difference", "Line"]
__all__ += ["curve", "differences", "lines", "share_bars", "stacked", "time_bars"]

COLOURS = 7
"""Colours c0 to c6 of the style sheet; the last is a grey."""

# pixels
_BAR_ROW, _BAR = 44, 14
_HEAD, _FOOT = 46, 36
_DIFFERENCE_ROW = 46
_ABOVE = 16  # room for the highest level's number
_PHONE, _LETTER = 350, 6.8  # the width of a phone's page, and of a letter as it comes


@dataclass(frozen=True)
class Bar:
    """One row of a bar plot.

    Attributes:
        label: on its left.
        value: its length; ms, or a share.
        figure: on its right.
        tone: class of its colour: "own", "other" or "phone".
        valid: False draws it pale.
        p90: where its whisker has a tick, ms.
        p99: where its whisker ends, ms.
    """

    label: str
    value: float
    figure: str
    tone: str
    valid: bool = True
    p90: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Difference:
    """One row of a plot of differences.

    Attributes:
        label: on its left.
        figure: on its right.
        mean: where its dot is.
        wide: ends of the thin line, where there is one.
        narrow: ends of the thick line, where there is one.
        tone: number of its colour.
    """

    label: str
    figure: str
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
        name: shown where the pointer rests.
    """

    points: tuple[tuple[float, float], ...]
    tone: int
    thick: bool
    name: str


def time_bars(bars: Sequence[Bar], deadlines: Mapping[str, float], title: str) -> Markup:
    """Medians with whiskers to p90 and p99; an arrow ends what leaves the plot.

    Args:
        bars: top to bottom.
        deadlines: ms that a video leaves for a frame, by name; drawn where the axis reaches them.
        title: read out in place of the plot.
    """
    # neither a few slow runs nor rows that do not count may flatten all the others
    counting = [bar for bar in bars if bar.valid] or bars
    longest = min(1.5 * max(bar.value for bar in counting), max(bar.p90 or bar.value for bar in counting))
    shortest = min(deadlines.values())
    end = 1.08 * (max(longest, shortest) if longest > shortest / 4 else longest)
    foot = _HEAD + _BAR_ROW * len(bars)
    parts = _across(0.0, end, _HEAD, foot, "ms of one run")
    for level, (name, ms) in enumerate(sorted(deadlines.items(), key=lambda each: each[1])):
        if ms < end:
            parts += _deadline(name, ms / end, 12 + 13 * level, foot)
    parts += [_bar(bar, end, _HEAD + _BAR_ROW * place) for place, bar in enumerate(bars)]
    return _framed(title, foot + _FOOT, parts)


def share_bars(bars: Sequence[Bar], title: str) -> Markup:
    """Shares, each in a track that stands for the whole."""
    parts = []
    for place, bar in enumerate(bars):
        top = _BAR_ROW * place
        parts.append(_element("rect", x="0", y=top + 19, width="100%", height=_BAR, class_="track", rx=2))
        parts.append(_bar(bar, 1.0, top))
    return _framed(title, _BAR_ROW * len(bars), parts)


def stacked(shares: Sequence[tuple[str, float]], title: str) -> Markup:
    """Parts of a whole side by side, in the colours c0, c1 and so on; each is named where its name fits on a phone.

    Args:
        shares: (name, share), at most `COLOURS`.
        title: read out in place of the plot.
    """
    parts, left = [], 0.0
    for place, (name, share) in enumerate(shares):
        text, width = _element("title", f"{name}: {share:.1%}"), _percent(share)
        parts.append(_element("rect", text, x=_percent(left), y=0, width=width, height=22, class_=f"c{place}"))
        if share * _PHONE > _LETTER * (len(name) + 1):
            middle = _percent(left + share / 2)
            parts.append(_element("text", name, x=middle, y=15, text_anchor="middle", class_="inside"))
        left += share
    return _framed(title, 22, parts)


def curve(values: Sequence[float], seconds: float, title: str) -> Markup:
    """Values of equal slices of time, from zero up."""
    top, height, width = 1.1 * max(values), 90, 100 / len(values)
    points = [(width * (place + 0.5), height * (1 - value / top)) for place, value in enumerate(values)]
    levels = [(value, height * (1 - value / top)) for value in _ticks(0.0, top)[1:]]
    return _graph([_polyline(points, "curve")], levels, height, ("0 s", f"{seconds:g} s"), title)


def differences(rows: Sequence[Difference], unit: str, title: str) -> Markup:
    """Dots with intervals about a line at zero."""
    ends = [end for row in rows for end in (row.mean, *(row.wide or ()), *(row.narrow or ()))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = 0.06 * (high - low) or 1.0
    low, high = low - room, high + room
    foot = _DIFFERENCE_ROW * len(rows) + 6
    parts = _across(low, high, 0, foot, unit)
    for number, row in enumerate(rows):
        parts += _difference(row, _DIFFERENCE_ROW * number + 32, lambda value: (value - low) / (high - low))
    return _framed(title, foot + _FOOT, parts)


def lines(curves: Sequence[Line], title: str, *, logarithmic: bool = False) -> Markup:
    """Curves over training steps.

    Args:
        curves: drawn in this order.
        title: read out in place of the plot.
        logarithmic: the height, where all of it is above zero.
    """
    points = [point for each in curves for point in each.points]
    logarithmic = logarithmic and all(y > 0 for _, y in points)
    scale: Callable[[float], float] = math.log10 if logarithmic else float
    last, height = max(x for x, _ in points) or 1, 170
    low, high = min(scale(y) for _, y in points), max(scale(y) for _, y in points)
    room = 0.04 * (high - low) or 0.5
    low, high = low - room, high + room

    def down(y: float) -> float:
        return height * (high - scale(y)) / (high - low)

    drawn = [
        _polyline(
            [(100 * x / last, down(y)) for x, y in each.points],
            f"line l{each.tone}{' thick' if each.thick else ''}",
            each.name,
        )
        for each in curves
    ]
    levels = [(value, down(value)) for value in (_decades if logarithmic else _ticks)(low, high)]
    return _graph(drawn, levels, height, ("step 0", f"{last:g}"), title)


def _element(tag: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """One element; text in it is escaped.

    A final underscore of an attribute's name is dropped, others become hyphens; attributes of None are left out.
    """
    named = (
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(tag, Markup().join(named), Markup().join(children))


def _framed(title: str, height: float, parts: Sequence[str]) -> Markup:
    """A plot as wide as the page and `height` pixels high; the title is read out in its place."""
    return _element("svg", _element("title", title), *parts, width="100%", height=height, role="img", aria_label=title)


def _across(low: float, high: float, top: float, foot: float, unit: str) -> list[Markup]:
    """Lines down at round values, with their numbers and the unit below."""
    parts = []
    for value in _ticks(low, high):
        place = (value - low) / (high - low)
        anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
        parts += [
            _straight(place, place, top, foot, "zero" if value == 0 and low < 0 else "grid"),
            _element("text", _round(value), x=_percent(place), y=foot + 15, class_="soft", text_anchor=anchor),
        ]
    return [*parts, _element("text", unit, x="0", y=foot + 31, class_="soft")]


def _graph(
    drawn: Sequence[Markup], levels: Sequence[tuple[float, float]], height: float, ends: tuple[str, str], title: str
) -> Markup:
    """Curves over lines at round values.

    Args:
        drawn: the curves; x from 0 to 100, y from 0 (top) to `height`.
        levels: the round values and their y.
        height: of the plot, pixels.
        ends: what stands below, on the left and on the right.
        title: read out in place of the plot.
    """
    foot = _ABOVE + height
    at = [(_round(value), round(_ABOVE + y, 1)) for value, y in levels]
    box = {"viewBox": f"0 0 100 {height:g}", "preserveAspectRatio": "none"}
    parts = [
        *(_straight(0, 1, y, y, "grid") for _, y in at),
        _straight(0, 1, foot, foot, "axis"),
        _element("svg", *drawn, y=_ABOVE, width="100%", height=height, **box),
        *(_element("text", text, x="0", y=round(y - 3, 1), class_="soft") for text, y in at),
        _element("text", ends[0], x="0", y=foot + 14, class_="soft"),
        _element("text", ends[1], x="100%", y=foot + 14, class_="soft", text_anchor="end"),
    ]
    return _framed(title, foot + 18, parts)


def _polyline(points: Sequence[tuple[float, float]], kind: str, name: str | None = None) -> Markup:
    title = [] if name is None else [_element("title", name)]
    return _element("polyline", *title, points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points), class_=kind)


def _bar(bar: Bar, end: float, top: float) -> Markup:
    middle = top + 19 + _BAR / 2
    text = (
        bar.label if bar.p90 is None else f"{bar.label}: p50 {bar.value:.4g}, p90 {bar.p90:.4g}, p99 {bar.p99:.4g} ms"
    )
    tone = bar.tone if bar.valid else f"{bar.tone} invalid"
    width = _percent(min(1.0, bar.value / end))
    parts = [
        *_texts(bar.label, bar.figure, top + 14),
        _element("rect", _element("title", text), x="0", y=top + 19, width=width, height=_BAR, class_=tone, rx=2),
    ]
    if bar.p90 is not None and bar.p99 is not None:
        reach = min(1.0, bar.p99 / end)
        if bar.value < end:
            parts.append(_straight(bar.value / end, reach, middle, middle, "whisker"))
        if bar.p90 <= end:
            parts.append(_straight(bar.p90 / end, bar.p90 / end, middle - 5, middle + 5, "whisker"))
        if bar.p99 <= end:
            parts.append(_straight(reach, reach, middle - 3, middle + 3, "whisker"))
        else:
            parts.append(_element("text", "›", x="100%", y=middle + 4, class_="strong"))
    return _element("g", *parts)


def _difference(row: Difference, middle: float, place: Callable[[float], float]) -> list[Markup]:
    parts = _texts(row.label, row.figure, middle - 14)
    for interval, thickness in ((row.wide, 1.5), (row.narrow, 6.0)):
        if interval is not None:
            start, stop = map(place, interval)
            parts.append(_straight(start, stop, middle, middle, f"l{row.tone}", thickness))
    dot = _element("title", row.figure)
    return [*parts, _element("circle", dot, cx=_percent(place(row.mean)), cy=middle, r=4, class_="dot")]


def _texts(label: str, figure: str, y: float) -> list[Markup]:
    """What stands over a row: its name on the left, its figure on the right; a name too long for a phone is cut."""
    room = int(_PHONE / _LETTER) - len(figure)
    short = label if len(label) <= room else f"{label[: room // 2 - 1]}…{label[-(room - room // 2) :]}"
    return [
        _element("text", short, x="0", y=y),
        _element("text", figure, x="100%", y=y, text_anchor="end", class_="strong"),
    ]


def _straight(
    left: float, right: float, top: float, bottom: float, kind: str, thickness: float | None = None
) -> Markup:
    x1, x2 = _percent(left), _percent(right)
    return _element("line", x1=x1, x2=x2, y1=top, y2=bottom, class_=kind, stroke_width=thickness)


def _deadline(name: str, place: float, y: float, foot: float) -> list[Markup]:
    dx, anchor = (-4, "end") if place > 0.5 else (4, "start")
    return [
        _straight(place, place, y - 9, foot, "deadline"),
        _element("text", name, x=_percent(place), y=y, dx=dx, class_="soft", text_anchor=anchor),
    ]


def _percent(share: float) -> str:
    """A place along the width, 0 to 1, as SVG has it."""
    return f"{100 * share:.3f}%"


def _round(value: float) -> str:
    return f"{value:g}".replace("-", "\u2212")


def _ticks(low: float, high: float) -> list[float]:
    """About five round values from low to high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where these are many, from 10^low to 10^high."""
    factors = (1, 2, 5) if high - low < 2 else (1,)
    found = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [float(f"{value:g}") for value in found if low <= math.log10(value) <= high]
