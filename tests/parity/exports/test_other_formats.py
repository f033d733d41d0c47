"""LiteRT, ExecuTorch and ncnn: files are written and run where their extras are installed, the rest is everywhere."""

from __future__ import annotations

import json
import pkgutil

import pytest
import torch

from distill.errors import CheckFailed, InputError
from distill.networks import registry
from export.delivery.parity import check_parity
from export.formats import format_named, open_exported
from export.interfaces import Order
from tests.stand_ins.checks import exported
from tests.stand_ins.networks import METADATA, Tiny, Torn, moving_clip, randomise, thin_mobile

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


class Rolled(Tiny):
    """Does what ncnn has no layer for."""

    def reconstruct(self, window):
        return super().reconstruct(torch.special.erfinv(window * 0.5))


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
