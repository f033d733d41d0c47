from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import torch

import export
from distill.errors import ConfigError, InputError
from distill.networks import registry
from export import formats
from export.formats import export as write
from export.formats import format_named, open_exported
from export.graphs.graph import streaming_graph, traced, windowed_graph
from export.graphs.workload import workload
from export.interfaces import Order
from export.latency.files import FileEntry, _Feed
from export.latency.measuring import DEFAULT_SIZE, profile
from export.latency.networks import NetworkEntry
from export.latency.row import (
    CONVERTED,
    FAILED,
    NOT_RUN,
    Absence,
    Fidelity,
    Latency,
    Limit,
    Row,
    Subject,
    Work,
)
from export.latency.table import table
from export.latency.timing import TimingProtocol
from tests.stand_ins.networks import Tiny

QUICK = TimingProtocol(warmup=1, minimum_runs=3, minimum_seconds=0.0)
KEYWORDS = {"window": 3, "widths": [4, 4], "kernels": [3, 3, 3]}
SIZE = (8, 12)


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Peaks are measured in a moment: here none is believed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.machine._SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def network():
    return registry.find("vsrnet").build(**KEYWORDS)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """One windowed and one streaming file of any size, and a windowed one of `SIZE`."""
    facts = {"network": "vsrnet", "keywords": json.dumps(KEYWORDS), "degradation": "bi", "provenance": "{}"}
    folder = tmp_path_factory.mktemp("onnx")
    paths = {}
    for name, streaming in (("windowed", False), ("streaming", True)):
        paths[name] = write(
            Order(network, facts, streaming=streaming), format_named("onnx"), folder / f"{name}.onnx"
        ).path
    model = onnx.load(paths["windowed"])
    told = next(each for each in model.metadata_props if each.key == "size_multiple")
    told.key, told.value = "sizes", "x".join(map(str, SIZE))
    paths["fixed"] = folder / "fixed.onnx"
    onnx.save(model, paths["fixed"])
    return paths


@pytest.fixture(scope="module")
def measured(network, files):
    entries = [
        FileEntry(files["windowed"], Fidelity(26.0, -0.2, "Y", ("conv1",))),
        FileEntry(files["streaming"]),
        NetworkEntry(network, "vsrnet"),
        NetworkEntry(network, "vsrnet", streaming=True),
    ]
    counted = []
    found = profile(
        entries,
        sizes=[SIZE],
        threads=(1, 2),
        protocol=QUICK,
        with_operators=True,
        sustained_seconds=0.05,
        progress=counted.append,
    )
    return found, counted


def test_a_row_for_each_entry_and_number_of_threads(files, measured):
    import onnxruntime

    found, counted = measured
    assert counted == [1] * 8 * (QUICK.warmup + QUICK.minimum_runs)
    forms = ["onnx fp32", "onnx fp32 streaming", "pytorch fp32", "pytorch fp32 streaming"]
    assert [(row.subject.form, row.threads) for row in found.rows] == [
        (form, count) for form in forms for count in (1, 2)
    ]
    for row in found.rows:
        assert (row.subject.size, row.subject.scale) == (SIZE, 4)
        assert (row.where, row.device) == ("host", found.machine.name)
        latency = row.latency
        assert (latency.warmup_runs, latency.runs, row.status) == (1, 3, "too short")
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
        assert row.cold_start.first_ms > 0
        assert latency.fps == pytest.approx(latency.runs / latency.duration_seconds)
        assert row.real_time[30] == pytest.approx(latency.fps / 30)
        peak = found.peaks[row.threads - 1]
        assert row.limit.peak_kind == "fp32"
        rate = 2 * row.work.macs / (latency.p50_ms / 1e3)
        assert row.share_of_peak == pytest.approx(rate / (peak.fp32_gflops * 1e9))
    for row in found.rows[:4]:
        path = files[Path(row.subject.entry).stem]
        ran, cold = row.execution, row.cold_start
        assert (ran.runtime, ran.runtime_version) == ("onnxruntime", onnxruntime.__version__)
        assert ran.unit_asked == ran.unit_got == "CPUExecutionProvider"
        assert row.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row.file.file_mb == path.stat().st_size / 1e6
        assert cold.load_ms > 0
        assert "onnxruntime" in cold.cold_process
        if sys.platform == "linux":
            assert 0 < cold.start_mb < cold.peak_mb < 1000, "torch was loaded too"
    assert {(row.file, row.cold_start.load_ms, row.cold_start.peak_mb) for row in found.rows[4:]} == {(None,) * 3}


