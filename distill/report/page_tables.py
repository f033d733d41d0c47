"""What the tables and lists of a comparison's page show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from distill.comparison.answers import Answer, Metric, Table, signed
from distill.comparison.facts import Cost, Reproduction
from distill.comparison.intervals import Interval
from distill.comparison.results import Comparison
from distill.pages.tables import Cell, PlainTable, TableRow

__all__ = ["conventions_line", "cost_facts", "differences_table", "recipes_table", "repeat_facts", "seeds_table"]
__all__ += ["shared_recipe", "unfair_facts", "value_table"]

Facts = list[tuple[str, str]]

_LONG = {"lpips": "LPIPS", "tof": "tOF", "warping": "Warping"}
"""Metrics that bring a sentence of their own."""


def conventions_line(convention: Mapping[str, Any], clips: int) -> str:
    """What all figures depend on, in a sentence."""
    channel = "Y (BT.601, rounded to 8 bit)" if convention.get("channel") == "y" else "RGB (8 bit)"
    crop = f"{convention['crop']} pixels cropped at every edge" if convention.get("crop") else "no border cropped"
    frames = convention.get("frames", "all")
    counted = "all frames" if frames == "all" else f"the first {frames} frames of each at most"
    if convention.get("time_scale", 1) != 1:
        counted += ", every second one given and all of them measured"
    degradation = f"degradation {convention.get('degradation')} x{convention.get('scale')}"
    told = (
        f"All figures: {channel}, {crop}, {clips} clips, {counted}, {degradation}; a clip counts as much as any other."
    )
    sentences = [f"{_LONG[key]}: {convention[key]}." for key in _LONG if key in convention]
    return " ".join([told, *sentences])


def differences_table(answers: Sequence[Answer], metrics: Mapping[str, Metric]) -> PlainTable:
    """Every answer by every metric, both intervals."""
    intervals = ("95 %, these clips", "95 %, clips like these")
    heads = ("method", "against", "metric", "difference", *intervals, "better in", "")
    rows = []
    for answer in answers:
        metric = metrics[answer.metric]
        tone = {"yes": "ok", "no": "bad", "not shown": "doubt"}[answer.verdict]
        verdict = {"yes": "better", "no": "worse", "not shown": answer.told_verdict}[answer.verdict]
        cells = [
            Cell(answer.against),
            Cell(metric.name),
            Cell(metric.measured(answer.mean)),
            Cell(_ends(answer.over_seeds, metric)),
            Cell(_ends(answer.over_seeds_and_clips, metric)),
            Cell(f"{answer.better} of {len(answer.seeds) * len(answer.clips)}"),
            Cell(verdict, f"text {tone}"),
        ]
        rows.append(TableRow(answer.method, cells))
    return PlainTable(heads, rows, texts=3)


def value_table(table: Table, metric: Metric, methods: Sequence[str]) -> PlainTable:
    """Clips down, contenders across."""
    contenders = list(table.rows["average"])
    best = (max if metric.higher_is_better else min)(methods, key=lambda method: table.rows["average"][method])
    rows = []
    for clip, values in table.rows.items():
        changes = table.to_none[clip]
        cells = [
            Cell(
                metric.told(values[contender]),
                "best" if clip == "average" and contender == best else "",
                signed(changes[contender], metric.digits) if contender in changes else "",
            )
            for contender in contenders
        ]
        rows.append(TableRow(clip, cells, "sum" if clip == "average" else ""))
    return PlainTable(("clip", *contenders), rows)


def seeds_table(table: Table, metric: Metric, methods: Sequence[str]) -> PlainTable:
    """Seeds down, methods across."""
    rows = [
        TableRow(f"seed {seed}", [Cell(metric.told(values[method]) if method in values else "-") for method in methods])
        for seed, values in table.by_seed.items()
    ]
    return PlainTable(("seed", *methods), rows)


def cost_facts(cost: Cost) -> Facts:
    """What a student costs and how long its runs took."""
    keywords = ", ".join(f"{name}={value}" for name, value in cost.keywords.items())
    shared = f", one architecture for {', '.join(cost.methods)}" if len(cost.methods) > 1 else ""
    doubled = cost.keywords.get("time_scale", 1) == 2
    restored = "a restored frame and the one before it, in windows" if doubled else "a restored frame"
    facts = [
        ("Student", f"{cost.network}{f' ({keywords})' if keywords else ''}{shared}"),
        ("Parameters", f"{cost.parameters:,}"),
        ("Multiply-accumulates", f"{cost.macs / 1e9:.2f} billion for {restored}, low resolution {cost.size}"),
    ]
    if any(cost.minutes.values()):
        minutes = [f"{method} {fmean(found):.1f} min" for method, found in cost.minutes.items() if found]
        facts.append(("Training of one run", f"{', '.join(minutes)} (mean of its seeds, with validation)"))
    return [*facts, ("Trained on", ", ".join(cost.devices))]


def repeat_facts(found: Reproduction, comparison: Comparison) -> Facts:
    """Where the runs are, their seeds, footage, versions and machine."""
    return [
        ("Folder", "METHOD/seed-S/ holds each run: recipe, log, weights, figures"),
        ("Seeds", ", ".join(map(str, comparison.seeds))),
        ("Judged on", comparison.judge),
        *((key, str(value)) for key, value in found.environment.items()),
    ]


def recipes_table(found: Reproduction, methods: Sequence[str]) -> PlainTable:
    """What the comparison is about: keys of the recipe down, the methods that have any across."""
    methods = [method for method in methods if any(method in each for each in found.differences.values())]
    rows = [
        TableRow(key, [Cell(_plain(values.get(method))) for method in methods])
        for key, values in found.differences.items()
    ]
    return PlainTable(("key", *methods), rows, texts=1 + len(methods))


def unfair_facts(found: Reproduction) -> Facts:
    """Key by key, what each run has where all should have the same."""
    return [(key, "; ".join(f"{run}: {value}" for run, value in each.items())) for key, each in found.unfair.items()]


def shared_recipe(found: Reproduction) -> str:
    """The keys that all runs share, a line each."""
    return "\n".join(f"{key}: {_plain(value)}" for key, value in found.recipe.items())


def _plain(value: object) -> str:
    return "-" if value is None else str(value)


def _ends(interval: Interval | None, metric: Metric) -> str:
    if interval is None:
        return "-"
    return f"{signed(interval.low, metric.digits)} to {signed(interval.high, metric.digits)}"
