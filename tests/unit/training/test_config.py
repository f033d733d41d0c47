from __future__ import annotations

import pytest
import yaml

from distill.errors import ConfigError
from distill.settings import to_yaml
from distill.training.config import Config, read_config
from tests.places import ROOT

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_reads_and_opens_with_its_command(recipe):
    read_config(recipe, [], {})
    assert recipe.name in recipe.read_text().splitlines()[0], "the first line is the command that runs it"


def test_recipe_then_setting_then_flag(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("training: {steps: 5, batch: 6, seed: 7}\ndata: {crop: 64}\n")
    config = read_config(file, ["training.batch=8", "training.seed=9"], {"training.seed": 10, "student": None})
    assert (config.training.steps, config.training.batch, config.training.seed) == (5, 8, 10)
    assert config.data.crop == 64
    assert config.student == Config().student


def test_everything_wrong_is_reported_together_with_its_place(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("optimizer: {learning_rate: 1}\ntraining: {step: 5, batch: many}\n")
    with pytest.raises(ConfigError) as caught:
        read_config(file, ["data.degradation=bx"], {})
    text = str(caught.value)
    assert text.startswith("4 things are wrong")
    for part in (
        str(file),
        "'optimizer.learning_rate'. Did you mean 'optimiser.learning_rate'?",
        "'training.step'. Did you mean 'training.steps'?",
        "training.batch is 'many', expected a whole number",
        "--set data.degradation=bx: data.degradation is 'bx', expected one of 'bi', 'bd', 'bd-centred'",
    ):
        assert part in text
    assert "\n" not in text


def test_what_is_written_reads_back_the_same(tmp_path):
    config = read_config(
        None,
        ["student_options.channels=32", "data.exclude=[a, b/]", "teacher=null", "optimiser.learning_rate=1e-4"],
        {},
    )
    assert config.student_options == {"channels": 32}
    assert config.optimiser.learning_rate == 1e-4
    file = tmp_path / "again.yaml"
    file.write_text(to_yaml(config))
    assert read_config(file, [], {}) == config


def test_settings_of_options_go_into_those_of_the_recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("student_options: {channels: 32, blocks: 2}\n")
    assert read_config(file, ["student_options.blocks=3"], {}).student_options == {"channels": 32, "blocks": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("- a\n", "holds a list"), ("a: [\n", "is not YAML"), ("\xff\xfe: 1\n", "there is no key")],
)
def test_a_file_that_is_no_recipe(tmp_path, text, expected):
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_config(file, [], {})


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.steps", "has no '='"),
        ("training.steps=0", "expected at least 1"),
        ("training.steps=true", "expected a whole number"),
        ("training.device=3", "expected text"),
        ("data.exclude=a", "expected a list of names"),
        ("training.restore=middle", "which a teacher's memory"),
        ("optimiser.learning_rate=-1", "expected more than 0"),
        ("data.force=1", "expected true or false"),
    ],
)
def test_a_setting_that_does_not_fit(setting, expected):
    with pytest.raises(ConfigError, match=expected):
        read_config(None, [setting], {})


def test_the_defaults_are_written_down_once():
    assert yaml.safe_load(to_yaml(Config()))["data"]["degradation"] == "bi"