def test_work_is_counted_of_what_runs(network, measured):
    rows = measured[0].rows
    windowed, streaming, eager, eager_streaming = (row.execution.input_shapes for row in rows[::2])
    assert windowed == {f"frame_{place}": [1, 3, *SIZE] for place in range(3)}
    assert windowed == eager
    assert streaming["frame"] == [1, 3, *SIZE]
    assert streaming == eager_streaming
    windowed, streaming, eager, eager_streaming = (row.work.macs for row in rows[::2])
    assert (windowed, streaming) == (eager, eager_streaming)
    assert 0 < streaming < windowed, "what windows share is done once"
    assert [windowed, streaming] == [
        workload(traced(graph(network, SIZE))).macs for graph in (windowed_graph, streaming_graph)
    ]
    assert {row.work.parameters for row in rows} == {rows[0].work.parameters}

    (tiny,) = profile([NetworkEntry(Tiny(), "tiny")], sizes=[(8, 8)], threads=(1,), protocol=QUICK).rows
    assert tiny.work == Work(9 * 48 * 9 + 48, 9 * 48 * 9 * 64)
    assert tiny.gflops == pytest.approx(2 * tiny.work.macs / tiny.p50_ms / 1e6)


def test_streaming_feeds_its_memories_back(files):
    exported = open_exported(files["streaming"])
    feed = _Feed(exported, SIZE)
    assert not feed.inputs["sums"].any()
    frame = torch.from_numpy(feed.inputs["frame"][0])
    expected = list(exported.inputs_of([frame] * 5))
    feed()
    feed()
    assert feed.inputs["sums"].any()
    for name, array in feed.inputs.items():
        np.testing.assert_array_equal(array, expected[2][name])


def test_sizes_are_the_files_own_where_none_is_given(files):
    found = profile([FileEntry(files["fixed"]), FileEntry(files["windowed"])], threads=(1,), protocol=QUICK)
    assert [row.subject.size for row in found.rows] == [SIZE, SIZE]
    assert DEFAULT_SIZE == (120, 180)


def test_a_size_that_a_file_does_not_take_is_a_row_without_times(files):
    entries = [FileEntry(files["fixed"]), FileEntry(files["windowed"])]
    absent, *timed = profile(entries, sizes=[(8, 8)], threads=(1, 2), protocol=QUICK).rows
    assert (absent.status, absent.threads, absent.p50_ms) == (NOT_RUN, None, None)
    assert "12x8 only" in absent.absence.reason
    assert [row.threads for row in timed] == [1, 2]


@pytest.fixture
def take_for(monkeypatch):
    """Makes files those of another format."""
    return lambda name: monkeypatch.setattr(formats, "FORMATS", (f"tests.stand_ins.disguised_onnx:{name}",))


def test_core_ml_is_not_timed_off_a_mac(files, monkeypatch, take_for):
    monkeypatch.setattr(sys, "platform", "linux")
    take_for("Apple")
    (row,) = profile([FileEntry(files["windowed"])], sizes=[SIZE], threads=(1, 2), protocol=QUICK).rows
    assert (row.status, row.subject.precision, row.latency) == (CONVERTED, "fp32", None)
    assert row.work.macs > 0
    assert "Mac" in row.absence.reason


def test_a_runtime_that_is_not_installed_is_a_row_without_times(files, take_for):
    take_for("Absent")
    (row,) = profile([FileEntry(files["windowed"])], sizes=[SIZE], threads=(1, 2), protocol=QUICK).rows
    assert row.absence == Absence(NOT_RUN, 'other needs an extra: pip install "distill-vsr[other]".')


