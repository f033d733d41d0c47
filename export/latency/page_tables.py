"""Tables of a latency report as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distill.pages.markup import Markup, element, joined
from distill.pages.plots import KINDS
from export.interfaces import Operators
from export.latency.measuring import Profile
from export.latency.row import VIDEO_RATES, Row
from export.latency.table import number

__all__ = ["evidence_table", "operator_tables", "row_table", "size_name"]


@dataclass(frozen=True)
class _Column:
    group: str
    head: str
    cell: Callable[[Row], str]
    mark: Callable[[Row], str | None] = lambda row: None  # a class


def _rate_column(rate: int) -> _Column:
    def under(row: Row) -> str | None:
        factor = row.real_time[rate]
        return "under" if factor is not None and factor < 1 else None

    return _Column("times real time, fps", f"{rate}", lambda row: number(row.real_time[rate], 2), under)


def _thousandth(value: float | None, unit: float, digits: int) -> str:
    return number(None if value is None else value / unit, digits)


_STATUS = {"ok": "ok", "too short": "doubt", "failed": "bad"}

_FILE = [
    _Column("file", "status", lambda row: row.status, lambda row: _STATUS.get(row.status)),
    _Column("file", "MB", lambda row: number(row.file_mb, 2)),
]
_QUALITY = [
    _Column("quality, dB", "PSNR", lambda row: number(row.fidelity.psnr_db if row.fidelity else None, 2)),
    _Column(
        "quality, dB",
        "change",
        lambda row: number(row.fidelity.change_db if row.fidelity else None, 3, sign=True),
        lambda row: "bad" if row.fidelity and row.fidelity.lossy else None,
    ),
]
_TIMES = [
    _Column("cold start, ms", "load", lambda row: number(row.load_ms, 1)),
    _Column("cold start, ms", "first", lambda row: number(row.first_ms, 1)),
    _Column("one frame, ms", "p50", lambda row: number(row.p50_ms, 1)),
    _Column("one frame, ms", "p90", lambda row: number(row.p90_ms, 1)),
    _Column("one frame, ms", "p99", lambda row: number(row.p99_ms, 1)),
    _Column("rate", "fps", lambda row: number(row.fps, 1)),
    *(_rate_column(rate) for rate in VIDEO_RATES),
    _Column("MB", "peak", lambda row: number(row.peak_mb, 0)),
    _Column("work", "k params", lambda row: _thousandth(row.parameters, 1e3, 0)),
    _Column("work", "GMAC", lambda row: _thousandth(row.macs, 1e9, 2)),
    _Column("work", "GFLOP/s", lambda row: number(row.gflops, 1)),
    _Column("work", "of limit", lambda row: "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}"),
]
_SCORE = _Column("score", "MAI 2025", lambda row: "-" if row.mai_2025_score is None else f"{row.mai_2025_score:.3g}")


def size_name(row: Row) -> str:
    """Such as "180x120 → 720x480", and what a run restores where that is not one frame."""
    if row.size is None:
        return "size unknown"
    height, width = row.size
    larger = f" → {width * row.scale}x{height * row.scale}" if row.scale else ""
    return f"{width}x{height}{larger}" + (", two restored frames a run" if row.time_scale == 2 else "")


def row_table(profile: Profile) -> Markup:
    """Every row, by size, and that phones were not run where none was; the fastest valid median of a size is bold."""
    rows = profile.rows
    columns = _FILE + (_QUALITY if any(row.fidelity for row in rows) else []) + _TIMES
    columns += [_SCORE] if any(row.mai_2025_score for row in rows) else []
    body = []
    for size in dict.fromkeys(size_name(row) for row in rows):
        body.append(element("tr", element("th", size, colspan=len(columns) + 1, scope="rowgroup"), class_="size"))
        here = [row for row in rows if size_name(row) == size]
        best = min((row.p50_ms for row in here if row.valid and row.p50_ms is not None), default=None)
        body += [_line(row, columns, best=row.valid and row.p50_ms == best) for row in here]
    if not any(row.where == "phone" for row in rows):
        body.append(_absent("phones", "", "not run", "No figure here is a phone's.", len(columns)))
    head = joined(_group_heads(columns), _heads(columns))
    return _scrolling(element("thead", head), element("tbody", *body))


def _group_heads(columns: Sequence[_Column]) -> Markup:
    groups = dict.fromkeys(column.group for column in columns)
    widths = {group: sum(column.group == group for column in columns) for group in groups}
    cells = [element("th", group, colspan=width, class_="group") for group, width in widths.items()]
    return element("tr", element("th", class_="what"), *cells)


def _heads(columns: Sequence[_Column]) -> Markup:
    first = element("th", "what ran", class_="what")
    return element("tr", first, *(element("th", each.head, class_=_edge(columns, each)) for each in columns))


def _line(row: Row, columns: Sequence[_Column], *, best: bool) -> Markup:
    if row.absent is not None:
        return _absent(row.form, row.entry, row.absent, row.reason or "", len(columns))
    cells = []
    for column in columns:
        classes = [_edge(columns, column), column.mark(row), "best" if best and column.head == "p50" else None]
        cells.append(element("td", column.cell(row), class_=" ".join(filter(None, classes)) or None))
    device = f", {row.device}" if row.where == "phone" else ""
    return element("tr", _what(row.form, f"{row.units} · {row.entry}{device}"), *cells)


def _absent(name: str, detail: str, status: str, reason: str, width: int) -> Markup:
    kind = "bad" if status == "failed" else "doubt"
    told = element("span", element("b", status, class_=kind), f": {reason}" if reason else "")
    return element("tr", _what(name, detail), element("td", told, colspan=width, class_="long"))


def _what(name: str, detail: str) -> Markup:
    return element("th", element("b", name), element("span", detail), class_="what", scope="row")


def _edge(columns: Sequence[_Column], column: _Column) -> str | None:
    """A line before the first column of a group."""
    first = next(each for each in columns if each.group == column.group)
    return "begin" if first is column else None


def operator_tables(found: Operators) -> Markup:
    """Types of operators, and the most expensive nodes."""
    keys = [element("span", class_=f"key c{min(place, KINDS - 1)}") for place in range(len(found.types))]
    types = [
        (joined(key, each.type), str(each.count), f"{each.ms:.2f}", f"{each.share:.1%}")
        for key, each in zip(keys, found.types, strict=True)
    ]
    nodes = [(each.name, each.type, f"{each.ms:.2f}", f"{each.share:.1%}") for each in found.nodes]
    return element(
        "div",
        _plain(("operator", "nodes", "ms", "share"), types, texts=1),
        _plain(("most expensive nodes", "operator", "ms", "share"), nodes, texts=2),
        class_="panels wide",
    )


def evidence_table(rows: Iterable[Row]) -> Markup:
    """What each row rests on: unit and runtime, runs and flags."""
    head = (
        "what ran",
        "unit asked > got",
        "runtime",
        "warm-up",
        "runs",
        "seconds",
        "long enough",
        "enough runs",
        "valid",
    )
    lines = []
    for row in rows:
        flags = [row.duration_met, row.query_met, row.valid]
        asked = f"{row.unit_asked} > {row.unit_got}" if row.unit_asked else "-"
        lines.append(
            (
                f"{size_name(row)}, {row.form}, {row.units}",
                asked,
                f"{row.runtime or '-'} {row.runtime_version or ''}",
                str(row.warmup_runs),
                str(row.runs),
                f"{row.duration_seconds:.1f}",
                *("yes" if flag else "no" for flag in flags),
            )
        )
    return _plain(head, lines, texts=3)


def _plain(head: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> Markup:
    """A table whose first `texts` columns are text and the others numbers."""

    def cells(tag: str, values: Sequence[str]) -> list[Markup]:
        return [element(tag, each, class_="text" if place < texts else None) for place, each in enumerate(values)]

    body = [element("tr", *cells("td", line)) for line in lines]
    return _scrolling(element("thead", element("tr", *cells("th", head))), element("tbody", *body))


def _scrolling(*parts: Markup) -> Markup:
    return element("div", element("table", *parts), class_="scroll")
