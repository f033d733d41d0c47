"""Did a method help? Differences to the controls, paired over seeds and clips, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distill.comparison.intervals import Interval, over_seeds, over_seeds_and_clips
from distill.comparison.results import AFTER, Comparison, Run

__all__ = ["METRICS", "Answer", "Metric", "Table", "Verdict", "answers", "present_metrics", "signed", "tables"]

Verdict = Literal["yes", "no", "not shown"]


@dataclass(frozen=True)
class Metric:
    """A figure of a clip.

    Attributes:
        key: where it stands in an evaluation's JSON, dotted.
        name: for people.
        unit: for people, "" where it has none.
        digits: that are shown after the point.
        higher_is_better: or lower.
        note: what it says and what it does not.
    """

    key: str
    name: str
    unit: str
    digits: int
    higher_is_better: bool = True
    note: str = ""

    def of(self, figures: Mapping[str, Any]) -> float | None:
        """Its value in the JSON of a clip, None where it was not measured."""
        value: Any = figures
        for part in self.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    def told(self, value: float) -> str:
        """The value as tables have it."""
        return f"{value:.{self.digits}f}"

    def measured(self, value: float) -> str:
        """A difference with its sign and unit."""
        return f"{signed(value, self.digits)} {self.unit}".rstrip()


METRICS = (
    Metric("psnr", "PSNR", "dB", 3),
    Metric("ssim", "SSIM", "", 4),
    Metric("given.psnr", "PSNR of given frames", "dB", 3, note="frames whose low resolution the network was given"),
    Metric("between.psnr", "PSNR of in-between frames", "dB", 3, note="frames that the network inserted"),
    Metric("lpips", "LPIPS", "", 4, higher_is_better=False, note="perceptual distance; lower is better"),
    Metric(
        "tof",
        "tOF",
        "pixels",
        3,
        higher_is_better=False,
        note="mean difference between the optical flows of output and truth; lower is better",
    ),
    Metric(
        "warping",
        "Warping error",
        "",
        6,
        higher_is_better=False,
        note="change along the truth's flow; lower is steadier, and a blurred output is steadier than the truth itself",
    ),
)
"""In the order of the page; those that were not measured are left out. The first decides."""


@dataclass(frozen=True)
class Answer:
    """One method against one control by one metric.

    Attributes:
        method: that was tried.
        against: the control.
        metric: key of the metric.
        verdict: "yes", "no" (it hurt) or "not shown".
        mean: of all differences, method less control.
        interval: the wider of the two below, by which the verdict was given; None for one seed.
        over_seeds: 95 % for these clips.
        over_seeds_and_clips: 95 % for clips like these.
        seeds: that both have finished at.
        clips: that were compared.
        differences: seeds x clips.
        better: how many of these are in the method's favour.
    """

    method: str
    against: str
    metric: str
    verdict: Verdict
    mean: float
    interval: Interval | None
    over_seeds: Interval | None
    over_seeds_and_clips: Interval | None
    seeds: tuple[int, ...]
    clips: tuple[str, ...]
    differences: tuple[tuple[float, ...], ...]
    better: int

    @property
    def told_verdict(self) -> str:
        """For people."""
        if self.verdict == "not shown":
            return "not shown (one seed)" if self.interval is None else "not shown"
        return "yes" if self.verdict == "yes" else "no, it hurt"

    def sentence(self, metric: Metric) -> str:
        """The figures behind the verdict."""
        pairs = len(self.seeds) * len(self.clips)
        text = f"{metric.measured(self.mean)} {metric.name}"
        if self.interval is not None:
            ends = (signed(end, metric.digits) for end in (self.interval.low, self.interval.high))
            text += f", 95 % interval {' to '.join(ends)}"
        scope = f"{_counted(len(self.seeds), 'seed')} × {_counted(len(self.clips), 'clip')}"
        return f"{text}; better in {self.better} of {pairs} pairs ({scope})"


@dataclass(frozen=True)
class Table:
    """One metric of every contender on every clip.

    Attributes:
        metric: key of the metric.
        clips: that have it.
        rows: clip, or "average", -> contender -> mean over its seeds; contenders are bicubic, the methods
            and the teachers, as far as they have it.
        to_none: clip, or "average", -> method -> mean difference to `none` at the same seeds.
        by_seed: seed -> method -> mean over the clips.
    """

    metric: str
    clips: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]
    to_none: Mapping[str, Mapping[str, float]]
    by_seed: Mapping[int, Mapping[str, float]]


def present_metrics(comparison: Comparison) -> dict[str, Metric]:
    """The metrics that were measured on at least one clip in every run."""
    return {metric.key: metric for metric in METRICS if _clips(comparison, metric)}


def answers(comparison: Comparison) -> list[Answer]:
    """Every method against every control it can be measured against, by every metric that was measured."""
    return [
        _answer(comparison, method, control, metric)
        for metric in present_metrics(comparison).values()
        for method in comparison.methods
        for control in comparison.controls_of(method)
    ]


def tables(comparison: Comparison) -> list[Table]:
    """One for every metric that was measured."""
    return [_table(comparison, metric) for metric in present_metrics(comparison).values()]


def signed(value: float, digits: int) -> str:
    """With its sign, a true minus, and as many more digits as it takes to tell it from zero."""
    text = f"{value:+.{digits}f}" if value == 0 or abs(value) >= 0.5 * 10**-digits else f"{value:+.1g}"
    return text[1:] if value == 0 else text.replace("-", "\u2212")


def _answer(comparison: Comparison, method: str, control: str, metric: Metric) -> Answer:
    seeds, clips = comparison.seeds_of(method, control), _clips(comparison, metric)
    differences = _grid(comparison, method, seeds, clips, metric) - _grid(comparison, control, seeds, clips, metric)
    intervals = over_seeds(differences), over_seeds_and_clips(differences)
    wider = max((each for each in intervals if each is not None), key=lambda each: each.width, default=None)
    favour = differences if metric.higher_is_better else -differences
    return Answer(
        method,
        control,
        metric.key,
        _verdict(wider, metric.higher_is_better),
        float(differences.mean()),
        wider,
        *intervals,
        seeds,
        clips,
        tuple(tuple(float(value) for value in row) for row in differences),
        int((favour > 0).sum()),
    )


def _verdict(interval: Interval | None, higher_is_better: bool) -> Verdict:
    if interval is None or interval.low <= 0 <= interval.high:
        return "not shown"
    return "yes" if (interval.low > 0) == higher_is_better else "no"


def _clips(comparison: Comparison, metric: Metric) -> tuple[str, ...]:
    """Clips for which every run has the metric."""
    runs = comparison.runs.values()
    return tuple(clip for clip in comparison.clips if all(_value(run, clip, metric) is not None for run in runs))


def _value(run: Run, clip: str, metric: Metric) -> float | None:
    return metric.of(run.judged[AFTER]["clips"][clip])


def _grid(
    comparison: Comparison, method: str, seeds: tuple[int, ...], clips: tuple[str, ...], metric: Metric
) -> NDArray[np.float64]:
    """The figures, (seeds, clips)."""
    figures = [[_value(comparison.runs[method, seed], clip, metric) for clip in clips] for seed in seeds]
    return np.array(figures, dtype=np.float64)


def _table(comparison: Comparison, metric: Metric) -> Table:
    clips = _clips(comparison, metric)
    columns: dict[str, list[float]] = {}  # contender -> one figure a clip
    to_none: dict[str, list[float]] = {}
    contenders = comparison.contenders()
    if "bicubic" in contenders:
        _add(columns, "bicubic", contenders.pop("bicubic"), clips, metric)
    for method in comparison.methods:
        columns[method] = _grid(comparison, method, comparison.seeds_of(method), clips, metric).mean(0).tolist()
        for none in comparison.controls_of(method)[:1]:
            if comparison.control(none) == "none":
                seeds = comparison.seeds_of(method, none)
                ours, alone = (_grid(comparison, each, seeds, clips, metric) for each in (method, none))
                to_none[method] = (ours - alone).mean(0).tolist()
    for name, judged in contenders.items():
        _add(columns, name, judged, clips, metric)
    by_seed = {
        seed: {
            method: float(_grid(comparison, method, (seed,), clips, metric).mean())
            for method in comparison.methods
            if (method, seed) in comparison.runs
        }
        for seed in comparison.seeds
    }
    return Table(metric.key, clips, _rows(columns, clips), _rows(to_none, clips), by_seed)


def _add(
    columns: dict[str, list[float]],
    name: str,
    judged: Mapping[str, Any],
    clips: tuple[str, ...],
    metric: Metric,
) -> None:
    figures = [metric.of(judged["clips"].get(clip, {})) for clip in clips]
    if all(figure is not None for figure in figures):
        columns[name] = [figure for figure in figures if figure is not None]


def _rows(columns: Mapping[str, list[float]], clips: tuple[str, ...]) -> dict[str, dict[str, float]]:
    rows = {clip: {name: figures[place] for name, figures in columns.items()} for place, clip in enumerate(clips)}
    return {**rows, "average": {name: fmean(figures) for name, figures in columns.items()}}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
