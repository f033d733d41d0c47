"""What a machine can do at most, and that no row is above it."""

from __future__ import annotations

import pytest

from distill.networks import registry
from export.latency.measuring import profile
from export.latency.networks import NetworkEntry
from export.latency.page import html
from export.latency.row import Latency, Limit, Row, Subject, Work, counted_threads
from export.latency.timing import TimingProtocol
from export.machine import Limits, Reached
from export.to_onnx.peak import int8_gops

QUICK = TimingProtocol(warmup=1, minimum_runs=3, minimum_seconds=0.0)
SIZE = (8, 12)


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Peaks are measured in a moment: here none is believed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.machine._SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def network():
    return registry.find("vsrnet").build(window=3, widths=[4, 4], kernels=[3, 3, 3])


def test_limits_are_the_best_of_all_rounds():
    limits = Limits((1, 2), int8=int8_gops)
    limits.measure()
    limits.measure()
    one, two = limits.peaks()
    assert (one.threads, two.threads) == (1, 2)
    assert len(one.fp32_rounds) == len(two.fp32_rounds) == 2
    assert one.fp32_gflops == max(one.fp32_rounds)
    assert two.fp32_gflops == max(one.fp32_rounds + two.fp32_rounds), "more threads can do what fewer can"
    assert one.int8_gops is not None
    assert two.int8_gops is not None
    assert one.int8_gops > one.fp32_gflops / 4, "a kernel that no file is computed by"
    assert one.copy_gb_per_second > 0
    latency = Latency(10.0, None, None, 100.0, 10, 100, 3.0)
    row = Row(Subject("a", "onnx"), work=Work(1, 10**9), latency=latency, limit=Limit(400.0, "fp32"))
    assert row.share_of_peak == pytest.approx(0.5)


def test_a_limit_is_never_below_what_something_reached():
    limits = Limits((1, 2), int8=lambda threads: 100.0 * threads)
    limits.measure()
    kernels = limits.peaks()
    beyond = 2 * kernels[1].fp32_gflops
    one, two = limits.peaks(
        [Reached(1, "fp32", beyond, "a.onnx"), Reached(2, "fp32", 1e-3, "b.onnx"), Reached(2, "int8", 300.0, "c.onnx")]
    )
    assert (one.fp32_gflops, one.fp32_reached_by) == (two.fp32_gflops, two.fp32_reached_by) == (beyond, "a.onnx")
    assert (one.int8_gops, one.int8_reached_by) == (100.0, None), "what more threads reach is no limit of fewer"
    assert (two.int8_gops, two.int8_reached_by) == (300.0, "c.onnx")
    assert [peak.fp32_rounds for peak in (one, two)] == [peak.fp32_rounds for peak in kernels]
    assert [peak.fp32_reached_by for peak in kernels] == [None, None]


def test_a_row_faster_than_the_measuring_kernels_is_the_limit(network, monkeypatch):
    monkeypatch.setattr("export.machine._fp32", lambda: 1e-6)
    entries = [NetworkEntry(network, "vsrnet"), NetworkEntry(network, "vsrnet", streaming=True)]
    found = profile(entries, sizes=[SIZE], threads=(1, 2), protocol=QUICK)
    for count, peak in zip((1, 2), found.peaks, strict=True):
        rows = [row for row in found.rows if row.threads <= count]
        best = max(rows, key=lambda row: row.gflops)
        assert peak.fp32_gflops == best.gflops
        assert peak.fp32_reached_by == f"vsrnet, {best.subject.form}, 12x8, {counted_threads(best.threads)}"
        assert {row.limit.peak_reached_by for row in rows if row.threads == count} == {peak.fp32_reached_by}
    assert max(row.share_of_peak for row in found.rows) == 1
    assert f"GFLOP/s fp32 (reached by {found.peaks[0].fp32_reached_by})" in found.table()
    assert found.document("")["rows"][0]["peak_reached_by"] == found.peaks[0].fp32_reached_by
    text = html(found, "")
    assert f"reached by {found.peaks[0].fp32_reached_by}" in text
    assert "other work" not in text, "slow kernels are no sign of a busy machine"
