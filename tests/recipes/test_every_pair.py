"""Every teacher of the papers teaches every student: one optimisation step each, on the sample clips, tiny widths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from distill.cli import main
from distill.data import find_clips, sample_clips
from distill.networks import registry
from distill.networks.checkpoint import Described, save

TEACHERS = {
    "edvr-s": {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1},
    "rbpn-s": {"window": 3, "base_filter": 8, "channels": 4, "res_blocks": 1},
    "stinet-s": {
        "channels": 4,
        "motion_channels": 4,
        "offset_groups": 2,
        "projection_filter": 4,
        "projection_channels": 4,
    },
    "starnet-s": {"base_filter": 8, "channels": 4},
    "stvun-s": {"channels": 4},
    "basicvsr-bi": {"channels": 8, "blocks": 1},
}
STUDENTS = {
    "fastdvdnet": {"channels": 8, "blocks": 1, "widths": [8, 8, 8], "frame_channels": 4},
    "vespcn": {"widths": [8, 8], "motion_width": 8},
    "vsrnet": {"widths": [8, 4]},
    "vdsr": {"hidden_convs": 1, "channels": 8},
    "d3dnet": {"channels": 4, "align_blocks": 1, "reconstruct_blocks": 1},
    "sofvsr": {"channels": 8, "flow_blocks": 1, "blocks": 1},
}
ONE_STEP = [
    *("--set", "data.frames=3", "--set", "data.crop=64"),
    *("--set", "distillation.warm_up=0", "--set", "distillation.memory_crop=8"),
    *("--set", "training.steps=1", "--set", "training.batch=1", "--set", "training.log_every=1"),
    *("--set", "training.precision=fp32"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads spend more time on waiting for each other than on networks so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A file of weights for each teacher; what they are worth does not matter here."""
    folder = tmp_path_factory.mktemp("teachers")
    files = {}
    for name, keywords in TEACHERS.items():
        entry = registry.find(name, "teacher")
        files[name] = folder / f"{name}.safetensors"
        described = Described(name, {**entry.keywords, **keywords}, "bi")
        save(files[name], entry.build(**keywords), described)
    return files


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A small piece of a held-out sample, so that judging takes no time."""
    folder = tmp_path_factory.mktemp("judged") / "piece"
    folder.mkdir()
    clip = find_clips(sample_clips("held_out"))[0]
    for number, frame in enumerate(clip.frames(0, 2)):
        Image.fromarray(frame[64:128, 64:144]).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("teacher", TEACHERS)
def test_one_step(teachers, footage, judged, tmp_path, capsys, teacher, student):
    run = tmp_path / "run"
    options = json.dumps(STUDENTS[student])
    arguments = ["--teacher", str(teachers[teacher]), "--student", student, "--set", f"student_options={options}"]
    arguments += ["--data", str(footage), "--set", f"data.validation={judged}"]
    assert main(["train", *arguments, "--out", str(run), *ONE_STEP]) == 0, capsys.readouterr().err
    (line,) = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines() if "space" in text]
    assert line["space"] > 0
    assert line["time"] > 0
    assert (run / "student.safetensors").is_file()


def test_the_pictures_of_a_teacher_that_doubles_the_rate_are_of_the_same_moment(teachers, judged, tmp_path):
    run = tmp_path / "run"
    options = json.dumps({**STUDENTS["vdsr"]})
    arguments = ["--teacher", str(teachers["starnet-s"]), "--student", "vdsr", "--set", f"student_options={options}"]
    assert main(["train", *arguments, "--set", f"data.validation={judged}", "--out", str(run), *ONE_STEP]) == 0
    (path,) = (run / "samples").glob("*.png")
    panels = np.split(np.asarray(Image.open(path)).astype(float), 4, axis=1)
    _, student, teacher, _ = panels  # both fresh, and so both their base image
    assert np.abs(student - teacher).max() <= 2
