"""What the tables of a latency report show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from distill.pages.plots import COLOURS, stacked
from distill.pages.tables import Cell, PlainTable, TableRow
from export.interfaces import Operators
from export.latency.row import FAILED, NOT_RUN, VIDEO_RATES, Row, counted_threads
from export.latency.table import number

__all__ = ["OperatorTables", "RowLine", "RowTable", "evidence_table", "operator_tables", "row_table", "size_name"]


class RowLine(NamedTuple):
    """One row as it is shown.

    Attributes:
        name: what ran.
        detail: on what, and of which file.
        cells: one for each column; none where the row has no times.
        absent: why it has none, in a word or two; None where it has.
        reason: the same as a sentence, after a colon.
    """

    name: str
    detail: str
    cells: Sequence[Cell] = ()
    absent: Cell | None = None
    reason: str = ""


class RowTable(NamedTuple):
    """All rows.

    Attributes:
        groups: (name, number of columns), left to right.
        heads: of the columns.
        sizes: (size, rows of that size); "" is what belongs to none.
    """

    groups: Sequence[tuple[str, int]]
    heads: Sequence[Cell]
    sizes: Sequence[tuple[str, Sequence[RowLine]]]


class OperatorTables(NamedTuple):
    """Where one file's time goes: the shares, types of operators, and the most expensive nodes."""

    name: str
    plot: Markup
    types: PlainTable
    nodes: PlainTable


@dataclass(frozen=True)
class _Column:
    group: str
    head: str
    cell: Callable[[Row], str]
    mark: Callable[[Row], str] = lambda row: ""  # a class


def _rate_column(rate: int) -> _Column:
    def under(row: Row) -> str:
        factor = row.real_time[rate]
        return "under" if factor is not None and factor < 1 else ""

    return _Column("times real time, fps", f"{rate}", lambda row: number(row.real_time[rate], 2), under)


def _thousandth(value: float | None, unit: float, digits: int) -> str:
    return number(None if value is None else value / unit, digits)


_STATUS = {"ok": "ok", "too short": "doubt", "failed": "bad"}

_FILE = [
    _Column("file", "status", lambda row: row.status, lambda row: _STATUS.get(row.status, "")),
    _Column("file", "MB", lambda row: number(row.file.file_mb if row.file else None, 2)),
]
_QUALITY = [
    _Column("quality, dB", "PSNR", lambda row: number(row.fidelity.psnr_db if row.fidelity else None, 2)),
    _Column(
        "quality, dB",
        "change",
        lambda row: number(row.fidelity.change_db if row.fidelity else None, 3, sign=True),
        lambda row: "bad" if row.fidelity and row.fidelity.lossy else "",
    ),
]
_TIMES = [
    _Column("cold start, ms", "load", lambda row: number(row.cold_start.load_ms if row.cold_start else None, 1)),
    _Column("cold start, ms", "first", lambda row: number(row.cold_start.first_ms if row.cold_start else None, 1)),
    _Column("one frame, ms", "p50", lambda row: number(row.p50_ms, 1)),
    _Column("one frame, ms", "p90", lambda row: number(row.latency.p90_ms if row.latency else None, 1)),
    _Column("one frame, ms", "p99", lambda row: number(row.latency.p99_ms if row.latency else None, 1)),
    _Column("rate", "fps", lambda row: number(row.latency.fps if row.latency else None, 1)),
    *(_rate_column(rate) for rate in VIDEO_RATES),
    _Column("MB", "peak", lambda row: number(row.cold_start.peak_mb if row.cold_start else None, 0)),
    _Column("work", "k params", lambda row: _thousandth(row.work.parameters if row.work else None, 1e3, 0)),
    _Column("work", "GMAC", lambda row: _thousandth(row.work.macs if row.work else None, 1e9, 2)),
    _Column("work", "GFLOP/s", lambda row: number(row.gflops, 1)),
    _Column("work", "of limit", lambda row: "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}"),
]
_SCORE = _Column("score", "MAI 2025", lambda row: "-" if row.mai_2025_score is None else f"{row.mai_2025_score:.3g}")


def size_name(row: Row) -> str:
    """Such as "180x120 → 720x480", and what a run restores where that is not one frame."""
    subject = row.subject
    if subject.size is None:
        return "size unknown"
    height, width = subject.size
    larger = f" → {width * subject.scale}x{height * subject.scale}" if subject.scale else ""
    return f"{width}x{height}{larger}" + (", two restored frames a run" if subject.time_scale == 2 else "")


