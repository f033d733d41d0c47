"""The tables and lists of a comparison's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from distill.comparison.answers import Answer, Metric, Table, signed
from distill.comparison.facts import Cost, Reproduction
from distill.comparison.intervals import Interval
from distill.comparison.results import Comparison
from distill.pages.markup import Markup, element, joined

__all__ = ["conventions_line", "cost_list", "differences_table", "reproduce", "seeds_table", "value_table"]

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


def differences_table(answers: Sequence[Answer], metrics: Mapping[str, Metric]) -> Markup:
    """Every answer by every metric, both intervals."""
    head = ("method", "against", "metric", "difference", "95 %, these clips", "95 %, clips like these", "better in", "")
    rows = []
    for answer in answers:
        metric = metrics[answer.metric]
        pairs = len(answer.seeds) * len(answer.clips)
        tone = {"yes": "ok", "no": "bad", "not shown": "doubt"}[answer.verdict]
        verdict = {"yes": "better", "no": "worse", "not shown": answer.told_verdict}[answer.verdict]
        rows.append(
            element(
                "tr",
                element("th", answer.method, class_="what", scope="row"),
                element("td", answer.against, class_="text"),
                element("td", metric.name, class_="text"),
                element("td", metric.measured(answer.mean)),
                element("td", _ends(answer.over_seeds, metric)),
                element("td", _ends(answer.over_seeds_and_clips, metric)),
                element("td", f"{answer.better} of {pairs}"),
                element("td", verdict, class_=f"text {tone}"),
            )
        )
    return _table(head, rows, ("text", "text", "text"))


def value_table(table: Table, metric: Metric, methods: Sequence[str]) -> Markup:
    """Clips down, contenders across."""
    contenders = list(table.rows["average"])
    best = (max if metric.higher_is_better else min)(methods, key=lambda method: table.rows["average"][method])
    rows = []
    for clip, values in table.rows.items():
        cells = []
        for contender in contenders:
            change = table.to_none[clip].get(contender)
            cells.append(
                element(
                    "td",
                    metric.told(values[contender]),
                    element("small", signed(change, metric.digits)) if change is not None else "",
                    class_="best" if clip == "average" and contender == best else None,
                )
            )
        rows.append(
            element(
                "tr",
                element("th", clip, class_="what", scope="row"),
                *cells,
                class_="sum" if clip == "average" else None,
            )
        )
    return _table(("clip", *contenders), rows, ("text",))


def seeds_table(table: Table, metric: Metric, methods: Sequence[str]) -> Markup:
    """Seeds down, methods across."""
    rows = [
        element(
            "tr",
            element("th", f"seed {seed}", class_="what", scope="row"),
            *(element("td", metric.told(values[method]) if method in values else "-") for method in methods),
        )
        for seed, values in table.by_seed.items()
    ]
    return _table(("seed", *methods), rows, ("text",))


def cost_list(costs: Sequence[Cost]) -> Markup:
    """What each student costs and how long its runs took."""
    parts = []
    for cost in costs:
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
        parts.append(_list([*facts, ("Trained on", ", ".join(cost.devices))]))
    told = "Distillation changes what a student learns, not what it is: it costs the phone nothing."
    return joined(element("h2", "What the student costs"), element("p", told, class_="soft"), *parts)


def reproduce(found: Reproduction, comparison: Comparison) -> Markup:
    """Command, recipe, versions; and whatever the runs differ in."""
    parts = [element("h2", "How to repeat it"), element("pre", found.command)]
    facts = [
        ("Folder", "METHOD/seed-S/ holds each run: recipe, log, weights, figures"),
        ("Seeds", ", ".join(map(str, comparison.seeds))),
        ("Judged on", comparison.judge),
        *((key, str(value)) for key, value in found.environment.items()),
    ]
    parts.append(_list(facts))
    if found.differences:
        methods = [
            method for method in comparison.methods if any(method in each for each in found.differences.values())
        ]
        rows = [
            element(
                "tr",
                element("th", key, class_="what", scope="row"),
                *(element("td", _plain(values.get(method)), class_="text") for method in methods),
            )
            for key, values in found.differences.items()
        ]
        parts += [
            element("h3", "The recipes differ in"),
            _table(("key", *methods), rows, ("text",) * (1 + len(methods))),
        ]
    if found.unfair:
        parts.append(element("h3", "And in what should be alike"))
        parts.append(
            _list(
                [
                    (key, "; ".join(f"{run}: {value}" for run, value in each.items()))
                    for key, each in found.unfair.items()
                ]
            )
        )
    shared = "\n".join(f"{key}: {_plain(value)}" for key, value in found.recipe.items())
    parts += [element("h3", "All of them share"), element("pre", shared)]
    return joined(*parts)


def _plain(value: object) -> str:
    return "-" if value is None else str(value)


def _ends(interval: Interval | None, metric: Metric) -> str:
    if interval is None:
        return "-"
    return f"{signed(interval.low, metric.digits)} to {signed(interval.high, metric.digits)}"


def _list(facts: Sequence[tuple[str, str]]) -> Markup:
    return element("dl", *(joined(element("dt", name), element("dd", text)) for name, text in facts))


def _table(head: Sequence[str], rows: Sequence[Markup], classes: Sequence[str]) -> Markup:
    kinds = [*classes, *[None] * (len(head) - len(classes))]
    names = element(
        "tr", *(element("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True))
    )
    table = element("table", element("thead", names), element("tbody", *rows), class_="plain")
    return element("div", table, class_="scroll")
