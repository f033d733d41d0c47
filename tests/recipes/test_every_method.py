"""One recipe of every family, as typed: each method of distillation, several teachers, a space-time student."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from distill.cli import main
from distill.data import find_clips, sample_clips
from distill.losses.methods import METHODS
from tests.recipes.test_every_pair import ONE_STEP, STUDENTS, TEACHERS

OWN = {  # methods that are a network's own objective, and that network
    "stinet": "stinet-s",
    "star": "starnet-s",
    "star-st": "starnet-s",
    "star-s": "starnet-s",
    "star-t": "starnet-s",
}
NEED_WEIGHTS = {"perceptual"}  # of VGG, which come with an extra


@pytest.fixture(scope="module")
def small(tmp_path_factory, footage):
    """Small pictures to train on, and three frames of a held-out sample, cut small, to judge on."""
    folder = tmp_path_factory.mktemp("judged") / "piece"
    folder.mkdir()
    clip = find_clips(sample_clips("held_out"))[0]
    for number, frame in enumerate(clip.frames(0, 3)):
        Image.fromarray(np.ascontiguousarray(frame[64:128, 64:144])).save(folder / f"{number}.png")
    return ["--set", f"data.path={footage}", "--set", f"data.validation={folder}"]


def trained(path, small, *arguments):
    """The losses of the one step of a run."""
    assert main([*arguments, "--out", str(path), *small, *ONE_STEP]) == 0
    assert (path / "student.safetensors").is_file()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if "loss" in line)


def options(keywords):
    return ["--set", f"student_options={json.dumps(keywords)}"]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in {*OWN, *NEED_WEIGHTS}])
def test_a_method_of_distillation(tmp_path, small, method):
    losses = trained(tmp_path / "run", small, "train", "--method", method, *options(STUDENTS["fastdvdnet"]))
    terms = METHODS[method].weights
    assert all(losses[term] > 0 for term in terms), losses
    total = losses["reconstruction"] + sum(weight * losses[term] for term, weight in terms.items())
    assert losses["loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("method", OWN)
def test_a_networks_own_objective(tmp_path, small, method):
    network = OWN[method]
    losses = trained(tmp_path / "run", small, "pretrain", network, "--method", method, *options(TEACHERS[network]))
    terms, truth = METHODS[method].weights, METHODS[method].truth
    total = sum(weight * losses[term] for term, weight in terms.items())
    total += losses["reconstruction"] * (1 if truth is None else truth)
    assert losses["loss"] == pytest.approx(total, rel=1e-4)


def test_several_teachers_with_weights(tmp_path, small):
    taught = ["train", "--teacher", "0.75*edvr+0.25*rbpn", "--method", "output", *options(STUDENTS["fastdvdnet"])]
    losses = trained(tmp_path / "run", small, *taught)
    mixed = 0.75 * losses["output teacher edvr"] + 0.25 * losses["output teacher rbpn"]
    assert losses["loss"] == pytest.approx(losses["reconstruction"] + mixed, rel=1e-4)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results) == ["bicubic", "student before", "student after", "teacher edvr", "teacher rbpn"]


@pytest.mark.parametrize("teacher", ["stinet", "starnet"])
def test_a_space_time_student(tmp_path, small, teacher):
    taught = ["train", "--teacher", teacher, "--student", "fastdvdnet", "--time-scale", "2"]
    losses = trained(tmp_path / "run", small, *taught, *options(STUDENTS["fastdvdnet"]))
    assert losses["space"] > 0
    after = json.loads((tmp_path / "run" / "results.json").read_text())["student after"]
    assert after["average"]["given"]["psnr"] != after["average"]["between"]["psnr"]


def test_a_space_time_student_needs_such_a_teacher(tmp_path, small, capsys):
    taught = ["train", "--teacher", "edvr", "--student", "fastdvdnet", "--time-scale", "2"]
    assert main([*taught, "--out", str(tmp_path / "run"), *options(STUDENTS["fastdvdnet"]), *ONE_STEP]) == 2
    assert "the teacher must make every frame" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
