"""SOF-VSR (TIP) against the reference implementation, its flows at every level too."""

from __future__ import annotations

import re

import pytest
import torch

from distill.errors import CheckpointError
from distill.networks.checkpoint import read
from students.sofvsr import SOFVSR
from tests.stand_ins import checks
from tests.stand_ins.networks import randomise

SMALL = {"channels": 8, "flow_blocks": 1, "blocks": 2}


def test_golden(golden, tmp_path):
    reference = golden("sofvsr_small_align1")
    torch.save(reference["state_dict"], tmp_path / "sofvsr.pth")
    loaded = read(tmp_path / "sofvsr.pth")
    assert loaded.described.name == "sofvsr"
    with torch.no_grad():
        restored = loaded.network.restore_planes(reference["input"])
        flows = loaded.network.flows(reference["input"])
    checks.assert_within_float32(restored.frames, reference["output"])
    checks.assert_within_float32(restored.hr_features, reference["taps"]["f_sr"])
    for level, ours in zip(("L1", "L2", "L3"), flows, strict=True):
        checks.assert_within_float32(ours, torch.cat(reference["flows"][level]))


def test_published_key_list_opens(tmp_path):
    torch.save(checks.published_zeros("sofvsr_x4_keys"), tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.name == "sofvsr"
    assert loaded.described.keywords == {
        "window": 3, "channels": 320, "flow_blocks": 3, "blocks": 8, "scale": 4, "colour": "y", "base": "none"
    }  # fmt: skip


def test_costs_are_the_tables():
    checks.assert_costs("sofvsr", 1_047_617, 0.0453)


@pytest.mark.parametrize(
    "keywords",
    [
        {"window": 3, "channels": 6, "flow_blocks": 1, "blocks": 2, "scale": 2, "colour": "y"},
        {"window": 5, "channels": 4, "flow_blocks": 2, "blocks": 1, "scale": 3, "colour": "rgb"},
        {"window": 5, "channels": 4, "flow_blocks": 2, "blocks": 1, "scale": 4, "colour": "rgb"},
    ],
)
def test_sizes_come_from_the_tensors(tmp_path, keywords):
    network = randomise(SOFVSR(**keywords))
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "a.pth")
    loaded = read(tmp_path / "a.pth")
    assert loaded.described.keywords == {**keywords, "base": "none"}
    clip = torch.rand(1, 2, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(loaded.network(clip).frames, network(clip).frames)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("OFR.RNN1.0.weight", None, "This SOF-VSR lacks the tensors OFR.RNN1.0.weight"),
        ("SR.body.2.body.0.body.2.weight", None, "SR.body.2.body.0.body.2.weight is missing"),
        ("SR.body.9", None, "This SOF-VSR lacks the tensors SR.body.6.bias"),
        ("SR.body.6.weight", torch.zeros(300, 64, 1, 1), "SR.body.6.weight is (300, 64, 1, 1)"),
        ("SR.body.0.weight", torch.zeros(8, 32, 3, 3), "take 4 and 32 planes"),
        ("OFR.RNN1.0.weight", torch.zeros(8, 2, 3, 3), "take 2 and 33 planes"),
    ],
)
def test_incomplete_files_are_named(tmp_path, name, change, sentence):
    state = {key: tensor for key, tensor in SOFVSR(**SMALL).state_dict().items() if not key.startswith(name)}
    torch.save(state if change is None else {**state, name: change}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("keywords", [{}, {"colour": "rgb", "base": "bicubic"}, {"scale": 3, "window": 5}])
@pytest.mark.parametrize(("size", "length"), [((8, 12), 3), ((5, 7), 1)])
def test_clip_windows_and_stream_agree(keywords, size, length):
    checks.assert_slides(randomise(SOFVSR(**{**SMALL, **keywords})), size, length)


def test_drafts_are_the_high_resolution_picture_seen_through_the_flow():
    """A flow of whole low-resolution pixels moves every phase alike; one that differs by phase moves them apart."""
    network = SOFVSR(**SMALL)
    frames = torch.rand(1, 1, 6, 8)
    step = 4 / 15.5  # one low-resolution pixel, told at high resolution
    flow = torch.zeros(1, 2, 24, 32)
    flow[:, 0] = step
    flow[:, 1, 1::4, 2::4] = step
    drafts = network._drafts(frames, flow)
    right = frames[..., [1, 2, 3, 4, 5, 6, 7, 7]]
    down = right[:, :, [1, 2, 3, 4, 5, 5]]
    for phase in range(16):
        expected = down if phase == 1 * 4 + 2 else right
        torch.testing.assert_close(drafts[phase : phase + 1], expected, rtol=0, atol=1e-5)


def test_flow_keeps_float32_under_mixed_precision():
    network = randomise(SOFVSR(**SMALL))
    planes = torch.rand(1, 3, 1, 8, 8)
    with torch.no_grad():
        plain = network.flows(planes)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network.flows(planes)
    assert torch.equal(plain.level3, mixed.level3)


def test_the_base_is_what_training_starts_from():
    checks.assert_starts_at_bicubic(SOFVSR(**SMALL, base="bicubic"), SOFVSR(**SMALL))


def test_mixed_precision():
    checks.assert_mixed_precision(SOFVSR(**SMALL, base="bicubic"))


def test_every_weight_learns():
    checks.assert_gradients(randomise(SOFVSR(**SMALL)))


@pytest.mark.parametrize(
    "keywords", [{"colour": "grey"}, {"window": 4}, {"window": 1}, {"channels": 7}, {"scale": 5}, {"base": "nearest"}]
)
def test_wrong_keywords(keywords):
    with pytest.raises(ValueError, match=str(next(iter(keywords.values())))):
        SOFVSR(**keywords)


@pytest.mark.slow
def test_onnx(tmp_path):
    checks.assert_exports(randomise(SOFVSR(**SMALL, base="bicubic")), tmp_path / "sofvsr.onnx")


def test_frozen_sofvsr():
    checks.assert_frozen(randomise(SOFVSR(**SMALL)), "sofvsr")
