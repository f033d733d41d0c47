from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from PIL import Image

from distill.cli import main
from distill.data import find_clips, sample_clips
from distill.networks import costs
from distill.networks.checkpoint import Described, save
from distill.training.interruption import Interruption
from teachers.edvr import EDVR

TINY = [
    *("--set", "student_options={channels: 8, blocks: 1, widths: [8, 8, 8], frame_channels: 4}"),
    *("--set", "data.crop=64", "--set", "data.validation_frames=2"),
    *("--set", "distillation.warm_up=1", "--set", "distillation.memory_crop=16"),
    *("--set", "training.steps=4", "--set", "training.log_every=1"),
]
TINY_TEACHER = {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1}


def frames(folder, count, height, width):
    """The first frames of two training samples as folders of pictures, and of each its upper left corner."""
    for clip in find_clips(sample_clips("train"))[:2]:
        (folder / clip.name).mkdir(parents=True)
        for index, frame in enumerate(clip.frames(0, count)):
            Image.fromarray(frame[:height, :width]).save(folder / clip.name / f"{index}.png")
    return folder


@pytest.fixture(autouse=True, scope="module")
def signals_end_the_test_run():
    """A training in this process would take a signal that is meant for the test run: save, stop, and fail its test.

    Whoever stops the run is then told of a test that fails in no other run, and the run goes on. How trainings take
    signals is tested in processes of their own, and in tests/unit/training, which this must not reach.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interruption, "catching_signals", lambda interruption: nullcontext())
        yield


@pytest.fixture
def command(capsys):
    """Runs `distill ...` and gives its exit code, what it printed, and what it said on the side."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def document(command):
    """Runs `distill ... --json`, which must succeed, and gives the one document it prints."""

    def run(*arguments):
        code, out, err = command(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A finished run of the main job with a tiny student."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "--teacher", "edvr", "--student", "fastdvdnet", "--out", str(path), *TINY]) == 0
    return path


@pytest.fixture(scope="session")
def footage(tmp_path_factory):
    """Pieces of the training samples as pictures: decoding whole samples takes longer than training on them."""
    folder = tmp_path_factory.mktemp("footage")
    for clip in find_clips(sample_clips("train"))[:2]:
        (folder / clip.name).mkdir()
        for number, frame in enumerate(clip.frames(0, 10)):
            Image.fromarray(frame[64:136, 64:160]).save(folder / clip.name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def quick(footage):
    """As `TINY`, on such footage, with batches as small as they get."""
    small = ["--set", "data.frames=3", "--set", "training.batch=1"]
    return [*TINY, *small, "--set", f"data.path={footage}", "--set", f"data.validation={footage}"]


@pytest.fixture(scope="session")
def lesson(tmp_path_factory):
    """Arguments of a run of a moment: a small teacher, and small clips to train on and to judge on."""
    folder = tmp_path_factory.mktemp("lesson")
    save(folder / "teacher.safetensors", EDVR(**TINY_TEACHER), Described("edvr", TINY_TEACHER, "bi"))
    clips = frames(folder / "clips", 6, 64, 80)
    return ["--teacher", folder / "teacher.safetensors", "--data", clips, "--set", f"data.validation={clips}"]


@pytest.fixture(scope="session")
def counted_once():
    """Counting every network takes most of a minute, so each is counted once in a session."""
    count, known = costs._row, {}

    def row(entry):
        if entry.elsewhere:  # may be another one in each test
            return count(entry)
        if entry.name not in known:
            known[entry.name] = count(entry)
        return known[entry.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "_row", row)
        yield
