"""What a comparison of methods shows, with its intervals, as one page, one JSON and a few lines."""

from __future__ import annotations

from distill.report.writing import ComparisonReport, report

__all__ = ["ComparisonReport", "report"]
