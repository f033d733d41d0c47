"""A latency report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from distill import __version__
from distill.pages.plots import Bar, curve, share_bars, time_bars
from distill.pages.rendering import render
from distill.pages.tables import Figure
from export.exported import ALLOWED_LOSS_DB
from export.latency.measuring import Profile, Sustained
from export.latency.page_tables import evidence_table, operator_tables, row_table, size_name
from export.latency.row import VIDEO_RATES, Row, counted_threads
from export.latency.timing import STANDARD
from export.machine import Peak

__all__ = ["html"]

_BUSY = 0.85
"""If a round's peak falls under this share of the best round's, the machine had other work."""


def html(profile: Profile, command: str) -> str:
    """The page.

    Args:
        profile: what was measured.
        command: that made it, for whoever wants to repeat it.

    Returns:
        HTML in UTF-8 with its style and plots inside; it asks for nothing from a network.
    """
    rows = profile.rows
    date = profile.date.replace("T", " ").replace("+00:00", " UTC")
    return render(
        "export.latency",
        entries=list(dict.fromkeys(row.subject.entry for row in rows)),
        made=f"{profile.machine.name}. {date}, distill-vsr {__version__}.",
        phones=profile.phones,
        summary=_summary(profile),
        losses=list(_losses(rows)),
        row_table=row_table(rows),
        conventions=list(dict.fromkeys(row.fidelity.convention for row in rows if row.fidelity)),
        times=list(_times(rows)),
        limits=list(_limits(rows)),
        reached_by=list(
            dict.fromkeys(row.limit.peak_reached_by for row in rows if row.limit and row.limit.peak_reached_by)
        ),
        sustained=[_sustained(each) for each in profile.sustained],
        operators=[operator_tables(each) for each in profile.operators],
        measured=_measured(profile),
        evidence=evidence_table(rows),
        command=command,
    )


def _summary(profile: Profile) -> list[str]:
    lines = []
    rows = profile.rows
    for size, where, device in dict.fromkeys((size_name(row), row.where, row.device) for row in rows):
        here = [row for row in rows if (size_name(row), row.where, row.device) == (size, where, device)]
        lines += _fastest(size if where == "host" else f"{size}, {device}", [row for row in here if row.valid])
    if short := sum(row.status == "too short" for row in rows):
        lines.append(f"{short} of {len(rows)} rows got too few runs or too little time: do not compare them.")
    if absent := [row for row in rows if row.absence is not None]:
        names = ", ".join(dict.fromkeys(row.subject.entry for row in absent))
        lines.append(f"{len(absent)} of {len(rows)} rows have no times ({names}): the table says why.")
    if busy := [peak for peak in profile.peaks if peak.worst_round < _BUSY]:
        worst = min(peak.worst_round for peak in busy)
        lines.append(
            f"The machine had other work meanwhile: at worst, {worst:.0%} of its own peak was to be had. All rows took "
            "turns, so it hit them alike; times and shares of the limit would be better on an idle machine."
        )
    return lines


def _fastest(place: str, valid: Sequence[Row]) -> list[str]:
    """The fastest row of a size on a device, in a sentence, and how it compares with eager PyTorch there."""
    timed = [(row.p50_ms, row) for row in valid if row.p50_ms]
    if not timed:
        return [f"{place}: no row kept the whole protocol, so none is called the fastest."]
    ms, best = min(timed, key=lambda each: each[0])
    fps = best.latency.fps if best.latency else 0.0
    text = f"{place}: fastest is {best.subject.form} on {best.units}, {ms:.1f} ms a frame (p50), {fps:.1f} fps"
    text += f", {best.real_time[VIDEO_RATES[-1]] or 0:.2f} times {VIDEO_RATES[-1]} fps video"
    if best.share_of_peak is not None:
        text += f", {best.share_of_peak:.0%} of the machine's measured limit"
    eager = [each for each, row in timed if row.subject.format == "pytorch" and row.threads == best.threads]
    if eager and best.subject.format != "pytorch":
        text += f"; {min(eager) / ms:.1f} times as fast as eager PyTorch at its best on as many threads"
    if best.fidelity and best.fidelity.lossy:
        text += f"; it loses {-(best.fidelity.change_db or 0):.2f} dB"
    return [f"{text}."]


def _losses(rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Every entry that loses more than is allowed, with the layers that it is put down to."""
    found = {row.subject.entry: row.fidelity for row in rows if row.fidelity and row.fidelity.lossy}
    for entry, fidelity in found.items():
        assert fidelity.change_db is not None
        text = f"loses {-fidelity.change_db:.2f} dB against its PyTorch network; {ALLOWED_LOSS_DB} dB is allowed."
        yield entry, text + (f" It is put down to: {', '.join(fidelity.blamed)}." if fidelity.blamed else "")


def _times(rows: Sequence[Row]) -> Iterator[Figure]:
    deadlines = {f"{rate} fps": 1e3 / rate for rate in VIDEO_RATES}
    for size in dict.fromkeys(size_name(row) for row in rows):
        timed = [(row.p50_ms, row) for row in rows if size_name(row) == size and row.p50_ms is not None]
        bars = [_time_bar(ms, row, _label(row, rows)) for ms, row in sorted(timed, key=lambda each: each[0])]
        if bars:
            yield Figure(size, time_bars(bars, deadlines, f"Time of one run, {size}"))


