"""The page that answers "Did distillation help?", one file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from distill import __version__
from distill.comparison.answers import Answer, Metric, Table
from distill.comparison.facts import Cost, Reproduction
from distill.comparison.results import Comparison
from distill.pages.markup import Markup, element, joined
from distill.pages.style import STYLE
from distill.report.curves import Curves
from distill.report.gallery import Gallery, Panel
from distill.report.page_tables import (
    conventions_line,
    cost_list,
    differences_table,
    reproduce,
    seeds_table,
    value_table,
)
from distill.report.pictures import HEAT_CSS
from distill.report.plots import Difference, differences, lines
from distill.report.scenes import MARGIN
from distill.report.style import STYLE as OWN_STYLE

__all__ = ["Findings", "headlines", "html"]

_TONES = {"yes": "yes", "no": "no", "not shown": "unknown"}
_KINDS = {
    "where": "Where",
    "profile": "A line of pixels over time",
    "crop": "Side by side",
    "error": "Errors",
    "attention": "Attention",
}
_COLOURS = 7


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
    comparison = findings.comparison
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Did distillation help? {comparison.student}, taught by {comparison.teacher or 'nobody'}"),
        element("style", Markup(STYLE + OWN_STYLE)),
    )
    body = element(
        "body",
        _header(findings),
        _differences(findings),
        _values(findings),
        _curves(findings.curves, comparison.methods),
        _pictures(findings.gallery),
        cost_list(findings.costs),
        reproduce(findings.reproduction, comparison),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def headlines(findings: Findings) -> list[tuple[str, Answer, str]]:
    """Question, answer and figures of every method against every control."""
    metric = next(iter(findings.metrics.values()))
    return [
        (f"Did {answer.method} help against {answer.against}?", answer, answer.sentence(metric))
        for answer in findings.deciding()
    ]


def _header(findings: Findings) -> Markup:
    comparison = findings.comparison
    taught = f"taught by {comparison.teacher}" if comparison.teacher else "without a teacher"
    told = f"{comparison.student}, {taught}, {comparison.steps:,} steps a run, distill-vsr {__version__}."
    cards = []
    for method, group in groupby(headlines(findings), key=lambda each: each[1].method):
        answers = list(group)
        tone = _TONES[answers[0][1].verdict]
        parts = [element("h2", f"Did {method} help?")]
        for _, answer, figures in answers:
            verdict = element("strong", _sentence_case(answer.told_verdict), class_=f"verdict {_TONES[answer.verdict]}")
            parts.append(element("p", f"Against {answer.against}: ", verdict, f". {figures}."))
        cards.append(element("section", *parts, class_=f"answer {tone}"))
    return element(
        "header",
        element("h1", "Did distillation help?"),
        element("p", told, class_="soft"),
        *_warnings(findings),
        element("div", *cards, class_="answers"),
        element("p", conventions_line(comparison.convention, len(comparison.clips)), class_="soft"),
    )


def _warnings(findings: Findings) -> Iterable[Markup]:
    comparison = findings.comparison
    if comparison.missing:
        yield element("p", f"Left out: {'; '.join(comparison.missing)}.", class_="banner")
    if not any(comparison.control(method) == "none" for method in comparison.methods):
        told = "The control none (the student alone) is missing: whether any of this helped is open."
        yield element("p", told, class_="banner")
    if findings.reproduction.unfair:
        keys = ", ".join(findings.reproduction.unfair)
        yield element(
            "p",
            element("strong", "Not a fair comparison: "),
            f"the runs differ in more than the method ({keys}); see the end of the page.",
            class_="loss",
        )


def _differences(findings: Findings) -> Markup:
    metric = next(iter(findings.metrics.values()))
    rows = [
        Difference(
            f"{answer.method} against {answer.against}",
            metric.measured(answer.mean),
            answer.mean,
            (answer.interval.low, answer.interval.high) if answer.interval else None,
            (answer.over_seeds.low, answer.over_seeds.high) if answer.over_seeds else None,
            findings.comparison.methods.index(answer.method) % _COLOURS,
        )
        for answer in findings.deciding()
    ]
    told = (
        "A difference is taken at the same seed and the same clip, so what the two runs share drops out. Thick: 95 % "
        "interval of the mean over these very clips, were other seeds drawn (Student's t). Thin: the wider of that and "
        "of the interval for clips like these, were other seeds and other clips drawn (two-way crossed random effects, "
        "Satterthwaite's degrees of freedom). The verdict goes by the thin line: yes only if all of it lies above "
        "zero. Each interval stands for itself: of twenty comparisons without any effect, one looks like one."
    )
    plot = differences(rows, f"{metric.name}, {metric.unit}", f"Differences in {metric.name}")
    return joined(
        element("h2", "How sure is that?"),
        element("figure", plot),
        element("p", told, class_="soft"),
        differences_table(findings.answers, findings.metrics),
    )


def _values(findings: Findings) -> Markup:
    parts = [element("h2", "Clip by clip")]
    one = "mean over the seeds; below it the mean difference to none at the same seeds and clip"
    for table in findings.tables:
        metric = findings.metrics[table.metric]
        unit = f" ({metric.unit})" if metric.unit else ""
        note = f" {metric.note[:1].upper()}{metric.note[1:]}." if metric.note else ""
        parts += [
            element("h3", f"{metric.name}{unit}"),
            element("p", f"Of methods the {one}.{note}", class_="soft"),
            value_table(table, metric, findings.comparison.methods),
        ]
    metric = next(iter(findings.metrics.values()))
    parts += [
        element("h3", f"{metric.name} by seed, mean over the clips"),
        seeds_table(findings.tables[0], metric, findings.comparison.methods),
    ]
    return joined(*parts)


def _curves(curves: Curves, methods: Sequence[str]) -> Markup:
    if not curves.panels:
        return Markup()
    legend = element(
        "p",
        *(
            element("span", element("i", "", class_=f"key c{place % _COLOURS}"), method)
            for place, method in enumerate(methods)
        ),
        class_="legend",
    )
    figures = [
        element(
            "figure",
            element("figcaption", panel.title),
            lines(panel.lines(methods, _COLOURS), panel.title, logarithmic=panel.logarithmic),
        )
        for panel in curves.panels
    ]
    told = (
        "Thin: a seed; thick: the mean of the seeds. Losses are unweighted, averaged over slices of "
        f"{curves.slice_steps:,} steps, on a logarithmic scale; methods weigh them differently."
    )
    return joined(
        element("h2", "Learning curves"),
        element("p", told, class_="soft"),
        legend,
        element("div", *figures, class_="panels wide"),
    )


def _pictures(gallery: Gallery) -> Markup:
    parts = [element("h2", "What it looks like")]
    parts += [element("p", note, class_="soft") for note in gallery.notes]
    if gallery.panels:
        told = (
            f"{gallery.choice} Region, row and crop were chosen by rule, not by eye. For the pictures the networks saw "
            f"the region with {MARGIN} low-resolution pixels around it and these frames only; the figures above are of "
            "whole frames and clips."
        )
        parts.append(element("p", told, class_="soft"))
    for clip, panels in groupby(gallery.panels, key=lambda panel: panel.clip):
        parts.append(element("h3", clip))
        parts += [_panel(panel) for panel in panels]
    return joined(*parts)


def _panel(panel: Panel) -> Markup:
    pictures = [
        element(
            "span",
            element("img", src=each.image, alt=f"{_KINDS[panel.kind]}: {each.label}"),
            element("b", each.label) if panel.kind != "where" else "",
            "" if each.figure is None else f" {each.figure:.2f}",
        )
        for each in panel.shown
    ]
    bar = element("i", "", class_="scale", style=f"background: {HEAT_CSS}")
    scale = "" if panel.top is None else joined(" 0", bar, f"{panel.top:.0f} levels and more.")
    return element(
        "figure",
        element("figcaption", element("b", f"{_KINDS[panel.kind]}. "), panel.caption, scale),
        element("div", *pictures),
        class_=f"pictures {panel.kind}",
    )


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
