from __future__ import annotations

import dataclasses
import hashlib
import json
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckFailed, ConfigError, InputError
from distill.interfaces import Upsampled, WindowNetwork
from export.latency import document, profile_onnx, profile_torch, table
from export.protocol import Protocol, Timing, take_turns
from export.to_onnx import export_onnx

QUICK = {"minimum_runs": 3, "minimum_seconds": 0.0, "warmup": 1}


class Tiny(WindowNetwork):
    window, lr_channels, hr_channels = 3, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(9, 48, 3, padding=1)

    def reconstruct(self, window: Tensor) -> Upsampled:
        frame = functional.pixel_shuffle(self.conv(window.flatten(1, 2)), 4)
        return Upsampled(frame, frame, window[:, 1])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    metadata = {"network": "tiny", "keywords": "{}", "degradation": "BD", "provenance": "{}"}
    return export_onnx(Tiny(), tmp_path_factory.mktemp("onnx") / "tiny.onnx", metadata=metadata).path


@pytest.fixture(scope="module")
def rows(exported):
    return profile_onnx(exported, size=(10, 16), **QUICK)


def test_a_row_for_each_number_of_threads(exported, rows):
    import onnxruntime

    assert [row.threads for row in rows] == [1, 2]
    for row in rows:
        assert (row.form, row.precision, row.runtime) == ("onnx", "fp32", "onnxruntime")
        assert row.runtime_version == onnxruntime.__version__
        assert row.unit_asked == row.unit_got == "CPUExecutionProvider"
        assert row.input_shape == (1, 3, 3, 12, 16)
        assert row.sha256 == hashlib.sha256(exported.read_bytes()).hexdigest()
        assert row.file_mb == exported.stat().st_size / 1e6
        assert (row.warmup_runs, row.runs) == (1, 3)
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms
        assert row.fps > 0
        assert row.load_ms > 0
        assert row.first_ms > 0
        if sys.platform == "linux":
            assert 0 < row.start_mb < row.peak_mb


def test_a_short_measurement_says_so(rows):
    assert not any(row.query_met or row.duration_met or row.valid for row in rows)


@pytest.mark.parametrize(
    ("runs", "seconds", "warmup", "flags"),
    [
        (100, 3.0, 10, (True, True, True)),
        (99, 3.0, 10, (True, False, False)),
        (100, 2.9, 10, (False, True, False)),
        (100, 3.0, 9, (True, True, False)),
    ],
)
def test_flags(rows, runs, seconds, warmup, flags):
    row = dataclasses.replace(rows[0], runs=runs, duration_seconds=seconds, warmup_runs=warmup)
    (twin,) = document([row])["rows"]
    assert (twin["isMinDurationMet"], twin["isMinQueryMet"], twin["isResultValid"]) == flags


def test_the_document_is_json_and_says_host(rows):
    twin = json.loads(json.dumps(document(rows)))
    assert twin["latency"] == "host"
    assert twin["phone"] == "not run"
    assert twin["device"]["processor"]
    assert twin["device"]["os"]
    first = twin["rows"][0]
    assert first["input_shape"] == [1, 3, 3, 12, 16]
    assert {
        "unit_asked",
        "unit_got",
        "threads",
        "precision",
        "sha256",
        "runs",
        "duration_seconds",
        "peak_mb",
    } <= first.keys()


def test_pytorch_by_the_same_protocol(exported):
    network, threads = Tiny(), torch.get_num_threads()
    rows = profile_torch(network, size=(8, 8), **QUICK)
    assert torch.get_num_threads() == threads
    assert network.training
    assert [(row.form, row.threads, row.runs) for row in rows] == [("pytorch", 1, 3), ("pytorch", 2, 3)]
    assert {(row.file_mb, row.sha256, row.load_ms, row.peak_mb) for row in rows} == {(None,) * 4}
    assert {row.input_shape for row in rows} == {(1, 3, 3, 8, 8)}


def test_the_table(rows):
    eager = dataclasses.replace(rows[0], form="pytorch", file_mb=None, sha256=None, load_ms=None, peak_mb=None)
    long = dataclasses.replace(rows[1], runs=100, duration_seconds=3.0, warmup_runs=10)
    caption, head, *lines = table([rows[0], long, eager]).splitlines()
    assert caption.startswith("Host latency, not a phone's: ")
    cells = [[cell.strip() for cell in line.split("|")] for line in (head, *lines)]
    columns = "format|precision|status|MB|load ms|first ms|p50|p90|p99|fps|peak MB|units"
    assert cells[0] == columns.split("|")
    assert [row[0] for row in cells[1:]] == ["onnx", "onnx", "pytorch", "onnx"]
    assert [row[2] for row in cells[1:]] == ["too short", "ok", "too short", "not run"]
    assert [row[-1] for row in cells[1:]] == ["CPU, 1 thread", "CPU, 2 threads", "CPU, 1 thread", "phone"]
    assert cells[3][3] == cells[3][4] == cells[3][10] == "-"
    assert cells[4][3] == cells[1][3]
    assert cells[4][4:11] == ["-"] * 7


def test_settings_take_turns():
    order = []

    def run(name, seconds):
        return lambda: order.append(name) or seconds

    protocol = Protocol(warmup=1, minimum_runs=2, minimum_seconds=4.0, budget_seconds=1000.0)
    slow, fast = take_turns([run("slow", 3.0), run("fast", 1.0)], protocol)
    assert "".join(name[0] for name in order) == "sfsfsfff"
    assert (slow.warmup_runs, slow.samples, slow.seconds) == (1, [3.0, 3.0], 6.0)
    assert (fast.warmup_runs, fast.samples, fast.seconds) == (1, [1.0] * 4, 4.0)


def test_the_budget_ends_a_slow_row():
    protocol = Protocol(warmup=10, minimum_runs=100, minimum_seconds=3.0, budget_seconds=60.0)
    (timing,) = take_turns([lambda: 20.0], protocol)
    assert (timing.warmup_runs, len(timing.samples)) == (2, 1)
    (timing,) = take_turns([lambda: 1.0], protocol)
    assert (timing.warmup_runs, len(timing.samples)) == (10, 50)
    (timing,) = take_turns([lambda: 500.0], protocol)
    assert (timing.warmup_runs, len(timing.samples)) == (1, 1)
    assert not Timing().finished(Protocol(0, 0, 0.0, 0.0)), "a row has at least one run"


def test_wrong_settings(exported, tmp_path):
    with pytest.raises(ConfigError, match="thread counts"):
        profile_onnx(exported, threads=())
    with pytest.raises(ConfigError, match="thread counts are \\[0\\]"):
        profile_torch(Tiny(), threads=(0,))
    with pytest.raises(ConfigError, match="size is 8x0"):
        profile_onnx(exported, size=(8, 0))
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InputError, match="is not an ONNX model"):
        profile_onnx(tmp_path / "text.onnx")


def test_a_fresh_process_that_fails_is_reported(exported, monkeypatch):
    monkeypatch.setattr("export.latency.runtime.__file__", "/nowhere/runtime.py")
    with pytest.raises(CheckFailed, match="A fresh process could not load") as caught:
        profile_onnx(exported, size=(8, 8), **QUICK)
    assert "\n" not in str(caught.value)