def _time_bar(ms: float, row: Row, label: str) -> Bar:
    assert row.latency is not None
    figure = f"{ms:.1f} ms" if row.valid else f"({ms:.1f} ms)"
    return Bar(label, ms, figure, _tone(row), row.valid, row.latency.p90_ms, row.latency.p99_ms)


def _limits(rows: Sequence[Row]) -> Iterator[Figure]:
    for size in dict.fromkeys(size_name(row) for row in rows):
        bars = []
        for row in rows:
            if size_name(row) == size and row.limit and row.share_of_peak is not None and row.gflops is not None:
                figure = f"{row.share_of_peak:.0%} ({row.gflops:.0f} of {row.limit.peak_gflops:.0f})"
                bars.append(Bar(_label(row, rows), row.share_of_peak, figure, _tone(row), row.valid))
        if bars:
            bars.sort(key=lambda bar: -bar.value)
            yield Figure(size, share_bars(bars, f"Share of the limit, {size}"))


def _sustained(run: Sustained) -> Figure:
    height, width = run.size
    name = f"{run.form}, {width}x{height}, {counted_threads(run.threads)}"
    caption = f"{name}: {run.fps[0]:.1f} → {run.fps[-1]:.1f} fps, last over first {run.last_over_first:.2f}"
    return Figure(caption, curve(run.fps, run.seconds, caption))


def _measured(profile: Profile) -> list[tuple[str, str]]:
    protocol, machine = profile.protocol, profile.machine
    rules = (
        f"At least {protocol.warmup} runs of warm-up, then at least {protocol.minimum_runs} runs and "
        f"{protocol.minimum_seconds:g} s, at most {protocol.budget_seconds:g} s for a row. All rows of one size take "
        "turns run by run, in an order drawn anew each round, so that a busy moment does not pick the winner. A row "
        f"is valid with {STANDARD.warmup} runs of warm-up, {STANDARD.minimum_runs} runs and "
        f"{STANDARD.minimum_seconds:g} s."
    )
    return [
        ("One run", "restores one frame: from its window of frames, or (streaming) from one new frame and memories."),
        ("Protocol", rules),
        ("Load, first run, peak memory", _cold(profile.rows)),
        ("MAC", "multiply-accumulates of all convolutions and matrix products of a run, fixed interpolating ones too."),
        ("MAI 2025", "2^(2 (PSNR - 27)) / ms, told for 320x180 → 1280x720 only; on a host it is no phone's score."),
        ("Processor", f"{machine.processor} ({machine.architecture}), {machine.cores} cores"),
        ("System", f"{machine.os}, Python {machine.python}, torch {machine.torch}"),
        ("Load before", "-" if machine.load_average is None else f"{machine.load_average:.1f} processes (one minute)"),
        *((f"Limit, {counted_threads(peak.threads)}", _peak(peak)) for peak in profile.peaks),
        *((f"SHA-256 of {name}", digest) for name, digest in _digests(profile.rows).items()),
    ]


def _cold(rows: Iterable[Row]) -> str:
    imported = dict.fromkeys(
        f"{row.cold_start.cold_process} for {row.subject.format}"
        for row in rows
        if row.cold_start and row.cold_start.cold_process
    )
    text = (
        "of files, in a fresh process that has imported the runtime; a network in memory has its first run only, with "
        "compiling. Peak memory is that whole process's"
    )
    return ": ".join(filter(None, (text, "; ".join(imported)))) + "."


def _peak(peak: Peak) -> str:
    rounds = ", ".join(f"{rate:.0f}" for rate in peak.fp32_rounds)
    fp32 = f"by round: {rounds}"
    if peak.fp32_reached_by:
        fp32 = f"reached by {peak.fp32_reached_by}; by the measuring kernels, {fp32}"
    int8 = f"; {peak.int8_gops:.0f} GOP/s int8" if peak.int8_gops else ""
    if peak.int8_reached_by:
        int8 += f" (reached by {peak.int8_reached_by})"
    return f"{peak.fp32_gflops:.0f} GFLOP/s fp32 ({fp32}){int8}; {peak.copy_gb_per_second:.0f} GB/s copying"


def _digests(rows: Iterable[Row]) -> dict[str, str]:
    return {row.subject.entry: row.file.sha256 for row in rows if row.file}


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Short, but so that no two entries have the same."""
    alike = {each.subject.entry for each in rows if each.subject.form == row.subject.form}
    threads = "" if row.threads is None else f" · {counted_threads(row.threads)}"
    device = f" · {row.device}" if row.where == "phone" else ""
    return (row.subject.form if len(alike) == 1 else row.subject.entry) + threads + device


def _tone(row: Row) -> str:
    if row.where == "phone":
        return "phone"
    return "other" if row.subject.format in ("pytorch", "torch.compile") else "own"
