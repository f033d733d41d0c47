"""The page that answers "Did distillation help?", one file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from distill import __version__
from distill.comparison.answers import Answer, Metric, Table
from distill.comparison.facts import Cost, Reproduction
from distill.comparison.results import Comparison
from distill.pages.plots import COLOURS, Difference, differences, lines
from distill.pages.rendering import render
from distill.pages.tables import Figure
from distill.report.curves import Curves
from distill.report.gallery import Gallery
from distill.report.page_tables import (
    conventions_line,
    cost_facts,
    differences_table,
    recipes_table,
    repeat_facts,
    seeds_table,
    shared_recipe,
    unfair_facts,
    value_table,
)
from distill.report.pictures import HEAT_CSS
from distill.report.scenes import MARGIN

__all__ = ["Findings", "headlines", "html"]

_TONES = {"yes": "yes", "no": "no", "not shown": "unknown"}
_KINDS = {
    "where": "Where",
    "profile": "A line of pixels over time",
    "crop": "Side by side",
    "error": "Errors",
    "attention": "Attention",
}


@dataclass(frozen=True)
class Findings:
    """Everything that the page and the JSON tell.

    Attributes:
        comparison: the runs.
        metrics: that were measured, the deciding one first.
        answers: by metric, method and control.
        tables: one a metric.
        curves: of training.
        costs: of the students.
        reproduction: how to repeat it.
        gallery: pictures.
    """

    comparison: Comparison
    metrics: Mapping[str, Metric]
    answers: Sequence[Answer]
    tables: Sequence[Table]
    curves: Curves
    costs: Sequence[Cost]
    reproduction: Reproduction
    gallery: Gallery

    def deciding(self) -> list[Answer]:
        """The answers by the first metric."""
        return [answer for answer in self.answers if answer.metric == next(iter(self.metrics))]


def html(findings: Findings) -> str:
    """The page: HTML in UTF-8 with its style, plots and pictures inside; it asks for nothing from a network."""
    comparison, reproduction, gallery = findings.comparison, findings.reproduction, findings.gallery
    methods = comparison.methods
    deciding = next(iter(findings.metrics.values()))
    return render(
        "distill.report",
        student=comparison.student,
        teacher=comparison.teacher,
        steps=f"{comparison.steps:,}",
        version=__version__,
        missing=comparison.missing,
        controlled=any(comparison.control(method) == "none" for method in methods),
        cards=_cards(findings),
        convention=conventions_line(comparison.convention, len(comparison.clips)),
        differences=_differences(findings, deciding),
        differences_table=differences_table(findings.answers, findings.metrics),
        values=[_values(table, findings.metrics[table.metric], methods) for table in findings.tables],
        deciding=deciding.name,
        seeds_table=seeds_table(findings.tables[0], deciding, methods),
        curves=_curves(findings.curves, methods),
        slice_steps=f"{findings.curves.slice_steps:,}",
        legend=[(method, f"c{place % COLOURS}") for place, method in enumerate(methods)],
        gallery=gallery,
        pictures=[(clip, list(panels)) for clip, panels in groupby(gallery.panels, key=lambda panel: panel.clip)],
        kinds=_KINDS,
        heat=HEAT_CSS,
        margin=MARGIN,
        costs=[cost_facts(cost) for cost in findings.costs],
        command=reproduction.command,
        repeat=repeat_facts(reproduction, comparison),
        recipes=recipes_table(reproduction, methods) if reproduction.differences else None,
        unfair=unfair_facts(reproduction),
        shared=shared_recipe(reproduction),
    )


def headlines(findings: Findings) -> list[tuple[str, Answer, str]]:
    """Question, answer and figures of every method against every control."""
    metric = next(iter(findings.metrics.values()))
    return [
        (f"Did {answer.method} help against {answer.against}?", answer, answer.sentence(metric))
        for answer in findings.deciding()
    ]


def _cards(findings: Findings) -> list[dict[str, Any]]:
    """By method: what came of it against each control; the first of these gives the card its colour."""
    cards = []
    for method, group in groupby(headlines(findings), key=lambda each: each[1].method):
        answers = [
            {
                "against": answer.against,
                "tone": _TONES[answer.verdict],
                "verdict": _sentence_case(answer.told_verdict),
                "figures": figures,
            }
            for _, answer, figures in group
        ]
        cards.append({"method": method, "tone": answers[0]["tone"], "answers": answers})
    return cards


def _differences(findings: Findings, metric: Metric) -> Markup:
    rows = [
        Difference(
            f"{answer.method} against {answer.against}",
            metric.measured(answer.mean),
            answer.mean,
            (answer.interval.low, answer.interval.high) if answer.interval else None,
            (answer.over_seeds.low, answer.over_seeds.high) if answer.over_seeds else None,
            findings.comparison.methods.index(answer.method) % COLOURS,
        )
        for answer in findings.deciding()
    ]
    return differences(rows, f"{metric.name}, {metric.unit}", f"Differences in {metric.name}")


def _values(table: Table, metric: Metric, methods: Sequence[str]) -> dict[str, Any]:
    return {
        "name": f"{metric.name} ({metric.unit})" if metric.unit else metric.name,
        "note": f" {_sentence_case(metric.note)}." if metric.note else "",
        "table": value_table(table, metric, methods),
    }


def _curves(curves: Curves, methods: Sequence[str]) -> list[Figure]:
    return [
        Figure(panel.title, lines(panel.lines(methods, COLOURS), panel.title, logarithmic=panel.logarithmic))
        for panel in curves.panels
    ]


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
