"""`distill compare`, `distill report` and the paper's tables, as typed, with tiny students."""

from __future__ import annotations

import json

import pytest
import yaml

from distill.cli import main
from distill.comparison.paper_tables import find_table, read_table, table_rows
from distill.comparison.running import methods_as_rows
from distill.errors import ConfigError
from distill.losses.methods import METHODS, resolve
from distill.settings import read_yaml
from distill.training.config import Config, DataConfig, DistillationConfig
from tests.recipes.test_documents import RECIPES

ABLATIONS = [path for path in RECIPES if path.parent.name == "ablations"]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A piece of a held-out sample, small enough to be judged in no time."""
    import numpy as np
    from PIL import Image

    from distill.data import find_clips, sample_clips

    folder = tmp_path_factory.mktemp("judge")
    for clip in find_clips(sample_clips("held_out")):
        place = folder / clip.name
        place.mkdir()
        for number, frame in enumerate(clip.frames(0, 4)):
            Image.fromarray(np.ascontiguousarray(frame[64:128, 64:144])).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def arguments(quick):
    """What is typed to compare tiny students."""

    def typed(folder, judge, *more):
        return ["compare", "--judge", str(judge), "--out", str(folder), *quick, "--budget", "3it", *more]

    return typed


@pytest.fixture(scope="module")
def compared(tmp_path_factory, judge, arguments):
    folder = tmp_path_factory.mktemp("compared")
    assert main(arguments(folder, judge, "--methods", "none", "output", "std", "--seeds", "2")) == 0
    return folder


def test_every_row_and_seed_is_a_run_folder(compared):
    facts = json.loads((compared / "compare.json").read_text())
    assert (facts["methods"], facts["seeds"], facts["steps"]) == (["none", "output", "std"], [0, 1], 3)
    for row in facts["methods"]:
        for seed in facts["seeds"]:
            run = compared / row / f"seed-{seed}"
            recipe = yaml.safe_load((run / "config.yaml").read_text())
            assert (recipe["distillation"]["method"], recipe["training"]["seed"]) == (row, seed)
            judged = json.loads((run / "judged.json").read_text())
            assert list(judged) == ["bicubic", "student after", "teacher"]
            assert len(judged["student after"]["clips"]) == 2
            assert judged["student after"]["average"]["tof"] is not None


def test_rows_of_a_seed_differ_in_the_method_alone(compared):
    """The same weights to begin with and the same crops: until distillation starts the losses are equal."""
    first = [
        json.loads((compared / m / "seed-0" / "metrics.jsonl").read_text().splitlines()[0]) for m in ("none", "std")
    ]
    assert first[0]["reconstruction"] == first[1]["reconstruction"]
    other = json.loads((compared / "none" / "seed-1" / "metrics.jsonl").read_text().splitlines()[0])
    assert other["reconstruction"] != first[0]["reconstruction"]


def test_what_is_finished_is_left_alone_and_more_seeds_may_join(compared, judge, capsys, arguments):
    finished = {path: path.stat().st_mtime_ns for path in compared.rglob("student.safetensors")}
    assert main(arguments(compared, judge, "--methods", "none", "output", "std", "--seeds", "2", "--dry-run")) == 0
    assert capsys.readouterr().out.split() == ["still", "to", "run:"]
    assert main(arguments(compared, judge, "--methods", "none", "output", "std", "--seeds", "2")) == 0
    assert {path: path.stat().st_mtime_ns for path in compared.rglob("student.safetensors")} == finished


def test_other_settings_are_refused(compared, judge, capsys, arguments):
    changed = arguments(compared, judge, "--set", "optimiser.learning_rate=1e-3")
    assert main(changed) == 2
    assert "learning_rate" in capsys.readouterr().err


def test_a_changed_weight_stays_with_the_methods_that_have_the_term():
    config = Config(distillation=DistillationConfig(weights={"time": 50.0}), data=DataConfig(unlabelled="more"))
    rows = methods_as_rows(config, ["none", "output", "std"])
    found = {name: resolve(row.distillation.method, row.distillation.weights).weights for name, row in rows.items()}
    assert found == {"none": {}, "output": {"output": 1.0}, "std": {"space": 0.1, "time": 50.0}}
    assert [row.data.unlabelled for row in rows.values()] == [None, "more", "more"]


def test_figures_of_other_footage_do_not_join(compared, judge, tmp_path, capsys, arguments):
    assert main(arguments(compared, judge.parent, "--methods", "none", "output", "std", "--seeds", "2")) == 2
    assert "was judged on" in capsys.readouterr().err


def test_figures_by_other_metrics_do_not_join(compared, judge, capsys, arguments):
    assert main(arguments(compared, judge, "--methods", "none", "output", "std", "--seeds", "2", "--lpips")) == 2
    assert "judge likewise" in capsys.readouterr().err


def test_rows_that_would_share_a_folder_are_refused(tmp_path, judge, capsys, arguments):
    table = tmp_path / "table.yaml"
    table.write_text("rows: {a b: {distillation.method: none}, a/b: {distillation.method: output}}")
    assert main(arguments(tmp_path / "out", judge, "--table", str(table))) == 2
    assert "a-b" in capsys.readouterr().err


def test_report_answers(compared, document):
    found = document("report", compared)
    assert {answer["method"] for answer in found["answers"]} >= {"std", "output"}
    page = (compared / "report.html").read_text()
    assert "Did distillation help" in page


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods", "none", "stdd"], "Did you mean"),
        (["--methods", "none", "none"], "more than once"),
        (["--budget", "two"], "2000it"),
        (["--budget", "1it"], "never distil"),
        (["--seeds", "0"], "at least 1"),
        (["--table", "table2", "--methods", "none"], "leave --methods out"),
        (["--table", "table99"], "no table"),
    ],
)
def test_wrong_input(tmp_path, judge, capsys, extra, message, arguments):
    assert main(arguments(tmp_path / "out", judge, *extra)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _what_is_learnt(config):
    """Terms with their weights, and the features they compare."""
    settings = config.distillation
    chosen = resolve(settings.method, settings.weights, features=settings.features)
    if settings.method == "none":
        assert not chosen.weights, "the control has terms"
    else:
        assert set(chosen.weights) == set(METHODS[settings.method].weights)
    return tuple(chosen.weights.items()), chosen.features


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_every_table_is_usable(path):
    table = read_table(path)
    rows = table_rows(table, None, [], {})
    learnt = {name: (*_what_is_learnt(config), config.teacher, config.student) for name, config in rows.items()}
    assert len(set(learnt.values())) == len(rows), "two rows are the same"
    assert set(table.paper) == set(table.rows)
    for config in rows.values():
        assert config.training.steps == (1000 if path.stem.endswith("-small") else 800_000)


def test_everything_wrong_with_a_table_is_reported_together(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("titel: Mine\nrows: {plain: none}\npaper: {plain: {calendar: high}}\n")
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    text = str(caught.value)
    assert text.startswith(f"The table {path}: 3 things are wrong: ")
    for part in (
        "there is no key 'titel'. Did you mean 'title'?",
        "rows.plain is 'none', expected keys with values",
        "paper.plain.calendar is 'high', expected a number",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("title: Mine", "the key 'rows' is missing"),
        ("rows: {}", "rows is empty"),
        ("rows: {plain: {}}\nrecipe: 3", "recipe is 3, expected text or keys with values or null"),
        ("rows: {plain: {}}\nrecipe: none.yaml", "The recipe .*none.yaml cannot be read"),
    ],
)
def test_a_malformed_table(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_table(path)


def test_the_paper_has_tables_2_to_6_in_two_sizes():
    assert [path.stem for path in ABLATIONS] == [f"table{n}{size}" for n in range(2, 7) for size in ("-small", "")]


def test_averages_of_the_tables_are_those_of_their_clips():
    for path in ABLATIONS:
        for row, figures in read_yaml(path)["paper"].items():
            if "average" in figures:
                clips = [value for clip, value in figures.items() if clip != "average"]
                assert sum(clips) / len(clips) == pytest.approx(figures["average"], abs=0.031), row


def test_a_table_beside_the_papers(tmp_path, judge, quick, command):
    code, out, err = command(
        "compare",
        "--table",
        "table3-small",
        "--judge",
        judge,
        "--out",
        tmp_path / "t",
        "--seeds",
        "1",
        *quick,
        "--budget",
        "2it",
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "STD Table 3: space-time distillation beside other schemes"
    assert any(line.startswith("KD-MSE") and "ours" in line for line in lines)
    assert "2 steps" in lines[-2]
    assert "800,000 steps" in lines[-1]


def test_find_table():
    assert find_table("table4").name == "table4.yaml"
