"""The rows of a latency report as text."""

from __future__ import annotations

from collections.abc import Sequence

from export.latency.row import Row, Subject

__all__ = ["number", "table"]

_HEAD = "format | precision | status | MB | PSNR | change vs PyTorch | load ms | first ms | p50 | p90 | p99 | fps"
_HEAD += " | peak MB | units"
_WORK = "format | precision | units | GMAC | GFLOP/s | of limit | x 24 fps | x 30 fps | x 60 fps"


def table(rows: Sequence[Row]) -> str:
    """Lines for people: what each row took, then how that compares with the machine's limit and with video.

    Times in ms, sizes in MB (1e6 bytes), PSNR in dB; "-" where a row has no figure. One table for each size, with the
    names of the entries where their formats alone do not tell them apart.
    """
    named = len({(row.subject.form, row.subject.entry) for row in rows}) > len({row.subject.form for row in rows})
    parts = []
    for task in dict.fromkeys(_task(row) for row in rows):
        here = [row for row in rows if _task(row) == task]
        parts += ["", _caption(here[0].subject), *_aligned(_HEAD, [_cost(row) for row in here], here, named=named)]
        if timed := [row for row in here if row.absence is None]:
            parts += ["", *_aligned(_WORK, [_work(row) for row in timed], timed, named=named)]
    absences = [(row.subject.entry, row.absence) for row in rows if row.absence is not None]
    reasons = dict.fromkeys(f"{entry}: {absence.status}. {absence.reason}" for entry, absence in absences)
    scores = [f"{row.subject.entry}: MAI-2025 score {row.mai_2025_score:.3g}" for row in rows if row.mai_2025_score]
    conventions = dict.fromkeys(f"PSNR: {row.fidelity.convention}" for row in rows if row.fidelity)
    return "\n".join([*parts, "", *reasons, *scores, *conventions, ""])


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """With so many decimals, or "-"."""
    if value is None:
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"  # + 0.0, so that none is "-0.000"


def _task(row: Row) -> tuple[object, ...]:
    """What rows of one table share."""
    return row.subject.size, row.subject.scale, row.subject.time_scale


def _caption(subject: Subject) -> str:
    if subject.size is None:
        return "Size unknown"
    height, width = subject.size
    larger = f" -> {width * subject.scale}x{height * subject.scale}" if subject.scale else ""
    doubled = "two restored frames a run, one of them half-way between two given ones; fps counts runs"
    return f"{width}x{height}{larger}, {doubled if subject.time_scale == 2 else 'one restored frame a run'}"


def _first(row: Row) -> list[str]:
    subject = row.subject
    form = f"{subject.format} streaming" if subject.mode == "streaming" else subject.format
    return [form, subject.precision or "-"]


def _cost(row: Row) -> list[str]:
    file, quality, cold, latency = row.file, row.fidelity, row.cold_start, row.latency
    cells = [row.status, number(file.file_mb if file else None, 2), number(quality.psnr_db if quality else None, 2)]
    cells.append(number(quality.change_db if quality else None, 3, sign=True))
    times = [cold.load_ms, cold.first_ms] if cold else [None, None]
    times += [latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.fps] if latency else [None] * 4
    peak = number(cold.peak_mb if cold else None, 0)
    return [*_first(row), *cells, *(number(each, 1) for each in times), peak, row.units]


def _work(row: Row) -> list[str]:
    share = "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}"
    macs = None if row.work is None else row.work.macs / 1e9
    factors = [number(factor, 2) for factor in row.real_time.values()]
    return [*_first(row), row.units, number(macs, 2), number(row.gflops, 1), share, *factors]


def _aligned(head: str, lines: list[list[str]], rows: Sequence[Row], *, named: bool) -> list[str]:
    cells = [head.split(" | "), *lines]
    if named:
        cells = [
            [name, *line] for name, line in zip(["entry", *(row.subject.entry for row in rows)], cells, strict=True)
        ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [" | ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