def test_the_cold_start_of_other_formats_goes_through_their_opener(files, take_for):
    take_for("Other")
    (row,) = profile([FileEntry(files["streaming"])], sizes=[SIZE], threads=(1,), protocol=QUICK).rows
    assert row.cold_start.load_ms > 0
    assert row.cold_start.first_ms > 0
    assert "opening a other file" in row.cold_start.cold_process


def test_a_fresh_process_that_fails_is_a_row_without_times(files, monkeypatch):
    monkeypatch.setattr("export.latency.files.cold_start.__file__", "/nowhere/runtime.py")
    (row, _) = profile([FileEntry(files["windowed"])], sizes=[SIZE], threads=(1, 2), protocol=QUICK).rows
    assert row.status == FAILED
    assert "fresh process" in row.absence.reason
    assert "\n" not in row.absence.reason


def test_a_compiler_that_fails_is_a_row_without_times(monkeypatch):
    def broken(*_, **__):
        def run(*_):
            raise RuntimeError("no C++ compiler\nfound\n\nSet this and that")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    (row,) = profile([NetworkEntry(Tiny(), "tiny", compiled=True)], sizes=[SIZE], threads=(1,), protocol=QUICK).rows
    assert (row.subject.form, row.absence) == ("torch.compile fp32", Absence(FAILED, "no C++ compiler found"))


@pytest.mark.slow
def test_torch_compile_by_the_same_protocol():
    entries = [NetworkEntry(Tiny(), "tiny", streaming=streaming, compiled=True) for streaming in (False, True)]
    rows = profile(entries, sizes=[SIZE], threads=(1,), protocol=QUICK).rows
    assert [(row.subject.format, row.subject.mode, row.latency.runs, row.absence) for row in rows] == [
        ("torch.compile", "windowed", 3, None),
        ("torch.compile", "streaming", 3, None),
    ]
    assert all(row.cold_start.first_ms for row in rows)


def test_the_network_and_the_process_are_left_as_they_were(network):
    network.train()
    threads = torch.get_num_threads()
    profile([NetworkEntry(network, "vsrnet")], sizes=[SIZE], threads=(threads + 1,), protocol=QUICK)
    assert network.training
    assert torch.get_num_threads() == threads


def test_operators_are_those_of_the_file(files, measured):
    found = measured[0].operators
    assert [(each.entry, each.threads, each.size) for each in found] == [
        ("windowed.onnx", 1, SIZE),
        ("streaming.onnx", 1, SIZE),
    ]
    for each in found:
        convolutions = [node for node in onnx.load(files[Path(each.entry).stem]).graph.node if node.op_type == "Conv"]
        counts = {kind.type: kind.count for kind in each.types}
        assert counts["Conv"] == len(convolutions)
        assert sum(kind.share for kind in each.types) == pytest.approx(1)
        assert sum(kind.ms for kind in each.types) == pytest.approx(each.ms)
        assert len(each.nodes) <= 10
        assert [node.ms for node in each.nodes] == sorted((node.ms for node in each.nodes), reverse=True)


def test_a_long_run_of_each_entry_on_the_most_threads(measured):
    found = measured[0].sustained
    assert [each.form for each in found] == list(dict.fromkeys(row.subject.form for row in measured[0].rows))
    for each in found:
        assert (each.threads, each.seconds, len(each.fps)) == (2, 0.05, 10)
        assert each.last_over_first == each.fps[-1] / each.fps[0]


