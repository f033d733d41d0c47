from __future__ import annotations

import json

import pytest

from distill.cli import main

TINY = [
    *("--set", "student_options={channels: 8, blocks: 1, widths: [8, 8, 8], frame_channels: 4}"),
    *("--set", "data.crop=64", "--set", "data.validation_frames=2"),
    *("--set", "distillation.warm_up=1", "--set", "distillation.memory_crop=16"),
    *("--set", "training.steps=4", "--set", "training.log_every=1"),
]


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
