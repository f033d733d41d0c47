from __future__ import annotations

import json
import logging

import pytest
import torch
from PIL import Image

from distill.errors import ConfigError
from distill.training.run_folder import RunFolder, log, next_free


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start("steps: 3\n", "distill train", resuming=False)
    return folder


def test_a_run_begins_with_its_recipe_its_command_and_its_environment(run):
    assert (run.path / "config.yaml").read_text() == "steps: 3\n"
    assert (run.path / "command.txt").read_text() == "distill train\n"
    assert json.loads((run.path / "env.json").read_text())["torch"] == str(torch.__version__)


def test_a_folder_that_holds_a_run_takes_no_other_but_goes_on(run):
    run.measure({"step": 1})
    run.last.write_bytes(b"")
    with pytest.raises(ConfigError, match="already holds a run"):
        run.start("steps: 4\n", "distill train", resuming=False)
    assert (run.path / "config.yaml").read_text() == "steps: 3\n"
    run.start("steps: 4\n", "distill train --resume", resuming=True)
    assert (run.path / "config.yaml").read_text() == "steps: 4\n"
    assert (run.path / "command.txt").read_text() == "distill train\ndistill train --resume\n"
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_figures_of_a_run_that_saved_nothing_are_gone(run):
    run.measure({"step": 1})
    run.start("steps: 3\n", "distill train", resuming=False)
    assert not (run.path / "metrics.jsonl").exists()


def test_a_place_that_cannot_be_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder(tmp_path / "file").start("", "", resuming=False)


def test_lines_after_a_step_and_half_written_ones_are_dropped(run):
    run.forget_after(1)
    for step in (1, 2, 2, 3):
        run.measure({"step": step})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "psn')
    run.forget_after(2)
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 2]


def test_what_is_logged_in_the_block_is_in_the_file(run):
    level = log.level
    log.setLevel(logging.INFO)
    try:
        with run.logging_to_file():
            log.info("within")
        log.info("without")
    finally:
        log.setLevel(level)
    (line,) = (run.path / "log.txt").read_text().splitlines()
    assert line.endswith(" within")


def test_a_picture_is_its_panels_side_by_side(run):
    path = run.picture("step-000001", [torch.zeros(3, 2, 4), torch.full((3, 2, 4), 1.5)])
    assert path == run.path / "samples" / "step-000001.png"
    with Image.open(path) as picture:
        assert picture.size == (8, 2)
        assert [picture.getpixel((x, 0)) for x in (3, 4)] == [(0, 0, 0), (255, 255, 255)]


def test_the_next_free_name(tmp_path):
    assert next_free(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert next_free(tmp_path / "run") == tmp_path / "run-3"
