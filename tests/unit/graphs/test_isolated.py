"""A converter runs in a process of its own."""

from __future__ import annotations

import pytest

from distill.errors import CheckFailed
from export.graphs import isolated
from export.graphs.isolated import convert_apart
from export.interfaces import Order
from tests.stand_ins.networks import METADATA, Tiny

SIZE = (24, 40)
CONVERTERS = """
import os, signal, sys, torch
def works(task):
    assert task.inputs == ("frame_0", "frame_1", "frame_2") and task.outputs == ("restored",)
    results = task.program.module()(*task.samples[0].values())
    task.target.write_text(f"{task.precision} {task.facts['word']} {tuple(results[0].shape)} {len(task.samples)}")
def complains(task):
    raise ValueError("no such thing.\\n While executing %x [target=torch.ops.aten.erfinv.default]")
def crashes(task):
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
def devours(task):
    torch.empty(1 << 46)
"""


@pytest.fixture
def converters(tmp_path, monkeypatch):
    (tmp_path / "some_converters.py").write_text(CONVERTERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def converted(function, target):
    order = Order(Tiny(), METADATA, sizes=(SIZE,))
    graph = order.graph()
    samples = [dict(graph.inputs)] * 2
    convert_apart(
        "this",
        f"some_converters:{function}",
        type(order.network).__name__,
        order.precision,
        graph,
        target,
        {"word": "Größe"},
        samples,
    )


def test_a_converter_gets_what_it_needs(converters, tmp_path):
    converted("works", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "fp32 Größe (1, 3, 96, 160) 2"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("complains", "no such thing (at aten.erfinv.default)"),
        ("crashes", "the converter was stopped by SIGSEGV (the last words)"),
        ("devours", "the conversion needs more memory than is free: free some, or give a smaller size"),
    ],
)
def test_what_breaks_a_converter_does_not_break_this_process(function, reason, converters, tmp_path):
    with pytest.raises(CheckFailed) as caught:
        converted(function, tmp_path / "file")
    assert str(caught.value) == f"Tiny cannot be exported to this: {reason}"


def test_a_converter_that_takes_too_long_is_stopped(converters, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "_LONGEST", 0.1)  # starting takes longer
    with pytest.raises(CheckFailed, match="Tiny cannot be exported to this: the conversion was stopped after"):
        converted("works", tmp_path / "file")
