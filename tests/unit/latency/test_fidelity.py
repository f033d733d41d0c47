"""What `distill profile --data` says of quality; and that it opens each source once for each need."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from PIL import Image

from distill.data import find_clips, sample_clips
from distill.networks import checkpoint, registry
from distill.networks.checkpoint import Described
from distill.networks.opening import open_network
from export.commands import _entries
from export.footage import low_resolution_clips
from export.formats import export, format_named
from export.interfaces import Order
from export.latency.fidelity import Judged, fidelities
from export.latency.files import FileEntry
from export.latency.measuring import profile
from export.latency.page import html
from export.latency.timing import TimingProtocol
from export.to_onnx.program import OnnxProgram

QUICK = TimingProtocol(warmup=1, minimum_runs=3, minimum_seconds=0.0)
KEYWORDS = {"hidden_convs": 1, "channels": 4}


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """The middle of three frames of a clip, 96 rows and 128 columns."""
    folder = tmp_path_factory.mktemp("footage")
    for place, frame in enumerate(find_clips(sample_clips("held_out"))[1].frames(0, 3)):
        Image.fromarray(frame[72:168, 152:280]).save(folder / f"{place}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that sharpens the bicubic frame, unless the last of its convolutions computes in 8 bits.

    That one adds the frame and takes the mean of its neighbours away. A feature that is always 0 has a weight there
    that leaves the others no steps, so that in 8 bits only the frame is added.
    """
    network = registry.find("vdsr").build(**KEYWORDS)
    first, _, hidden, _, last = network.features
    with torch.no_grad():
        for conv in (first, hidden, last):
            conv.weight.zero_()
        first.weight[:, 0, 1, 1] = torch.tensor([1.0, 1.0, 1.0, -1.0])
        hidden.weight[:, :, 1, 1] = torch.eye(4)
        last.weight[0, 1] = -0.58 / 8
        last.weight[0, :, 1, 1] = torch.tensor([0.58, 0.0, 0.0, 50.0])
    path = tmp_path_factory.mktemp("network") / "student.safetensors"
    checkpoint.save(path, network, Described("vdsr", KEYWORDS, "bi"))
    return path


@pytest.fixture(scope="module")
def files(weights, footage, tmp_path_factory):
    """By precision, of the network above."""
    network, described = open_network(str(weights))
    clips = low_resolution_clips(find_clips(footage), "bi", 4)
    folder = tmp_path_factory.mktemp("onnx")
    return {
        precision: export(
            Order(network, described.as_text(), precision, clips=clips),
            format_named("onnx"),
            folder / f"student-{precision}.onnx",
        ).path
        for precision in ("fp32", "int8")
    }


@pytest.fixture
def judged(weights, files):
    network, described = open_network(str(weights))
    found = {str(path): FileEntry(path).exported for path in files.values()}
    return {
        **{name: Judged(file, file.program.metadata) for name, file in found.items()},
        str(weights): Judged(network, described.as_text()),
    }


def test_a_lossy_file_is_put_down_to_the_layer_that_8_bits_ruin(judged, weights, files, footage):
    found = fidelities(judged, footage)
    assert found[str(weights)].change_db == 0
    assert abs(found[str(files["fp32"])].change_db) < 0.01
    assert found[str(files["fp32"])].blamed == ()
    lossy = found[str(files["int8"])]
    assert lossy.lossy
    assert 1 <= len(lossy.blamed) <= 3
    assert lossy.blamed[0].startswith("features.4 (+")
    assert lossy.convention.startswith("Y (BT.601, rounded to 8 bit), no border cropped, the first 16 frames at most")


def test_without_the_network_nothing_is_compared_or_blamed(judged, weights, footage):
    del judged[str(weights)]
    found = fidelities(judged, footage).values()
    assert [(each.change_db, each.blamed) for each in found] == [(None, ())] * 2


def test_each_source_is_opened_once_for_each_need(weights, files, footage, monkeypatch):
    loaded: list[tuple[Path, int | None]] = []
    read: list[str] = []
    load, of_weights = OnnxProgram.__init__, checkpoint.read

    def counted(self, path, threads=None, **others):
        if path == files["int8"]:
            loaded.append((path, threads))
        load(self, path, threads, **others)

    monkeypatch.setattr(OnnxProgram, "__init__", counted)
    monkeypatch.setattr(checkpoint, "read", lambda path: read.append(str(path)) or of_weights(path))
    sources = [str(files["int8"]), str(weights)]
    options = argparse.Namespace(sources=sources, data=footage, compiled=False)
    entries = _entries(options, 2)
    found = profile(entries, sizes=[(8, 12), (12, 8)], threads=(1, 2), protocol=QUICK)
    assert sorted(threads for _, threads in loaded) == [1, 2]
    assert read == [str(weights)]
    assert [row.subject.entry for row in found.rows[:6:2]] == ["student-int8.onnx", "vdsr", "vdsr"]
    assert "It is put down to: features.4 (+" in html(found, "")
    assert found.document("")["rows"][0]["fidelity"]["blamed"][0].startswith("features.4 (+")


def test_judging_leaves_a_network_as_it_is_timed(weights, footage):
    network, described = open_network(str(weights))
    before = {name: tensor.stride() for name, tensor in network.named_parameters()}
    fidelities({"student": Judged(network, described.as_text())}, footage)
    assert {name: tensor.stride() for name, tensor in network.named_parameters()} == before
