"""What a row of a latency report derives from what was measured."""

from __future__ import annotations

import dataclasses

import pytest

from export.latency.row import FAILED, Absence, Fidelity, Latency, Row, Subject, latency_of
from export.latency.timing import Timing


@pytest.mark.parametrize(
    ("runs", "seconds", "warmup", "flags"),
    [
        (100, 3.0, 10, (True, True, True)),
        (99, 3.0, 10, (True, False, False)),
        (100, 2.9, 10, (False, True, False)),
        (100, 3.0, 9, (True, True, False)),
    ],
)
def test_flags(runs, seconds, warmup, flags):
    row = Row(Subject("a", "onnx"), latency=Latency(1.0, 1.0, 1.0, 1.0, warmup, runs, seconds))
    twin = row.document()
    assert (twin["isMinDurationMet"], twin["isMinQueryMet"], twin["isResultValid"]) == flags
    assert twin["status"] == ("ok" if all(flags) else "too short")
    assert not dataclasses.replace(row, absence=Absence(FAILED, "so")).valid


def test_percentiles_are_runs_that_happened():
    found = latency_of(Timing(10, 1.0, [0.001 * each for each in range(1, 101)], 5.05))
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((50.0, 90.0, 99.0))
    assert (found.fps, found.runs, found.warmup_runs) == (100 / 5.05, 100, 10)


def test_the_challenge_score_is_for_its_size_alone():
    subject, latency = Subject("a", "onnx", size=(180, 320), scale=4), Latency(10.0, None, None, 100.0, 10, 100, 3.0)
    row = Row(subject, latency=latency, fidelity=Fidelity(27.79, None, "RGB"))
    assert row.mai_2025_score == pytest.approx(2**1.58 / 10)
    assert dataclasses.replace(row, fidelity=None).mai_2025_score is None
    turned = dataclasses.replace(subject, size=(320, 180))
    assert dataclasses.replace(row, subject=turned).mai_2025_score is None
    assert dataclasses.replace(row, latency=None).mai_2025_score is None
