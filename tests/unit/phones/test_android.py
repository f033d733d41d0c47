from __future__ import annotations

import json
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from distill.cli import main
from distill.errors import CheckFailed, ConfigError, InputError
from distill.networks import registry
from export.formats import export, format_named
from export.interfaces import Order
from export.latency.row import CONVERTED, ColdStart, Latency, Subject
from export.latency.timing import TimingProtocol
from export.phones import android
from export.phones.adb import Adb, attached, find_adb, phone_behind
from export.phones.android import profile_android
from export.phones.benchmarks import Model, benchmark_for, perf_test_summary
from tests.stand_ins.android import ARM64_PROGRAM, Daemon, Phone, install_client, recorded
from tests.stand_ins.networks import METADATA

READY = "SERIAL42               device usb:1-1 product:maker model:Model_7 device:seven transport_id:1"
QUICK = TimingProtocol(warmup=3, minimum_runs=20, minimum_seconds=2.0, budget_seconds=60.0)
PERF_TEST = "perf_test_vivo_x300.txt"


@pytest.fixture
def student(tmp_path):
    """A streaming file of free size, such as `distill export` writes."""
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inputs = [
        value("frame", kind, [1, 3, "height", "width"]),
        value("last", kind, [1, 3, "4*height", "4*width"]),
    ]
    outputs = [value("restored", kind, None), value("next_last", kind, None)]
    nodes = [
        onnx.helper.make_node("Relu", ["frame"], ["restored"]),
        onnx.helper.make_node("Relu", ["last"], ["next_last"]),
    ]
    graph = onnx.helper.make_graph(nodes, "student", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    facts = {"scale": "4", "window": "5", "mode": "streaming", "precision": "fp32", "size_multiple": "4"}
    onnx.helper.set_model_props(model, facts)
    path = tmp_path / "my student.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def program(tmp_path):
    """An ARM program in name only, with a library beside it that must go along, and one that must not."""
    build = tmp_path / "build"
    build.mkdir()
    (build / "onnxruntime_perf_test").write_bytes(ARM64_PROGRAM)
    (build / "libonnxruntime.so").write_bytes(b"library")
    (build / "libother.so").write_bytes(b"library")
    return build / "onnxruntime_perf_test"


@pytest.fixture
def phone(tmp_path):
    return Phone(tmp_path / "phone").answer(recorded(PERF_TEST), "0.05 0.25")


@pytest.fixture
def adb(tmp_path, phone, monkeypatch):
    """The folder of a stand-in client, alone in PATH."""
    client = install_client(tmp_path / "client", phone, READY)
    monkeypatch.setenv("PATH", str(client.parent))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    return client.parent


def check_perf_test(runs, phone, student):
    """Two numbers of threads, timed on the stand-in phone."""
    assert [run.threads for run in runs] == [1, 2]
    for run in runs:
        figures, latency, cold = run.figures, run.figures.latency, run.figures.cold_start
        # the slow first three are not counted; 2 s at the recorded pace of 98.962 ms are 21 runs
        assert (latency.warmup_runs, latency.runs) == (3, 21)
        assert latency.p50_ms == pytest.approx(50.013, abs=1e-3)
        assert latency.p90_ms == pytest.approx(50.021, abs=1e-3)
        assert latency.p99_ms == pytest.approx(50.023, abs=1e-3)
        assert latency.fps == pytest.approx(1 / 0.050013)
        assert latency.duration_seconds == pytest.approx(21 * 0.050013)
        assert (cold.load_ms, cold.first_ms) == pytest.approx((217.932, 196))
        assert cold.peak_mb == pytest.approx(271.122432)
        assert figures.unit_got == "CPUExecutionProvider"
        assert run.output.count("Session creation time cost") == 2
    calls = phone.calls()
    settings = ["-e", "cpu", "-I", "-S", "1", "-x", "2", "-m", "times"]
    # 10x18 is padded to 12x20, as ExportedNetwork pads it
    sizes = ["4*height:48", "4*width:80", "height:12", "width:20"]
    settings += [word for each in sizes for word in ("-f", each)]
    assert calls[2] == ["onnxruntime_perf_test", *settings, "-r", "3", student.name, "begun-2.csv"]
    assert calls[3] == ["onnxruntime_perf_test", *settings, "-r", "24", student.name, "runs-2.csv"]
    assert len(calls) == 4
    assert phone.left() == []


def test_the_whole_way_with_a_stand_in_client(adb, phone, student, program):
    runs = profile_android(student, program, size=(10, 18), threads=(1, 2), protocol=QUICK)
    check_perf_test(runs, phone, student)
    asked = (adb / "asked").read_text()
    assert "libonnxruntime.so" in asked
    assert "libother.so" not in asked


def test_a_row_for_the_report(adb, student, program):
    (run,) = profile_android(student, program, size=(10, 18), threads=(4,), protocol=QUICK)
    row = run.row()
    assert (row.where, row.threads, row.status) == ("phone", 4, "too short")
    assert row.device == "Maker Model 7 (Chipmaker CM1234), Android 15, arm64-v8a, 8 cores"
    assert row.subject == Subject(student.name, "onnx", "fp32", "streaming", (12, 20), 4, 1)
    assert row.execution.input_shapes == {"frame": [1, 3, 12, 20], "last": [1, 3, 48, 80]}
    assert row.execution.unit_asked == row.execution.unit_got == "CPUExecutionProvider"
    assert (row.latency, row.cold_start) == (run.figures.latency, run.figures.cold_start)
    assert row.cold_start.cold_process == "onnxruntime_perf_test"
    assert row.latency.runs == 21
    assert "SERIAL42" not in str(row) + str(run.phone)


def test_a_slow_network_stays_in_the_budget(adb, phone, student, program):
    protocol = TimingProtocol(warmup=2, minimum_runs=100, minimum_seconds=3, budget_seconds=0.5)
    (run,) = profile_android(student, program, threads=(1,), protocol=protocol)
    assert run.figures.latency.runs == 5  # of 98.962 ms in half a second
    assert phone.calls()[1][-4:-2] == ["-r", "7"]


def test_tflite(adb, phone, tmp_path):
    phone.answer(recorded("benchmark_model_delegate.txt"))
    (phone.state / "seconds").unlink()
    model, program = tmp_path / "student.tflite", tmp_path / "benchmark_model"
    model.write_bytes(b"model")
    program.write_bytes(ARM64_PROGRAM)
    (run,) = profile_android(model, program, threads=(2,))
    flags = ["--num_threads=2", "--warmup_runs=10", "--warmup_min_secs=0", "--num_runs=100", "--min_secs=3.0"]
    assert phone.calls() == [["benchmark_model", "--graph=student.tflite", *flags, "--max_secs=120.0"]]
    row = run.row()
    ran, cold, latency = row.execution, row.cold_start, row.latency
    assert (row.subject.format, ran.runtime, ran.unit_asked) == ("litert", "tflite", "CPU")
    assert ran.unit_got == "TfLiteXNNPackDelegate, 64 of 66 nodes"
    assert cold == ColdStart(30.25, 20.5, pytest.approx(26.2144), None, "benchmark_model")
    assert latency == Latency(12.4, None, None, 80.0, 10, 240, pytest.approx(3.0))
    assert row.status == "ok"
    assert phone.left() == []


def test_an_ort_file_is_timed_on_the_phone_alone(adb, phone, program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    network = registry.find("vsrnet").build(window=3, widths=[4, 4], kernels=[3, 3, 3])
    onnx = tmp_path / "tiny.onnx"
    export(Order(network, METADATA, sizes=((8, 12),)), format_named("onnx"), onnx)
    format_named("onnx").write_companions(onnx, {"ort": True})
    ort = onnx.with_suffix(".ort")
    assert main(["profile", str(ort), "--android", "--benchmark", str(program), "--threads", "2", "--json"]) == 0
    here, there = json.loads(capsys.readouterr().out)["rows"]
    assert (here["where"], here["status"], here["precision"], here["p50_ms"]) == ("host", CONVERTED, "fp32", None)
    assert "measure it on a phone" in here["reason"]
    assert (there["entry"], there["where"], there["format"], there["mode"]) == ("tiny.ort", "phone", "onnx", "windowed")
    assert there["p50_ms"] > 0
    assert {"tiny.ort"} == {word for call in phone.calls() for word in call if word.startswith("tiny")}


def test_what_published_outputs_say(tmp_path):
    summary = perf_test_summary(recorded(PERF_TEST))
    percentiles = [summary[f"P{part} Latency"] for part in (50, 90, 95, 99)]
    assert percentiles == [0.0995086, 0.101519, 0.101519, 0.101519]
    assert summary["Average inference time cost total"] == pytest.approx(0.098961997)
    assert (summary["Min Latency"], summary["Max Latency"]) == (0.0958204, 0.101519)
    assert summary["Number of inferences per second"] == 10.104

    class Played:
        def call(self, *arguments):
            return recorded("benchmark_model_espcn.txt")

    model = Model("espcn.tflite", {}, {}, {})
    figures, output = benchmark_for(Path(model.name)).measure(Played(), model, 4, QUICK)
    assert "espcn_harmonic" in output
    assert figures.unit_got == "CPU"
    assert figures.cold_start == ColdStart(49.06, 0.855, pytest.approx(13.4922, abs=1e-3), None, "benchmark_model")
    rate = pytest.approx(30.112, abs=1e-3)
    assert figures.latency == Latency(None, None, None, rate, 15, 50, pytest.approx(50 * 0.0332094))


def test_a_program_that_fails_leaves_nothing(adb, phone, student, program):
    failure = 'CANNOT LINK EXECUTABLE "./onnxruntime_perf_test": library "libonnxruntime.so" not found'
    phone.answer(failure)
    (phone.state / "exits").touch()
    with pytest.raises(CheckFailed, match=r"onnxruntime_perf_test failed on the Maker Model 7: CANNOT LINK EXECUTABLE"):
        profile_android(student, program, protocol=QUICK)
    assert phone.left() == []
    (phone.state / "exits").unlink()  # phones before Android 7 tell no exit status
    with pytest.raises(CheckFailed, match=r"no line 'Session creation time cost' \(CANNOT LINK"):
        profile_android(student, program, protocol=QUICK)
    assert phone.left() == []


def test_a_program_that_hangs_is_stopped(adb, phone, student, program, monkeypatch):
    (phone.state / "hangs").touch()
    monkeypatch.setattr(android, "_LOADING_SECONDS", 1)
    with pytest.raises(CheckFailed, match="did not end within 2 s: see whether the phone is awake"):
        profile_android(student, program, protocol=TimingProtocol(1, 1, 0, budget_seconds=0.5))
    assert phone.left() == []
    assert gone(phone)


def test_ctrl_c_cleans_up(adb, phone, student, program, tmp_path):
    (phone.state / "hangs").touch()
    code = f"""
import signal
from pathlib import Path
from export.phones.android import profile_android
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits none
profile_android(Path({str(student)!r}), Path({str(program)!r}))
"""
    command = [sys.executable, "-c", code]
    environment = {"PATH": str(adb), "PYTHONPATH": str(Path(android.__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (phone.state / "hanging").exists() and process.poll() is None:  # a busy machine takes its time
            time.sleep(0.1)
        assert len(phone.left()) == 1
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=600)[1]
    assert phone.left() == []
    assert gone(phone)


def gone(phone):
    """The program is no longer run, though only its client was interrupted."""
    if not (phone.state / "hanging").exists():
        return True  # it never began
    status = Path("/proc") / (phone.state / "hanging").read_text() / "status"
    deadline = time.monotonic() + 600
    while status.exists() and "State:\tZ" not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize(
    ("devices", "serial", "sentence"),
    [
        ("", None, "adb sees no phone: connect one by USB"),
        (
            READY + "\nOTHER  device model:Tablet_1",
            None,
            r"sees 2 phones: choose one with --serial, of SERIAL42 \(Model_7",
        ),
        (READY, "OTHER", r"sees no phone OTHER: connect it, or choose of SERIAL42 \(Model_7\)"),
        ("SERIAL42  unauthorized usb:1-1", None, "does not trust this computer yet: unlock it"),
        ("SERIAL42  offline", None, "SERIAL42 is offline, not ready"),
        (
            "SERIAL42  no permissions (user in plugdev group; are your udev rules wrong?); see [http]",
            None,
            "may not open",
        ),
    ],
)
def test_phones_that_cannot_be_used(adb, devices, serial, sentence):
    (adb / "devices").write_text(f"List of devices attached\n{devices}\n\n")
    with pytest.raises(InputError, match=sentence):
        attached(find_adb(), serial)


def test_one_of_several_by_its_serial(adb, student, program):
    (adb / "devices").write_text(f"List of devices attached\nOTHER  offline\n{READY}\n\n")
    assert attached(find_adb(), "SERIAL42") == Adb(adb / "adb", "SERIAL42")


def test_an_emulator_is_no_phone(adb, phone):
    properties = phone.state / "properties"
    properties.write_text(properties.read_text() + "[ro.boot.qemu]: [1]\n")
    with pytest.raises(InputError, match="Maker Model 7 is an emulator"):
        phone_behind(attached(find_adb()))


def test_a_program_for_another_machine(adb, phone, student, program, tmp_path):
    with pytest.raises(
        InputError, match=r"none comes with any wheel: give --benchmark the onnxruntime_perf_test built"
    ):
        profile_android(student, None)
    with pytest.raises(InputError, match="cannot be read"):
        profile_android(student, tmp_path / "absent")
    with pytest.raises(InputError, match="is no program that Android runs"):
        profile_android(student, student)
    other = tmp_path / "built_for_x86"
    other.write_bytes(ARM64_PROGRAM[:18] + b"\x3e\0" + ARM64_PROGRAM[20:])
    with pytest.raises(InputError, match=r"is built for x86_64, but the Maker Model 7 runs arm64-v8a, armeabi-v7a"):
        profile_android(student, other)
    assert phone.left() == []


def test_files_that_cannot_be_timed(adb, program, student, tmp_path):
    with pytest.raises(InputError, match=r"cannot be timed on Android: give a file ending in .onnx, .ort, .tflite"):
        profile_android(tmp_path / "student.mlpackage", program)
    with pytest.raises(InputError, match="does not exist"):
        profile_android(tmp_path / "absent.onnx", program)
    (tmp_path / "broken.onnx").write_bytes(b"this is no model")
    with pytest.raises(InputError, match="ONNX Runtime cannot load"):
        profile_android(tmp_path / "broken.onnx", program)
    with pytest.raises(ConfigError, match=r"thread counts are \[0\]"):
        profile_android(student, program, threads=[0])
    model = onnx.load(student)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "batched.onnx")
    with pytest.raises(InputError, match="leaves 'batch' free, which is no size of a frame"):
        profile_android(tmp_path / "batched.onnx", program)


def test_no_adb(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    with pytest.raises(
        InputError, match="adb cannot be found in PATH or ANDROID_HOME: install Android's platform-tools"
    ):
        find_adb()
    tools = tmp_path / "sdk" / "platform-tools"
    tools.mkdir(parents=True)
    (tools / "adb").write_text("#!/bin/sh\n")
    (tools / "adb").chmod(0o755)
    assert find_adb() == tools / "adb"


@pytest.fixture
def real_adb(tmp_path, monkeypatch):
    """The real client, with a server of its own."""
    if not (client := shutil.which("adb")):
        pytest.skip("no adb client is installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setenv("HOME", str(tmp_path))  # for its keys
    yield Path(client)
    subprocess.run([client, "kill-server"], check=False, capture_output=True)


def test_the_real_client_without_a_phone(real_adb):
    assert find_adb() == real_adb
    with pytest.raises(InputError, match="adb sees no phone"):  # starts the server, which says so on its own lines
        attached(real_adb)
    with pytest.raises(InputError, match="adb sees no phone"):
        attached(real_adb, "nosuch")
    with pytest.raises(InputError, match=r"adb shell failed \(.*nosuch"):
        phone_behind(Adb(real_adb, "nosuch"))


def test_the_whole_way_with_the_real_client(real_adb, phone, student, program):
    """The real client pushes, runs and pulls by its own protocol; only the phone's side is a stand-in."""
    daemon = Daemon(phone)
    daemon.start()
    try:
        serial = f"127.0.0.1:{daemon.port}"
        assert "connected" in subprocess.run([real_adb, "connect", serial], capture_output=True, text=True).stdout
        runs = profile_android(student, program, serial=serial, size=(10, 18), threads=(1, 2), protocol=QUICK)
        check_perf_test(runs, phone, student)
        assert runs[0].phone.name == "Maker Model 7"
        (phone.state / "exits").touch()
        with pytest.raises(CheckFailed, match="failed on the Maker Model 7"):  # the exit status comes through
            profile_android(student, program, protocol=QUICK)
        assert phone.left() == []
    finally:
        daemon.stop()
