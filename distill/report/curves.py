"""Learning curves: what was measured on the way, by method and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from distill.comparison.results import Comparison, Run
from distill.pages.plots import Line

__all__ = ["CurvePanel", "Curves", "learning_curves"]

Points = tuple[tuple[float, float], ...]

_SLICES = 60  # of a run's steps; the losses in each are averaged, for one batch's loss says little
_NO_LOSS = ("step", "learning_rate", "loss")


@dataclass(frozen=True)
class CurvePanel:
    """One figure over the steps.

    Attributes:
        title: what it is.
        logarithmic: how its height is drawn.
        curves: method -> seed -> points (step, value).
    """

    title: str
    logarithmic: bool
    curves: Mapping[str, Mapping[int, Points]]

    def lines(self, methods: Sequence[str], colours: int) -> list[Line]:
        """Seeds first, means on top of them."""
        thin, thick = [], []
        for method, by_seed in self.curves.items():
            tone = methods.index(method) % colours
            thin += [Line(points, tone, False, f"{method}, seed {seed}") for seed, points in by_seed.items()]
            thick.append(Line(_mean(list(by_seed.values())), tone, True, f"{method}, mean"))
        return [*thin, *thick]


@dataclass(frozen=True)
class Curves:
    """All panels: validation first, then the losses.

    Attributes:
        panels: of figures that were measured.
        slice_steps: over so many steps losses are averaged.
    """

    panels: tuple[CurvePanel, ...]
    slice_steps: int


def learning_curves(comparison: Comparison) -> Curves:
    """Of all runs, from their metrics.jsonl."""
    width = max(-(-comparison.steps // _SLICES), 1)
    validated = {name: _validated(run) for name, run in comparison.runs.items()}
    panels = [_panel("Validation PSNR, dB", validated, logarithmic=False)]
    losses = dict.fromkeys(
        key
        for run in comparison.runs.values()
        for line in run.history
        if "psnr" not in line
        for key, value in line.items()
        if key not in _NO_LOSS and isinstance(value, int | float)
    )
    for loss in losses:
        sliced = {name: _sliced(run, loss, width) for name, run in comparison.runs.items()}
        panels.append(_panel(f"Loss: {loss}", sliced, logarithmic=True))
    return Curves(tuple(panel for panel in panels if panel.curves), width)


def _panel(title: str, points: Mapping[tuple[str, int], Points], *, logarithmic: bool) -> CurvePanel:
    curves: dict[str, dict[int, Points]] = {}
    for (method, seed), found in points.items():
        if len(found) > 1:
            curves.setdefault(method, {})[seed] = found
    return CurvePanel(title, logarithmic, curves)


def _validated(run: Run) -> Points:
    """From before the first step on."""
    points = {float(line["step"]): float(line["psnr"]) for line in run.history if "psnr" in line}
    if run.before is not None:
        points = {0.0: run.before, **points}
    return tuple(sorted(points.items()))


def _sliced(run: Run, loss: str, width: int) -> Points:
    slices: dict[int, list[tuple[float, float]]] = {}
    for line in run.history:
        if loss in line and math.isfinite(line[loss]):
            slices.setdefault((int(line["step"]) - 1) // width, []).append((float(line["step"]), float(line[loss])))
    return tuple(
        (fmean(step for step, _ in found), fmean(value for _, value in found)) for _, found in sorted(slices.items())
    )


def _mean(curves: Sequence[Points]) -> Points:
    """Over the steps that all of them have."""
    shared = set.intersection(*({step for step, _ in points} for points in curves))
    by_step = [dict(points) for points in curves]
    return tuple((step, fmean(points[step] for points in by_step)) for step in sorted(shared)) or curves[0]
