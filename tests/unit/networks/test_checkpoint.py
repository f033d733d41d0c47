from __future__ import annotations

import json
import pickle
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from safetensors.torch import save_file

import distill
from distill.errors import CheckpointError, ConfigError
from distill.files import replacing
from distill.networks import registry
from distill.networks.checkpoint import Described, read, read_training_state, save, save_training_state
from teachers.edvr import EDVR

SMALL = {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 2}
DESCRIBED = Described("edvr-m", SMALL, "bd", {"command": "distill pretrain"})


@pytest.fixture
def network():
    return EDVR(**SMALL)


@pytest.fixture
def published(network):
    """The network's tensors under BasicSR's names."""
    return {name.removeprefix("tail."): tensor for name, tensor in network.state_dict().items()}


def assert_same(network, other):
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_one_file_rebuilds_the_network(tmp_path, network, name):
    path = tmp_path / name
    if path.suffix == ".pt":
        save_training_state(path, network, DESCRIBED, {"step": 3})
    else:
        save(path, network, DESCRIBED)
    checkpoint = read(path)
    assert_same(network, checkpoint.network)
    assert checkpoint.described == DESCRIBED
    assert not checkpoint.network.training
    assert [each.name for each in tmp_path.iterdir()] == [name], "a temporary file stayed behind"


def test_a_run_folder_is_its_student(tmp_path, network):
    save(tmp_path / "student.safetensors", network, DESCRIBED)
    assert_same(network, distill.load(tmp_path))


def test_half_precision_loads_as_float32(tmp_path, network):
    save(tmp_path / "whole.safetensors", network, DESCRIBED)
    with safe_open(tmp_path / "whole.safetensors", framework="pt") as file:
        halves = {name: file.get_tensor(name).half() for name in file.keys()}  # noqa: SIM118  (not a mapping)
        save_file(halves, tmp_path / "half.safetensors", file.metadata())
    loaded = distill.load(tmp_path / "half.safetensors")
    assert loaded.conv_first.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.conv_first.weight, network.conv_first.weight, rtol=1e-3, atol=1e-4)


NAMES_2019 = [
    ("conv_l2_1", "fea_L2_conv1"),
    ("conv_l2_2", "fea_L2_conv2"),
    ("conv_l3_1", "fea_L3_conv1"),
    ("conv_l3_2", "fea_L3_conv2"),
    *[(f"pcd_align.offset_conv{n}.l{k}", f"pcd_align.L{k}_offset_conv{n}") for n in (1, 2, 3) for k in (1, 2, 3)],
    *[(f"pcd_align.dcn_pack.l{k}.conv_offset", f"pcd_align.L{k}_dcnpack.conv_offset_mask") for k in (1, 2, 3)],
    *[(f"pcd_align.dcn_pack.l{k}", f"pcd_align.L{k}_dcnpack") for k in (1, 2, 3)],
    *[(f"pcd_align.feat_conv.l{k}", f"pcd_align.L{k}_fea_conv") for k in (1, 2)],
    ("pcd_align.cas_dcnpack.conv_offset", "pcd_align.cas_dcnpack.conv_offset_mask"),
    ("fusion.temporal_attn1", "tsa_fusion.tAtt_2"),
    ("fusion.temporal_attn2", "tsa_fusion.tAtt_1"),
    ("fusion.feat_fusion", "tsa_fusion.fea_fusion"),
    *[(f"fusion.spatial_attn{n}", f"tsa_fusion.sAtt_{n}") for n in (1, 2, 3, 4, 5)],
    *[(f"fusion.spatial_attn_l{n}", f"tsa_fusion.sAtt_L{n}") for n in (1, 2, 3)],
    *[(f"fusion.spatial_attn_add{n}", f"tsa_fusion.sAtt_add_{n}") for n in (1, 2)],
    ("conv_hr", "HRconv"),
]


def as_2019(name: str) -> str:
    for ours, theirs in NAMES_2019:
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name.replace("reconstruction.", "recon_trunk.")


