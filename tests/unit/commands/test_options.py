from __future__ import annotations

import dataclasses

import pytest

from distill.cli import _parser
from distill.commands.options import recipe_flags
from distill.training.config import read_config


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("train", {}),
        ("train --student vdsr --unlabelled more --force", ["student", "data.unlabelled", "data.force"]),
        (
            "pretrain vdsr --time-scale 2 --method none",
            ["student", "student_options.time_scale", "distillation.method"],
        ),
        ("adapt run clip.mp4 --data samples --steps 3", ["student", "data.path", "data.unlabelled", "training.steps"]),
        ("compare --teacher edvr --precision fp32 --device cpu", ["teacher", "training.device", "training.precision"]),
        ("train --seed 0", ["training.seed"]),
    ],
)
def test_options_that_are_given_are_settings_of_a_recipe(line, flags):
    found = recipe_flags(_parser().parse_args(line.split()))
    assert set(found) == set(flags)
    assert dataclasses.is_dataclass(read_config(None, [], found)), "the recipe knows every key"


def test_footage_is_what_is_learnt_from_without_truth():
    found = recipe_flags(_parser().parse_args(["adapt", "run", "clips/mine.mp4"]))
    assert found == {"student": "run", "data.unlabelled": "clips/mine.mp4"}