def test_the_document_keeps_to_its_schema(measured):
    schema = json.loads((Path(export.__file__).parent / "latency" / "profile_schema.json").read_text())
    latency = Latency(3.0, None, None, 333.3, 10, 100, 3.0)
    subject = Subject("a.onnx", "onnx", "int8", "streaming", SIZE, 4)
    phone = Row(subject, 4, "phone", "Some phone, Android 15", latency=latency)
    gone = Row(Subject("b.onnx", "onnx"), absence=Absence(NOT_RUN, "so"))
    found = measured[0].with_rows([phone, gone])
    document = json.loads(json.dumps(found.document("distill profile a.onnx"), allow_nan=False))
    check = jsonschema.Draft202012Validator(schema)
    assert list(check.iter_errors(document)) == []
    assert list(undescribed(schema)) == []
    assert document["rows"][0]["fidelity"]["blamed"] == ["conv1"]
    assert document["rows"][-2]["where"] == "phone"
    for each in (*document["rows"], *document["peaks"]):
        for name in [name for name in each if name.endswith("reached_by")]:
            del each[name]
    assert list(check.iter_errors(document)) == [], "documents from before stay valid"
    broken = document | {"date": 3, "more": 1}
    del broken["machine"]["os"]
    kinds = sorted(fault.validator for fault in check.iter_errors(broken))
    assert kinds == ["additionalProperties", "required", "type"], "the check itself finds what is wrong"


def undescribed(schema, place="$"):
    """Properties without words."""
    for key, value in schema.items():
        if key == "properties":
            yield from (f"{place}.{name}" for name, each in value.items() if not each.get("description"))
        if isinstance(value, dict):
            yield from undescribed(value, f"{place}.{key}")


def test_what_is_said_of_phones(measured):
    found = measured[0]
    assert found.phones == "Phones: not run. All figures are host latency, not a phone's."
    assert found.table().startswith(found.phones)
    other = found.with_rows([Row(Subject("a.onnx", "onnx"), where="phone", device="Some phone")])
    assert "not run" not in other.phones


def test_the_table(measured):
    latency = Latency(9.96, 9.96, 9.96, 100.0, 10, 100, 3.0)
    windowed, _, streaming, *_ = measured[0].rows
    rows = [
        dataclasses.replace(windowed, latency=latency, work=Work(1, 2 * 10**9), limit=Limit(1000.0, "fp32")),
        dataclasses.replace(streaming, absence=Absence(NOT_RUN, "So it is."), threads=None, latency=None),
    ]
    _, caption, head, first, second, _, work_head, work, *_, reason, convention = table(rows).splitlines()
    assert caption == "12x8 -> 48x32, one restored frame a run"
    columns = "format|precision|status|MB|PSNR|change vs PyTorch|load ms|first ms|p50|p90|p99|fps|peak MB|units"
    cells = [[cell.strip() for cell in line.split("|")] for line in (head, first, second, work_head, work)]
    assert cells[0] == columns.split("|")
    assert cells[1][:3] == ["onnx", "fp32", "ok"]
    assert (cells[1][4], cells[1][5], cells[1][8], cells[1][-1]) == ("26.00", "-0.200", "10.0", "CPU, 1 thread")
    assert cells[2][:3] == ["onnx streaming", "fp32", "not run"]
    assert cells[2][8] == "-"
    assert cells[3][3:6] == ["GMAC", "GFLOP/s", "of limit"]
    assert cells[4][3:6] == ["2.00", "401.6", "40%"]
    assert (reason, convention) == ("streaming.onnx: not run. So it is.", "PSNR: Y")
    other = dataclasses.replace(rows[0].subject, entry="other.onnx")
    named = table([rows[0], dataclasses.replace(rows[0], subject=other)])
    assert "windowed.onnx | onnx" in named
    assert "other.onnx    | onnx" in named


def test_wrong_settings(files, tmp_path):
    entry = FileEntry(files["windowed"])
    with pytest.raises(ConfigError, match="nothing to profile"):
        profile([])
    with pytest.raises(ConfigError, match="thread counts are \\[0\\]"):
        profile([entry], threads=(0,))
    with pytest.raises(ConfigError, match="size is 8x0"):
        profile([entry], sizes=[(0, 8)])
    with pytest.raises(ConfigError, match="sustained run of 0 seconds"):
        profile([entry], sustained_seconds=0)
    (tmp_path / "text.onnx").write_text("not a model")
    for name, reason in (
        ("text.onnx", "is not an ONNX model"),
        ("none.onnx", "does not exist"),
        ("a.txt", "names end"),
    ):
        with pytest.raises(InputError, match=reason):
            profile([entry, FileEntry(tmp_path / name)])
