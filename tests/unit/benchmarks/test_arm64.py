"""The ARM64 check without the emulator: what both sides compute, how they are compared, what it says when stuck."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from benchmarks import arm64_check
from export.formats import open_exported

SCRIPT = Path(arm64_check.__file__)
FACTS = {"scale": "1", "window": "3", "precision": "fp32", "size_multiple": "4", "distill_vsr_version": "0"}
FACTS |= {"memories_inside": "no", "memory_type": "float32"}


def saved(path, nodes, inputs, outputs, facts):
    shape = [1, 3, "height", "width"]
    ends = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in names]
        for names in (inputs, outputs)
    ]
    weights = [
        helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [number]) for name, number in (("a", 0.25), ("b", 0.5))
    ]
    graph = helper.make_graph(nodes, "network", *ends, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, FACTS | facts)
    onnx.save(model, path)
    return path


@pytest.fixture
def windowed(tmp_path):
    """0.25 of the frame before, 0.5 of the middle one, all of the one after."""
    nodes = [helper.make_node("Mul", ["frame_0", "a"], ["p"]), helper.make_node("Mul", ["frame_1", "b"], ["q"])]
    nodes += [helper.make_node("Sum", ["p", "q", "frame_2"], ["restored"])]
    inputs = ["frame_0", "frame_1", "frame_2"]
    return saved(tmp_path / "w.onnx", nodes, inputs, ["restored"], {"mode": "windowed", "memories": "[]"})


@pytest.fixture
def streaming(tmp_path):
    """The same from the newest frame and two memories."""
    nodes = [helper.make_node("Mul", ["older", "a"], ["p"]), helper.make_node("Mul", ["old", "b"], ["q"])]
    nodes += [helper.make_node("Sum", ["p", "q", "frame"], ["restored"])]
    nodes += [
        helper.make_node("Identity", ["frame"], ["next_old"]),
        helper.make_node("Identity", ["old"], ["next_older"]),
    ]
    facts = {"mode": "streaming", "memories": json.dumps([["old", 3, 1, 1, 1], ["older", 3, 1, 1, 1]])}
    outputs = ["restored", "next_older", "next_old"]  # in another order than the inputs
    return saved(tmp_path / "s.onnx", nodes, ["frame", "old", "older"], outputs, facts)


def test_both_sides_run_files_as_the_project_does(windowed, streaming, tmp_path):
    frames = np.random.default_rng(0).random((4, 1, 3, 8, 12), dtype=np.float32)
    for path in (windowed, streaming):
        expected = torch.stack(list(open_exported(path, 1).stream(torch.from_numpy(frames[:, 0])))).numpy()
        given, made = tmp_path / "frames.npy", tmp_path / "restored.npy"
        np.save(given, frames)
        command = [sys.executable, str(SCRIPT), str(path), "--emulated", str(made), "--frames-from", str(given)]
        subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"PYTHONSAFEPATH": "1"})
        assert np.array_equal(np.load(made)[:, 0], expected)
        assert not np.array_equal(expected[0], expected[1])


def test_how_they_are_compared():
    here = np.zeros((2, 4), np.float32)
    there = here.copy()
    assert arm64_check.differences(here, there) == (0, math.inf)
    there[0, 0] = 0.1
    largest, psnr = arm64_check.differences(here, there)
    assert (largest, psnr) == pytest.approx((0.1, -10 * math.log10(0.01 / 8)))
    there[0, 0] = math.nan
    assert not arm64_check.differences(here, there)[1] >= 0  # agrees with nothing


def test_real_frames():
    frames = arm64_check.shipped_frames((24, 40), 3)
    assert frames.shape == (3, 1, 3, 24, 40)
    assert frames.dtype == np.float32
    assert frames.std() > 0.05
    assert 0 <= frames.min() < frames.max() <= 1


def test_sentences(windowed, tmp_path):
    def told(*words, path="/nowhere"):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *map(str, words)],
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode
        return done.stderr.strip().splitlines()[-1]

    prefix = ("--prefix", tmp_path / "arm64")
    assert (
        told(windowed, *prefix) == "apt-get and dpkg-deb cannot be found: the set-up needs an x86-64 Debian or Ubuntu."
    )
    assert not (tmp_path / "arm64").exists()
    assert "--prefix FOLDER is missing" in told(windowed)
    assert "there is no file" in told(tmp_path / "absent.onnx", *prefix)
    assert "multiples of 4, at most 108x60" in told(windowed, *prefix, "--size", "42x24")
    model = onnx.load(windowed)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(SystemExit, match=r"was not written by distill-vsr"):
        arm64_check.facts_of(tmp_path / "foreign.onnx", (24, 40))
    model = onnx.load(windowed)
    for side, fixed in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], (20, 40), strict=True):
        side.dim_value = fixed
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(SystemExit, match=r"takes frames of 40x20: say so by --size"):
        arm64_check.facts_of(tmp_path / "fixed.onnx", (24, 40))
