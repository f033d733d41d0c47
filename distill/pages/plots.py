"""Plots of a latency report as inline SVG: as wide as the page, with text that keeps its size on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distill.pages.markup import Markup, element, joined

__all__ = ["KINDS", "Bar", "curve", "framed", "percent", "share_bars", "stacked", "time_bars"]

KINDS = 7
"""Colours of `stacked`; the last is for the rest."""

_ROW, _BAR = 44, 14  # pixels
_HEAD, _FOOT = 46, 34


@dataclass(frozen=True)
class Bar:
    """One row of a bar plot.

    Attributes:
        label: on its left.
        value: its length; ms, or a share.
        told: on its right.
        tone: class of its colour: "own", "other" or "phone".
        valid: False draws it pale.
        p90: where its whisker has a tick, ms.
        p99: where its whisker ends, ms.
    """

    label: str
    value: float
    told: str
    tone: str
    valid: bool = True
    p90: float | None = None
    p99: float | None = None


def time_bars(bars: Sequence[Bar], deadlines: dict[str, float], title: str) -> Markup:
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
    foot = _HEAD + _ROW * len(bars)
    parts = [_tick(value, end, foot) for value in _ticks(end)]
    for level, (name, ms) in enumerate(sorted(deadlines.items(), key=lambda each: each[1])):
        if ms < end:
            parts.append(_deadline(name, ms / end, 12 + 13 * level, foot))
    parts += [_bar(bar, end, _HEAD + _ROW * place) for place, bar in enumerate(bars)]
    parts.append(element("text", "ms of one run", x="0", y=foot + 31, class_="soft"))
    return framed(title, foot + _FOOT, parts)


def share_bars(bars: Sequence[Bar], title: str) -> Markup:
    """Shares, each in a track that stands for the whole."""
    parts = []
    for place, bar in enumerate(bars):
        top = _ROW * place
        parts.append(element("rect", x="0", y=top + 19, width="100%", height=_BAR, class_="track", rx=2))
        parts.append(_bar(bar, 1.0, top))
    return framed(title, _ROW * len(bars), parts)


def stacked(shares: Sequence[tuple[str, float]], title: str) -> Markup:
    """Parts of a whole side by side, in the colours c0, c1 and so on.

    Args:
        shares: (name, share), at most `KINDS`.
        title: read out in place of the plot.
    """
    parts, left = [], 0.0
    for place, (name, share) in enumerate(shares):
        told = element("title", f"{name}: {share:.1%}")
        parts.append(element("rect", told, x=percent(left), y=0, width=percent(share), height=22, class_=f"c{place}"))
        if share > 0.12:
            middle = percent(left + share / 2)
            parts.append(element("text", name, x=middle, y=15, text_anchor="middle", class_="inside"))
        left += share
    return framed(title, 22, parts)


def curve(values: Sequence[float], seconds: float, title: str) -> Markup:
    """Values of equal slices of time, from zero up."""
    top, height, above = 1.1 * max(values), 90, 16
    width = 100 / len(values)
    points = [f"{width * (place + 0.5):.2f},{height * (1 - value / top):.2f}" for place, value in enumerate(values)]
    line = element("polyline", points=" ".join(points), class_="curve")
    box = f"0 0 100 {height}"
    foot = above + height
    parts = [_level(value, foot - height * value / top) for value in _ticks(top)[1:]]
    parts += [
        element("line", x1="0", x2="100%", y1=foot, y2=foot, class_="axis"),
        element("svg", line, viewBox=box, preserveAspectRatio="none", y=above, width="100%", height=height),
        element("text", "0 s", x="0", y=foot + 14, class_="soft"),
        element("text", f"{seconds:g} s", x="100%", y=foot + 14, class_="soft", text_anchor="end"),
    ]
    return framed(title, foot + 18, parts)


def _level(value: float, y: float) -> Markup:
    line = element("line", x1="0", x2="100%", y1=round(y, 1), y2=round(y, 1), class_="grid")
    return joined(line, element("text", f"{value:g}", x="0", y=round(y - 3, 1), class_="soft"))


def framed(title: str, height: float, parts: Sequence[str]) -> Markup:
    """A plot as wide as the page and `height` pixels high; the title is read out in its place."""
    return element("svg", element("title", title), *parts, width="100%", height=height, role="img", aria_label=title)


def _bar(bar: Bar, end: float, top: float) -> Markup:
    middle = top + 19 + _BAR / 2
    told = (
        bar.label if bar.p90 is None else f"{bar.label}: p50 {bar.value:.4g}, p90 {bar.p90:.4g}, p99 {bar.p99:.4g} ms"
    )
    tone = bar.tone if bar.valid else f"{bar.tone} invalid"
    width = percent(min(1.0, bar.value / end))
    parts = [
        element("text", bar.label, x="0", y=top + 14),
        element("text", bar.told, x="100%", y=top + 14, text_anchor="end", class_="strong"),
        element("rect", element("title", told), x="0", y=top + 19, width=width, height=_BAR, class_=tone, rx=2),
    ]
    if bar.p90 is not None and bar.p99 is not None:
        reach = min(1.0, bar.p99 / end)
        if bar.value < end:
            parts.append(_line(bar.value / end, reach, middle, middle, "whisker"))
        if bar.p90 <= end:
            parts.append(_line(bar.p90 / end, bar.p90 / end, middle - 5, middle + 5, "whisker"))
        if bar.p99 <= end:
            parts.append(_line(reach, reach, middle - 3, middle + 3, "whisker"))
        else:
            parts.append(element("text", "›", x="100%", y=middle + 4, class_="strong"))
    return element("g", *parts)


def _line(left: float, right: float, top: float, bottom: float, kind: str) -> Markup:
    return element("line", x1=percent(left), x2=percent(right), y1=top, y2=bottom, class_=kind)


def _tick(value: float, end: float, foot: float) -> Markup:
    place = value / end
    return joined(
        _line(place, place, _HEAD, foot, "grid"),
        element("text", f"{value:g}", x=percent(place), y=foot + 15, class_="soft", text_anchor=_anchor(place)),
    )


def _deadline(name: str, place: float, y: float, foot: float) -> Markup:
    return joined(
        _line(place, place, y - 9, foot, "deadline"),
        element("text", name, x=percent(place), y=y, dx=-4, class_="soft", text_anchor="end")
        if place > 0.5
        else element("text", name, x=percent(place), y=y, dx=4, class_="soft"),
    )


def _anchor(place: float) -> str:
    return "start" if place < 0.02 else "end" if place > 0.98 else "middle"


def percent(share: float) -> str:
    """A place along the width, 0 to 1, as SVG has it."""
    return f"{100 * share:.3f}%"


def _ticks(end: float) -> list[float]:
    """About five round values from zero up to `end`."""
    rough = end / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(place * step, 10) for place in range(int(end / step) + 1)]
