"""Exported space-time students: windowed and streaming files give every frame that the network gives, in order."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import onnx
import pytest
import torch

from distill.errors import CheckFailed
from distill.interfaces import SlidingNetwork
from distill.networks.registry import find
from export.delivery.parity import check_parity
from export.exported import ExportedNetwork
from export.formats import export, format_named
from export.interfaces import Order
from export.latency.networks import NetworkEntry
from export.latency.row import Row, Subject
from export.latency.table import table
from tests.stand_ins.networks import METADATA, moving_clip, randomise_with_statistics

THIN = {
    "vespcn-mobile": {"widths": (16, 16, 16), "channels": (16,)},
    "fastdvdnet-mobile": {"widths": (16, 16, 16)},
    "fastdvdnet": {"channels": 8, "blocks": 1, "widths": (8, 8, 8), "frame_channels": 4},
    "vsrnet": {"widths": (8, 8), "kernels": (3, 3, 3)},
    "vdsr": {"hidden_convs": 1, "channels": 8},
    "d3dnet": {"channels": 8, "align_blocks": 1, "reconstruct_blocks": 1},
}
ODD = (10, 13)
MODES = pytest.mark.parametrize("streaming", [False, True])


def student(name: str = "vespcn-mobile") -> SlidingNetwork:
    network = find(name).build(time_scale=2, **THIN[name])
    assert isinstance(network, SlidingNetwork)
    return randomise_with_statistics(network)


def exported(network: SlidingNetwork, target: Path, to: str = "onnx", **order: object) -> ExportedNetwork:
    kind = format_named(to)
    export(Order(network, METADATA, **order), kind, target)
    return ExportedNetwork(kind.open(target), target)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[bool, ExportedNetwork]:
    """By whether they are streaming: of any size."""
    folder = tmp_path_factory.mktemp("onnx")
    return {
        streaming: exported(student(), folder / f"{streaming}.onnx", streaming=streaming) for streaming in (False, True)
    }


def expected(network: SlidingNetwork, clip: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        frames = network(clip[None]).frames[0]
    if len(clip) > 1:
        mean = (clip[1:] + clip[:-1]) / 2
        idle = torch.nn.functional.interpolate(mean, scale_factor=4, mode="bicubic")
        assert (frames[1::2] - idle).abs().max() > 0.05, "the test would compare base images only"
    return frames


def streamed(network: ExportedNetwork, clip: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(network.stream(iter(clip))))


def assert_restores_clips(file: ExportedNetwork, network: SlidingNetwork) -> None:
    assert (file.time_scale, file.window) == (2, network.window)
    for length in (1, 2, 5):
        clip = moving_clip(length, *ODD)
        wanted, frames = expected(network, clip), streamed(file, clip)
        assert frames.shape == (2 * length - 1, 3, 4 * ODD[0], 4 * ODD[1])
        assert (frames - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max())
    assert torch.equal(file(clip[None]).frames[0], frames)


@MODES
def test_files_restore_clips_of_any_length_and_size(files: dict[bool, ExportedNetwork], streaming: bool) -> None:
    assert_restores_clips(files[streaming], student())


@pytest.mark.slow
@MODES
@pytest.mark.parametrize("name", list(THIN)[1:])
def test_other_students(name: str, streaming: bool, tmp_path: Path) -> None:
    network = student(name)
    assert_restores_clips(exported(network, tmp_path / "student.onnx", streaming=streaming), network)


def test_the_names_of_what_goes_in_and_comes_out(files: dict[bool, ExportedNetwork]) -> None:
    ends = []
    for streaming in (False, True):
        graph = onnx.load(files[streaming].path).graph
        ends.append([[value.name for value in values] for values in (graph.input, graph.output)])
    memories = ["frames", "features", "given", "fused"]
    assert ends == [
        [[f"frame_{place}" for place in range(4)], ["between", "restored"]],
        [["frame", *memories], ["between", "restored", *(f"next_{name}" for name in memories)]],
    ]
    sides = {each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in graph.output}
    assert sides["between"] == sides["restored"] == [1, 3, "4*height", "4*width"]


def test_nothing_that_phones_lack(files: dict[bool, ExportedNetwork]) -> None:
    operators = {node.op_type for file in files.values() for node in onnx.load(file.path).graph.node}
    assert not operators & {"GridSample", "Resize", "Gather", "Where", "Loop", "If", "BatchNormalization"}


@MODES
def test_parity_is_of_all_frames(files: dict[bool, ExportedNetwork], streaming: bool) -> None:
    network, file = student(), files[streaming]
    clips = [moving_clip(5, 24, 20), moving_clip(2, 8, 12)]
    proof = check_parity(network, file, clips)
    assert proof.frames == (3 * 9 + 3 if streaming else 4 * 2)
    assert proof.psnr_db > 90
    other = copy.deepcopy(network)
    torch.nn.init.zeros_(other.head.tail.conv.weight)
    with pytest.raises(CheckFailed, match="differs from the PyTorch network"):
        check_parity(other, file, clips)


@MODES
def test_half_precision_and_a_fixed_size(streaming: bool, tmp_path: Path) -> None:
    network = student()
    file = exported(network, tmp_path / "half.onnx", precision="fp16", streaming=streaming, sizes=(ODD,))
    clip = moving_clip(4, *ODD)
    wanted = expected(network, clip)
    assert 1e-5 < (streamed(file, clip) - wanted).abs().max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize("streaming", [pytest.param(False, marks=pytest.mark.slow), True])
def test_eight_bits(streaming: bool, tmp_path: Path) -> None:
    network = student()
    clips = [moving_clip(4, 16, 20)]
    file = exported(network, tmp_path / "int8.onnx", precision="int8", streaming=streaming, clips=clips)
    wanted = expected(network, clips[0])
    error = (streamed(file, clips[0]) - wanted).square().mean()
    assert 10 * torch.log10(wanted.square().mean() / error) > 25
    model = onnx.load(file.path)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    constants = {each.name for each in model.graph.initializer}
    picture_of = {name: node for node in model.graph.node for name in node.output}
    for name in ("between", "restored"):
        node = picture_of[name]
        while node.op_type == "DepthToSpace":
            node = picture_of[node.input[0]]
        assert node.op_type == "Add", "the picture itself is not rounded"
        assert not constants.intersection(node.input)


@MODES
def test_core_ml(streaming: bool, tmp_path: Path) -> None:
    network = student()
    order = {"precision": "fp16", "sizes": (ODD,), "streaming": streaming, "options": {"ios": 18 if streaming else 16}}
    file = exported(network, tmp_path / "student.mlpackage", "coreml", **order)
    clip = moving_clip(4, *ODD)
    wanted = expected(network, clip)
    error = (streamed(file, clip) - wanted).square().mean()
    assert 10 * torch.log10(wanted.square().max() / error) > 50
    shots = [streamed(file, 1 - clip[:2]), streamed(file, clip)]
    assert torch.equal(shots[1], streamed(file, clip)), "a shot starts anew"


@pytest.mark.slow
@MODES
def test_core_ml_images(streaming: bool, tmp_path: Path) -> None:
    network = student()
    order = {"precision": "fp16", "sizes": (ODD,), "streaming": streaming, "options": {"ios": 18, "images": True}}
    file = exported(network, tmp_path / "student.mlpackage", "coreml", **order)
    clip = (moving_clip(4, *ODD) * 255).round() / 255
    wanted = expected(network, clip).clamp(0, 1)
    assert (streamed(file, clip) - wanted).abs().mean() < 1 / 255


def test_files_of_old_keep_the_frame_rate(tmp_path: Path) -> None:
    """Files that were written before say nothing of time."""
    network = randomise_with_statistics(find("vespcn-mobile").build(**THIN["vespcn-mobile"]))
    file = exported(network, tmp_path / "student.onnx")
    assert file.program.metadata["time_scale"] == "1"
    model = onnx.load(file.path)
    kept = [entry for entry in model.metadata_props if entry.key != "time_scale"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, file.path)
    again = ExportedNetwork(format_named("onnx").open(file.path), file.path)
    assert again.time_scale == 1
    assert torch.equal(streamed(again, moving_clip(3, *ODD)), streamed(file, moving_clip(3, *ODD)))


def test_a_profile_says_that_a_run_is_of_two_frames() -> None:
    row = NetworkEntry(student(), "doubling", streaming=True).contender((8, 12), 1).row
    assert row.subject.time_scale == 2
    plain = dataclasses.replace(row, subject=dataclasses.replace(row.subject, entry="plain", time_scale=1))
    text = table([row, plain, Row(Subject("unknown", "onnx", size=(8, 12), scale=4))])
    captions = [line for line in text.splitlines() if line.startswith("12x8")]
    assert ["two restored frames a run" in caption for caption in captions] == [True, False, False]