def as_mmagic(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith(("conv_l2", "conv_l3")):
        stem = f"feat_l{stem[6]}_conv{stem[8]}.conv"
    elif stem.startswith("upconv"):
        stem = f"upsample{stem[-1]}.upsample_conv"
    elif stem.startswith("pcd_align."):
        wrapped = "" if "dcn" in stem else ".conv"
        stem = stem.replace("pcd_align", "pcd_alignment") + wrapped
    elif stem.startswith("fusion.") and not stem.endswith(("temporal_attn1", "temporal_attn2", "attn5", "add2")):
        stem += ".conv"
    return f"generator.{stem}.{kind}"


@pytest.mark.parametrize(
    ("rename", "wrap"),
    [
        (lambda name: name, lambda tensors: {"params": tensors}),
        (lambda name: name, lambda tensors: tensors),
        (as_mmagic, lambda tensors: {"state_dict": {**tensors, "step_counter": torch.tensor(7)}, "meta": {"epoch": 1}}),
        (as_2019, lambda tensors: tensors),
        (lambda name: f"module.{as_2019(name)}", lambda tensors: tensors),
    ],
    ids=["basicsr", "bare", "mmagic", "2019", "2019 DataParallel"],
)
def test_published_layouts(tmp_path, network, published, rename, wrap):
    path = tmp_path / "published.pth"
    torch.save(wrap({rename(name): tensor for name, tensor in published.items()}), path)
    assert_same(network, distill.load(path))
    assert read(path).described.degradation is None


def test_published_without_attention(tmp_path):
    network = EDVR(**SMALL, attention=False)
    tensors = {name.removeprefix("tail."): tensor for name, tensor in network.state_dict().items()}
    torch.save({"params": tensors}, tmp_path / "a.pth")
    torch.save({as_2019(name).replace("fusion.", "tsa_fusion."): t for name, t in tensors.items()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        assert_same(network, distill.load(tmp_path / name))


def test_what_does_not_fit_is_one_sentence(tmp_path, published):
    del published["conv_hr.bias"]
    published["conv_last.weight"] = torch.zeros(3, 32, 3, 3)
    path = tmp_path / "a.pth"
    torch.save(published, path)
    with pytest.raises(CheckpointError) as caught:
        distill.load(path)
    assert "tail.conv_hr.bias is missing" in str(caught.value)
    assert "tail.conv_last.weight is (3, 32, 3, 3) where (3, 64, 3, 3) is needed" in str(caught.value)
    assert "\n" not in str(caught.value)


def truncated(path, content):
    torch.save(content, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled_code(path, _):
    path.write_bytes(pickle.dumps(pytest.skip))


def one_line(path, _):
    path.write_text("not weights\n")


@pytest.mark.parametrize("header", ["{broken", "[1]", "{}"])
def test_a_damaged_description_is_a_sentence(tmp_path, header):
    (tmp_path / "a.safetensors").write_bytes(serialise({"a": torch.zeros(1)}, {"distill": header}))
    with pytest.raises(CheckpointError, match="description"):
        distill.load(tmp_path / "a.safetensors")


def test_a_file_does_not_import_what_lies_beside_the_caller(tmp_path, monkeypatch):
    (tmp_path / "payload_beside.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry])
    header = {"network": "payload_beside:X", "keywords": {}, "degradation": None, "provenance": {}}
    (tmp_path / "a.safetensors").write_bytes(serialise({"a": torch.zeros(1)}, {"distill": json.dumps(header)}))
    with pytest.raises(CheckpointError, match="cannot be imported"):
        distill.load(tmp_path / "a.safetensors")


def test_wrappers_within_wrappers_and_empty_ones(tmp_path):
    state = EDVR(3, 8, 2, 1, 1).state_dict()
    plain = {name.removeprefix("tail."): tensor for name, tensor in state.items()}
    for number, content in enumerate(({"params_ema": {}, "params": plain}, {"state_dict": {"params": plain}})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert isinstance(distill.load(tmp_path / f"{number}.pth"), EDVR)


class Unknown(torch.nn.Module):
    """As the files of VSRNet and VDSR hold it: the class itself must be imported to read them."""


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"model": module, "epoch": 3}])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_modules_are_refused_with_the_way_out(tmp_path, wrap, zipped):
    torch.save(wrap(Unknown()), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"holds a pickled \S*Unknown.*model\.state_dict\(\)") as caught:
        distill.load(tmp_path / "net.pth")
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [truncated, pickled_code, one_line])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_unreadable_files(tmp_path, published, make, name):
    path = tmp_path / name
    make(path, published)
    with pytest.raises(CheckpointError, match=r"cannot be read") as caught:
        distill.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(2)}, "no network known here"),
        ({}, "holds no tensors"),
        ([1], "holds a list"),
    ],
)
def test_files_of_something_else(tmp_path, content, expected):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=expected):
        distill.load(tmp_path / "a.pth")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match="There is no file"):
        distill.load(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"without student\.safetensors"):
        distill.load(tmp_path)


def test_weights_alone_are_no_training_state(tmp_path, published):
    torch.save({"params": published}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="no training state"):
        read_training_state(tmp_path / "a.pth")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_names():
    assert registry.find("edvr").name == "edvr-s"
    assert registry.find("teachers.edvr:EDVR").build(**SMALL).window == 3
    for name, role, expected in (
        ("edvrr", "teacher", "Did you mean 'edvr'"),
        ("fastdvdnet", "teacher", "is a student, not a teacher"),
        ("edvr-m", "student", "is a teacher, not a student"),
        ("teachers.edvr:EDVRR", None, "cannot be imported"),
        ("json:JSONDecoder", None, "is not a class derived"),
    ):
        with pytest.raises(ConfigError, match=expected):
            registry.find(name, role)
    with pytest.raises(ConfigError, match="takes no 'channel'"):
        registry.find("edvr-m").build(channel=3)
