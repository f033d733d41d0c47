"""The rows of a latency report as text."""

from __future__ import annotations

from collections.abc import Sequence

from export.latency.row import Row

__all__ = ["number", "table"]

_HEAD = "format | precision | status | MB | PSNR | change vs PyTorch | load ms | first ms | p50 | p90 | p99 | fps"
_HEAD += " | peak MB | units"
_WORK = "format | precision | units | GMAC | GFLOP/s | of limit | x 24 fps | x 30 fps | x 60 fps"


def table(rows: Sequence[Row]) -> str:
    """Lines for people: what each row took, then how that compares with the machine's limit and with video.

    Times in ms, sizes in MB (1e6 bytes), PSNR in dB; "-" where a row has no figure. One table for each size, with the
    names of the entries where their formats alone do not tell them apart.
    """
    named = len({(row.form, row.entry) for row in rows}) > len({row.form for row in rows})
    parts = []
    for size in dict.fromkeys((row.size, row.scale, row.time_scale) for row in rows):
        here = [row for row in rows if (row.size, row.scale, row.time_scale) == size]
        parts += ["", _caption(here[0]), *_aligned(_HEAD, [_cost(row) for row in here], here, named=named)]
        if timed := [row for row in here if row.absent is None]:
            parts += ["", *_aligned(_WORK, [_work(row) for row in timed], timed, named=named)]
    reasons = dict.fromkeys(f"{row.entry}: {row.absent}. {row.reason}" for row in rows if row.absent)
    scores = [f"{row.entry}: MAI-2025 score {row.mai_2025_score:.3g}" for row in rows if row.mai_2025_score]
    conventions = dict.fromkeys(f"PSNR: {row.fidelity.convention}" for row in rows if row.fidelity)
    return "\n".join([*parts, "", *reasons, *scores, *conventions, ""])


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """With so many decimals, or "-"."""
    if value is None:
        return "-"
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"  # + 0.0, so that none is "-0.000"


def _caption(row: Row) -> str:
    if row.size is None:
        return "Size unknown"
    height, width = row.size
    larger = f" -> {width * row.scale}x{height * row.scale}" if row.scale else ""
    doubled = "two restored frames a run, one of them half-way between two given ones; fps counts runs"
    return f"{width}x{height}{larger}, {doubled if row.time_scale == 2 else 'one restored frame a run'}"


def _first(row: Row) -> list[str]:
    form = f"{row.format} streaming" if row.mode == "streaming" else row.format
    return [form, row.precision or "-"]


def _cost(row: Row) -> list[str]:
    quality = row.fidelity
    cells = [row.status, number(row.file_mb, 2), number(quality.psnr_db if quality else None, 2)]
    cells.append(number(quality.change_db if quality else None, 3, sign=True))
    times = (row.load_ms, row.first_ms, row.p50_ms, row.p90_ms, row.p99_ms, row.fps)
    return [*_first(row), *cells, *(number(each, 1) for each in times), number(row.peak_mb, 0), row.units]


def _work(row: Row) -> list[str]:
    share = "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}"
    macs = None if row.macs is None else row.macs / 1e9
    factors = [number(factor, 2) for factor in row.real_time.values()]
    return [*_first(row), row.units, number(macs, 2), number(row.gflops, 1), share, *factors]


def _aligned(head: str, lines: list[list[str]], rows: Sequence[Row], *, named: bool) -> list[str]:
    cells = [head.split(" | "), *lines]
    if named:
        cells = [[name, *line] for name, line in zip(["entry", *(row.entry for row in rows)], cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [" | ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
