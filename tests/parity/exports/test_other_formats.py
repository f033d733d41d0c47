"""LiteRT, ExecuTorch and ncnn: files are written and run where their extras are installed, the rest is everywhere."""

from __future__ import annotations

import json
import pkgutil

import pytest
import torch

from distill.errors import CheckFailed, ConfigError, InputError
from distill.networks import registry
from export.delivery.parity import check_parity
from export.formats import format_named, open_exported
from export.graphs import isolated as conversion
from export.graphs.decomposition import in_common_operators
from export.graphs.graph import streaming_graph, traced, windowed_graph
from export.graphs.isolated import convert_apart
from export.interfaces import Order
from export.to_ncnn.single_pictures import SinglePictures
from students.fastdvdnet_mobile import FastDVDnetMobile
from students.vdsr import VDSR
from students.vespcn import VESPCN
from students.vespcn_mobile import VESPCNMobile
from students.vsrnet import VSRNet
from tests.stand_ins.checks import exported
from tests.stand_ins.networks import METADATA, Tiny, moving_clip, randomise

SIZE = (24, 40)
EXTRAS = {
    "litert": ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    "executorch": ("executorch",),
    "ncnn": ("pnnx", "ncnn"),
}
STUDENTS = ("fastdvdnet-mobile", "vespcn-mobile", "fastdvdnet", "vespcn", "vsrnet", "vdsr")


def installed(name):
    for package in EXTRAS[name]:
        pytest.importorskip(package, exc_type=ImportError)
    return format_named(name)


def thin_mobile():
    return randomise(VESPCNMobile(widths=(16, 16, 16), channels=(16,)))


def written(network, folder, name, **order):
    kind = installed(name)
    return exported(network, folder / f"student{kind.suffix}", name, sizes=(SIZE,), **order)


def compared(network, file):
    clip = moving_clip(4, *SIZE)
    with torch.inference_mode():
        idle = torch.nn.functional.interpolate(clip, scale_factor=network.scale, mode="bicubic")
        assert (network(clip[None]).frames[0] - idle).abs().max() > 0.05, "the test would compare base images only"
    return check_parity(network, file, [clip])


@pytest.mark.parametrize("name", EXTRAS)
def test_an_absent_extra_says_what_to_install(name, monkeypatch, tmp_path):
    monkeypatch.setattr("export.interfaces.find_spec", lambda package: None)
    kind = format_named(name)
    path = tmp_path / f"student{kind.suffix}"
    sentence = f'{name} needs an extra: pip install "distill-vsr[{name}]".'
    with pytest.raises(InputError) as caught:
        kind.write(Order(thin_mobile(), METADATA, sizes=(SIZE,)), path)
    assert str(caught.value) == sentence
    path.touch()
    with pytest.raises(InputError) as caught:
        open_exported(path)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", EXTRAS)
def test_a_file_streams_as_the_network_does(name, tmp_path):
    network = thin_mobile()
    file = written(network, tmp_path, name, streaming=True)
    proof = compared(network, file)
    assert proof.frames == 4
    assert proof.max_abs <= 1e-5
    facts = file.program.metadata
    assert facts.items() >= METADATA.items()
    assert facts.items() >= {"mode": "streaming", "scale": "4", "window": "3", "sizes": "24x40"}.items()
    assert file.program.runtime_version
    with pytest.raises(InputError, match="takes frames of 40x24, not 32x32"):
        list(file.stream(torch.rand(1, 3, 32, 32)))
    (frame, features), path = network.step().memories, file.path
    inputs = {
        "frame": torch.zeros(1, 3, *SIZE).numpy(),
        frame.name: torch.zeros(frame.shape(*SIZE)).numpy(),
        features.name: torch.zeros(features.shape(*SIZE)).numpy(),
    }
    outputs = file.program.run(inputs)
    assert {key: array.shape for key, array in outputs.items()} == {
        "restored": (1, 3, 96, 160),
        f"next_{frame.name}": frame.shape(*SIZE),
        f"next_{features.name}": features.shape(*SIZE),
    }
    assert_damage_is_told(path)


