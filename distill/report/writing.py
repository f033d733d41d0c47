"""From a comparison folder to its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill import __version__
from distill.comparison.answers import answers, present_metrics, tables
from distill.comparison.facts import costs, reproduction
from distill.comparison.results import read_comparison
from distill.errors import ConfigError
from distill.files import replacing
from distill.report.curves import learning_curves
from distill.report.gallery import gallery
from distill.report.page import Findings, headlines, html
from distill.report.page_tables import conventions_line

__all__ = ["ComparisonReport", "report"]


@dataclass(frozen=True)
class ComparisonReport:
    """What was found, and where it was written.

    Attributes:
        findings: all of it.
        html: the page.
        json: the same figures for programs.
    """

    findings: Findings
    html: Path
    json: Path

    def summary(self) -> str:
        """Lines for a terminal: question and answer of each method, then the convention and the files."""
        comparison = self.findings.comparison
        lines = []
        for question, answer, figures in headlines(self.findings):
            lines.append(f"{question} {answer.told_verdict[:1].upper()}{answer.told_verdict[1:]}.")
            lines.append(f"  {figures}")
        lines += [f"left out: {sentence}" for sentence in comparison.missing]
        if self.findings.reproduction.unfair:
            lines.append(f"not a fair comparison: runs differ in {', '.join(self.findings.reproduction.unfair)}")
        lines.append(conventions_line(comparison.convention, len(comparison.clips)))
        return "\n".join([*lines, "", f"page  {self.html}", f"JSON  {self.json}"])

    def document(self) -> dict[str, Any]:
        """What report.json holds."""
        return _document(self.findings)


def report(folder: Path, target: Path | None = None) -> ComparisonReport:
    """Read a comparison and write report.html and report.json.

    Args:
        folder: what `distill compare` wrote.
        target: the folder to write to; None is `folder`.

    Raises:
        ConfigError: `folder` is no comparison, or `target` cannot be written.
        DataError: nothing in it can be compared.
    """
    comparison = read_comparison(folder)
    found = answers(comparison)
    findings = Findings(
        comparison,
        present_metrics(comparison),
        found,
        tables(comparison),
        learning_curves(comparison),
        costs(comparison),
        reproduction(comparison),
        gallery(comparison, found),
    )
    place = target if target is not None else folder
    written = ComparisonReport(findings, place / "report.html", place / "report.json")
    try:
        for path, text in (
            (written.html, html(findings)),
            (written.json, json.dumps(written.document(), indent=1, allow_nan=False) + "\n"),
        ):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The report cannot be written to {place}: {error.strerror}.") from error
    return written


def _document(findings: Findings) -> dict[str, Any]:
    comparison = findings.comparison
    pictures = [
        {
            **{key: getattr(panel, key) for key in ("kind", "clip", "frame", "caption", "top")},
            "figures": {shown.label: shown.figure for shown in panel.shown},
        }
        for panel in findings.gallery.panels
    ]
    return {
        "format": "distill-vsr report 1",
        "distill-vsr": __version__,
        "teacher": comparison.teacher,
        "student": comparison.student,
        "methods": list(comparison.methods),
        "seeds": list(comparison.seeds),
        "steps": comparison.steps,
        "clips": list(comparison.clips),
        "missing": list(comparison.missing),
        "convention": dict(comparison.convention),
        "metrics": {key: asdict(metric) for key, metric in findings.metrics.items()},
        "answers": [asdict(answer) for answer in findings.answers],
        "tables": [_plain(asdict(table)) for table in findings.tables],
        "curves": _plain(asdict(findings.curves)),
        "costs": [_plain(asdict(cost)) for cost in findings.costs],
        "reproduction": _plain(asdict(findings.reproduction)),
        "pictures": {
            "choice": findings.gallery.choice,
            "seeds": findings.gallery.seeds,
            "notes": list(findings.gallery.notes),
            "panels": pictures,
        },
    }


def _plain(value: Any) -> Any:
    """As JSON has it: keys are text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