def row_table(rows: Sequence[Row]) -> RowTable:
    """Every row, by size, and that phones were not run where none was; the fastest valid median of a size is bold."""
    columns = _FILE + (_QUALITY if any(row.fidelity for row in rows) else []) + _TIMES
    columns += [_SCORE] if any(row.mai_2025_score for row in rows) else []
    groups = list(dict.fromkeys(column.group for column in columns))
    sizes = []
    for size in dict.fromkeys(size_name(row) for row in rows):
        here = [row for row in rows if size_name(row) == size]
        best = min((row.p50_ms for row in here if row.valid and row.p50_ms is not None), default=None)
        sizes.append((size, [_line(row, columns, best=row.valid and row.p50_ms == best) for row in here]))
    if not any(row.where == "phone" for row in rows):
        sizes.append(("", [_absent("phones", "", NOT_RUN, "No figure here is a phone's.")]))
    return RowTable(
        [(group, sum(column.group == group for column in columns)) for group in groups],
        [Cell(column.head, _edge(columns, column)) for column in columns],
        sizes,
    )


def _line(row: Row, columns: Sequence[_Column], *, best: bool) -> RowLine:
    if row.absence is not None:
        return _absent(row.subject.form, row.subject.entry, row.absence.status, row.absence.reason)
    cells = []
    for column in columns:
        kinds = [_edge(columns, column), column.mark(row), "best" if best and column.head == "p50" else ""]
        cells.append(Cell(column.cell(row), " ".join(filter(None, kinds))))
    device = f", {row.device}" if row.where == "phone" else ""
    return RowLine(row.subject.form, f"{row.units} · {row.subject.entry}{device}", cells)


def _absent(name: str, detail: str, status: str, reason: str) -> RowLine:
    kind = "bad" if status == FAILED else "doubt"
    return RowLine(name, detail, absent=Cell(status, kind), reason=f": {reason}" if reason else "")


def _edge(columns: Sequence[_Column], column: _Column) -> str:
    """A line before the first column of a group."""
    first = next(each for each in columns if each.group == column.group)
    return "begin" if first is column else ""


def operator_tables(found: Operators) -> OperatorTables:
    """Of one file on one number of threads."""
    height, width = found.size
    name = f"{found.entry}, {width}x{height}, {counted_threads(found.threads)}: {found.ms:.1f} ms"
    shares = [(kind.type, kind.share) for kind in found.types]
    if len(shares) > COLOURS:
        shares = [*shares[: COLOURS - 1], ("all else", sum(share for _, share in shares[COLOURS - 1 :]))]
    types = [
        TableRow(
            each.type,
            _cells(str(each.count), f"{each.ms:.2f}", f"{each.share:.1%}"),
            colour=f"c{min(place, COLOURS - 1)}",
        )
        for place, each in enumerate(found.types)
    ]
    nodes = [TableRow(each.name, _cells(each.type, f"{each.ms:.2f}", f"{each.share:.1%}")) for each in found.nodes]
    return OperatorTables(
        name,
        stacked(shares, name),
        PlainTable(("operator", "nodes", "ms", "share"), types),
        PlainTable(("most expensive nodes", "operator", "ms", "share"), nodes, texts=2),
    )


def evidence_table(rows: Iterable[Row]) -> PlainTable:
    """What each row rests on: unit and runtime, runs and flags."""
    heads = ("what ran", "unit asked > got", "runtime", "warm-up", "runs", "seconds")
    flags = ("long enough", "enough runs", "valid")
    lines = [TableRow(f"{size_name(row)}, {row.subject.form}, {row.units}", _cells(*_evidence(row))) for row in rows]
    return PlainTable((*heads, *flags), lines, texts=3)


def _evidence(row: Row) -> Iterator[str]:
    ran, latency = row.execution, row.latency
    yield f"{ran.unit_asked} > {ran.unit_got}" if ran else "-"
    yield f"{ran.runtime} {ran.runtime_version or ''}" if ran else "-"
    yield from (
        (str(latency.warmup_runs), str(latency.runs), f"{latency.duration_seconds:.1f}")
        if latency
        else ("0", "0", "0.0")
    )
    flags = (latency.duration_met, latency.query_met) if latency else (False, False)
    yield from ("yes" if flag else "no" for flag in (*flags, row.valid))


def _cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]
