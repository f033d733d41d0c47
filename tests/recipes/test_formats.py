"""A format is a class and one line: everything else finds it; and what is one format's alone is refused for others."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from distill.data import samples
from distill.errors import CheckFailed
from distill.networks import checkpoint, registry
from distill.networks.checkpoint import Described
from export import formats
from tests.stand_ins.networks import randomise

KEYWORDS = {"widths": [16, 16, 16], "channels": [16]}


@pytest.fixture
def weights(tmp_path):
    """A tiny student's file, outside of any run."""
    path = tmp_path / "tiny.safetensors"
    network = randomise(registry.find("vespcn-mobile").build(**KEYWORDS))
    checkpoint.save(path, network, Described("vespcn-mobile", KEYWORDS, "bi"))
    return path


@pytest.fixture
def new_format(monkeypatch):
    """One more line in the table."""
    line = "tests.stand_ins.saved_program:SavedProgram"
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, line))
    monkeypatch.setattr("export.machine._SECONDS", 0.01)


def test_a_new_format_is_exported_proven_and_profiled(new_format, weights, document, tmp_path):
    out = tmp_path / "export"
    (delivery,) = document("export", weights, "--to", "pt2", "--size", "54x30", "--streaming", "--out", out)
    path = out / "tiny-54x30-streaming.pt2"
    assert (delivery["file"], delivery["format"], delivery["unit"]) == (str(path), "pt2", "CPU")
    assert delivery["parity"]["frames"] > 1
    assert delivery["parity"]["psnr_db"] is None or delivery["parity"]["psnr_db"] > 90
    assert [each.name for each in out.iterdir()] == [path.name]
    (row,) = document("profile", path, "--threads", "1", "--operators")["rows"]
    assert (row["entry"], row["format"], row["mode"], row["status"]) == (path.name, "pt2", "streaming", "ok")
    assert row["load_ms"] > 0
    assert "opening a pt2 file" in row["cold_process"]
    program = formats.open_exported(path).program
    with pytest.raises(CheckFailed, match=r"^PyTorch fails on frame \(1, 3, 8, 8\): ") as caught:
        program.run({"frame": np.zeros((1, 3, 8, 8), np.float32)})
    assert "\n" not in str(caught.value)


def test_a_new_format_is_listed(new_format, weights, command, capsys):
    with pytest.raises(SystemExit):
        command("export", "--help")
    assert "onnx, coreml, litert, executorch, ncnn or pt2" in " ".join(capsys.readouterr().out.split())
    assert "Known: onnx, coreml, litert, executorch, ncnn, pt2." in command("export", weights, "--to", "x")[2]
    assert "pt2 needs a size" in command("export", weights, "--to", "pt2")[2]
    sentence = "--images and --ios are for --to coreml, not pt2."
    assert sentence in command("export", weights, "--to", "pt2", "--ios", "18")[2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["onnx", "--images"], "--images and --ios are for --to coreml, not onnx."),
        (["onnx", "--ios", "16"], "--images and --ios are for --to coreml, not onnx."),
        (["coreml", "--ort"], "--ort and --sensitivity are for --to onnx, not coreml."),
        (["ncnn", "--sensitivity"], "--ort and --sensitivity are for --to onnx, not ncnn."),
        (["coreml", "--precision", "int8"], "coreml has no precision 'int8'; it has fp16, fp32, w8, p6, p4."),
        (["onnx", "--ort", "--precision", "fp32", "fp16"], "--ort has no fp16: leave it out, or export fp16 without"),
        (["onnx", "--sensitivity"], "--sensitivity tells what layers cost in int8: give --precision int8."),
    ],
)
def test_options_that_do_not_go_together(options, sentence, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = command("export", "no-such-network", "--to", *options)
    assert code == 2
    assert sentence in error
    assert list(tmp_path.iterdir()) == []


def test_the_table_imports_neither_torch_nor_a_runtime():
    code = """
import sys
from export.formats import all_formats
names = [each.name for each in all_formats()]
heavy = {"torch", "numpy", "onnx", "onnxruntime", "coremltools", "ai_edge_litert", "executorch", "ncnn"}
print(names, heavy & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['onnx', 'coreml', 'litert', 'executorch', 'ncnn'] set()"


@pytest.mark.parametrize(("precision", "expected"), [("fp32", ["held_out"]), ("int8", ["held_out", "train"])])
def test_frames_to_calibrate_on_are_read_where_a_precision_needs_them(
    precision, expected, weights, document, tmp_path, monkeypatch
):
    opened = []

    def sample_clips(name):
        opened.append(name)
        return samples.sample_clips(name)

    monkeypatch.setattr("distill.data.sample_clips", sample_clips)
    floor = ["--floor", "10"]
    document("export", weights, "--to", "onnx", "--precision", precision, "--out", tmp_path / "export", *floor)
    assert opened == expected


def test_the_network_is_evaluated_once_for_all_precisions(weights, document, tmp_path, monkeypatch):
    """And is translated once for each of them, what its layers cost included."""
    from distill.metrics import evaluate
    from export.to_onnx import model

    judged, translated = [], []

    def counting(function, calls):
        def counted(first, *others, **keywords):
            calls.append(type(first).__name__)
            return function(first, *others, **keywords)

        return counted

    monkeypatch.setattr("export.delivery.quality.evaluate", counting(evaluate.evaluate, judged))
    monkeypatch.setattr("export.to_onnx.model._translated", counting(model._translated, translated))
    settings = ("--precision", "int8", "fp16", "--sensitivity", "--floor", "10", "--out", tmp_path / "export")
    small, _ = document("export", weights, "--to", "onnx", *settings)
    assert {each["layer"] for each in small["layers"]}
    assert sorted(judged) == ["ExportedNetwork", "VESPCNMobile"]
    assert len(translated) == 2