def assert_damage_is_told(path):
    if path.is_dir():
        whole = (path / "model.bin").read_bytes()
        for payload in (b"", whole[: len(whole) // 2]):
            (path / "model.bin").write_bytes(payload)
            assert_refused(path, "is not as it was written")
        (path / "model.bin").write_bytes(whole)
        told = json.loads((path / "metadata.json").read_text())
        (path / "metadata.json").write_text(json.dumps({key: told[key] for key in ("scale", "window")}))
        assert_refused(path, "did not write")
        (path / "metadata.json").write_text("{")
        assert_refused(path, "is not JSON")
        (path / "metadata.json").unlink()
        assert_refused(path, "cannot be read")
        return
    whole = path.read_bytes()
    for payload in (b"", b"this is not a model\n"):
        path.write_bytes(payload)
        assert_refused(path, "is not an? ")
    for length in (64, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        assert_refused(path, "cannot load")


def assert_refused(path, reason):
    with pytest.raises(InputError, match=reason) as caught:
        open_exported(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["windowed", "streaming"])
@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("name", EXTRAS)
def test_students(name, student, streaming, tmp_path):
    network = randomise(registry.find(student).build())
    proof = compared(network, written(network, tmp_path, name, streaming=streaming))
    assert proof.max_abs <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["windowed", "streaming"])
@pytest.mark.parametrize("name", EXTRAS)
def test_half_precision_is_half_and_sides_may_be_odd(name, streaming, tmp_path):
    kind, network = installed(name), thin_mobile()
    sizes = {}
    for precision in ("fp32", "fp16"):
        target = tmp_path / f"{precision}{kind.suffix}"
        file = exported(network, target, name, sizes=((21, 30),), precision=precision, streaming=streaming)
        sizes[precision] = sum(each.stat().st_size for each in [target, *target.rglob("*")] if each.is_file())
        proof = check_parity(network, file, [moving_clip(4, 21, 30)])
        assert (proof.psnr_db > 100) == (precision == "fp32")
        assert proof.psnr_db > 55
    if name != "executorch":  # whose XNNPACK stores weights in float32
        assert sizes["fp16"] < 0.7 * sizes["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True], ids=["windowed", "streaming"])
def test_eight_bits_in_litert(streaming, tmp_path):
    network = thin_mobile()
    clips = [moving_clip(7, 32, 48).flip(3), moving_clip(7, 24, 40)]
    file = written(network, tmp_path, "litert", streaming=streaming, precision="int8", clips=clips)
    assert check_parity(network, file, [moving_clip(4, *SIZE)]).psnr_db > 35
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file.path))
    kinds = [each["op_name"] for each in interpreter._get_ops_details()]
    assert kinds.count("QUANTIZE") >= 1
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert {each["dtype"].__name__ for each in ends} == {"float32"}
    assert all(each["shape"][-1] in (3, 6, 16, 32, 48) for each in ends), "tensors are channels-last"


def test_eight_bits_need_footage(tmp_path):
    from export.to_litert.conversion import write

    order = Order(thin_mobile(), METADATA, "int8", sizes=(SIZE,))
    with pytest.raises(ConfigError, match="int8 needs real frames"):
        write(order, tmp_path / "student.tflite")


class Torn(Tiny):
    """What it does depends on the pixels."""

    def reconstruct(self, window):
        return super().reconstruct(window if window.sum() > 0 else -window)


class Rolled(Tiny):
    """Does what ncnn has no layer for."""

    def reconstruct(self, window):
        return super().reconstruct(torch.special.erfinv(window * 0.5))


class InPlace(Tiny):
    """Changes a batch, and goes on to use what it was made of."""

    def reconstruct(self, window):
        first, middle, last = (window - 0.5).unbind(1)
        both = torch.cat((first, last))
        both.relu_()
        return super().reconstruct(torch.stack((both[:1], middle + first, both[1:]), 1))


@pytest.mark.parametrize("module", ["to_litert", "to_executorch", "to_ncnn"])
def test_a_network_that_cannot_be_traced(module, tmp_path):
    write = pkgutil.resolve_name(f"export.{module}.conversion:write")
    with pytest.raises(CheckFailed, match="Torn cannot be exported to ") as caught:
        write(Order(Torn(), METADATA, sizes=(SIZE,)), tmp_path / "torn")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTRAS)
def test_an_operator_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(CheckFailed, match=r"Rolled cannot be exported to .*erfinv") as caught:
        written(Rolled(), tmp_path, name)
    assert "\n" not in str(caught.value)


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
    monkeypatch.setattr(conversion, "_LONGEST", 0.1)  # starting takes longer
    with pytest.raises(CheckFailed, match="Tiny cannot be exported to this: the conversion was stopped after"):
        converted("works", tmp_path / "file")


NETWORKS = {
    "batches": lambda: FastDVDnetMobile(widths=(16, 16, 16)),
    "pairs": thin_mobile,
    "planes": lambda: VSRNet(widths=(4, 4), window=3),
    "planes-on-a-base": lambda: VDSR(hidden_convs=1, channels=4),
    "flow": VESPCN,
    "in-place": InPlace,
}


@pytest.mark.parametrize("make", [windowed_graph, streaming_graph])
@pytest.mark.parametrize("kind", NETWORKS)
def test_single_pictures_make_the_same(kind, make):
    graph = make(randomise(NETWORKS[kind]()), SIZE)
    program = traced(graph)
    tensors = [torch.rand(tensor.shape) for tensor in graph.inputs.values()]
    with torch.inference_mode():
        expected = graph.module(*tensors)
    single = SinglePictures(program)
    for ours, theirs in zip(single(*tensors), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    nodes = torch.export.export(single, tuple(tensors), strict=False).graph.nodes
    shapes = {tuple(node.meta["val"].shape) for node in nodes if node.op == "call_function"}
    assert all(len(shape) <= 4 and shape[0] == 1 for shape in shapes), shapes


@pytest.mark.parametrize("kind", ["batches", "pairs", "planes"])
def test_common_operators_make_the_same(kind):
    graph = streaming_graph(randomise(NETWORKS[kind]()), SIZE)
    program = in_common_operators(traced(graph))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "pad." in name or "replication" in name or "split" in name]
    tensors = [torch.rand(tensor.shape) for tensor in graph.inputs.values()]
    with torch.inference_mode():
        for ours, theirs in zip(program.module()(*tensors), graph.module(*tensors), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
