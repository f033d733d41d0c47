"""How runs are timed."""

from __future__ import annotations

import pytest

from export.latency.timing import Timing, TimingProtocol, sustained, take_turns


def test_entries_take_turns_in_an_order_of_each_round():
    order = []

    def run(name, seconds):
        return lambda: order.append(name) or seconds

    protocol = TimingProtocol(warmup=1, minimum_runs=20, minimum_seconds=30.0, budget_seconds=1000.0)
    slow, fast = take_turns([run("s", 3.0), run("f", 1.0)], protocol)
    rounds = {"".join(order[place : place + 2]) for place in range(0, 42, 2)}
    assert rounds == {"sf", "fs"}
    assert order[42:] == ["f"] * 10
    assert (slow.warmup_runs, slow.samples, slow.seconds) == (1, [3.0] * 20, 60.0)
    assert (fast.warmup_runs, fast.samples, fast.seconds) == (1, [1.0] * 30, 30.0)


def test_the_budget_ends_a_slow_row():
    protocol = TimingProtocol(warmup=10, minimum_runs=100, minimum_seconds=3.0, budget_seconds=60.0)
    (timing,) = take_turns([lambda: 20.0], protocol)
    assert (timing.warmup_runs, len(timing.samples)) == (2, 1)
    (timing,) = take_turns([lambda: 1.0], protocol)
    assert (timing.warmup_runs, len(timing.samples)) == (10, 50)
    (timing,) = take_turns([lambda: 500.0], protocol)
    assert (timing.warmup_runs, len(timing.samples)) == (1, 1)
    assert not Timing().finished(TimingProtocol(0, 0, 0.0, 0.0)), "a row has at least one run"


def test_a_long_run_is_told_in_slices(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("export.latency.timing.time.perf_counter", lambda: now[0])

    def run():  # 4 a second for 5 s, then 2 a second
        now[0] += 0.25 if now[0] < 5 else 0.5

    assert sustained(run, 10.0) == pytest.approx([4.0] * 5 + [2.0] * 5)
    now[0] = 0.0
    assert sustained(run, 0.1) == pytest.approx([4.0] * 10), "a run longer than a slice counts by its share"
