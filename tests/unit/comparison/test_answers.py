from __future__ import annotations

import json

import numpy as np
import pytest

from distill.comparison.answers import answers, present_metrics, signed, tables
from distill.comparison.facts import reproduction
from distill.comparison.results import read_comparison
from distill.errors import ConfigError, DataError
from distill.report.curves import learning_curves
from tests.stand_ins.comparison_folders import evaluation, figures_only, write_plan, write_run

NONE = [[30.0, 28.0], [30.1, 28.2], [29.9, 28.1]]


def shifted(*gains: float) -> list[list[float]]:
    return [[value + gain for value in row] for row, gain in zip(NONE, gains, strict=True)]


def the_answer(folder):
    (answer,) = [each for each in answers(read_comparison(folder)) if each.metric == "psnr"]
    return answer


@pytest.mark.parametrize(
    ("gains", "verdict", "told"),
    [
        ((0.20, 0.21, 0.22), "yes", "yes"),
        ((-0.20, -0.21, -0.22), "no", "no, it hurt"),
        ((0.20, -0.01, 0.22), "not shown", "not shown"),
        ((0.0, 0.0, 0.0), "not shown", "not shown"),
    ],
)
def test_the_verdict_goes_by_the_interval(tmp_path, gains, verdict, told):
    answer = the_answer(figures_only(tmp_path, {"none": NONE, "std": shifted(*gains)}))
    assert (answer.verdict, answer.told_verdict) == (verdict, told)
    assert answer.mean == pytest.approx(sum(gains) / 3)
    half = 4.3027 * np.std(gains, ddof=1) / 3**0.5
    assert (answer.over_seeds.high - answer.over_seeds.low) / 2 == pytest.approx(half, rel=1e-4, abs=1e-9)
    assert answer.better == 2 * sum(gain > 1e-9 for gain in gains)


def test_the_wider_interval_decides(tmp_path):
    # steady over seeds, but one clip gains and the other loses less: clips like these may well lose
    std = [[row[0] + 0.5 + 0.001 * seed, row[1] - 0.1] for seed, row in enumerate(NONE)]
    answer = the_answer(figures_only(tmp_path, {"none": NONE, "std": std}))
    assert answer.over_seeds.low > 0
    assert answer.over_seeds_and_clips.low < 0
    assert answer.interval == answer.over_seeds_and_clips
    assert answer.verdict == "not shown"


def test_one_seed_shows_nothing(tmp_path):
    answer = the_answer(figures_only(tmp_path, {"none": NONE[:1], "std": [[31.0, 29.0]]}))
    assert answer.told_verdict == "not shown (one seed)"
    assert answer.interval is None
    assert "1 seed × 2 clips" in answer.sentence(present_metrics(read_comparison(tmp_path))["psnr"])


def test_one_clip_is_answered_over_seeds(tmp_path):
    grids = {"none": [[30.0], [30.1]], "std": [[30.5], [30.6]]}
    answer = the_answer(figures_only(tmp_path, grids))
    assert answer.over_seeds_and_clips is None
    assert answer.interval == answer.over_seeds
    assert answer.verdict == "yes"


def test_differences_are_paired_over_the_seeds_that_both_have(tmp_path):
    folder = figures_only(tmp_path, {"none": NONE, "output": shifted(0.1, 0.1, 0.1), "std": shifted(0.3, 0.2, 0.1)[:2]})
    comparison = read_comparison(folder)
    found = {(each.method, each.against): each for each in answers(comparison) if each.metric == "psnr"}
    assert list(found) == [("output", "none"), ("std", "none"), ("std", "output")]
    assert found["std", "none"].seeds == (0, 1)
    assert np.allclose(found["std", "none"].differences, [[0.3, 0.3], [0.2, 0.2]])
    assert found["std", "output"].mean == pytest.approx(0.15)
    assert comparison.missing == ("std at seed 2 was not started",)
    table = tables(comparison)[0]
    assert table.rows["clip0"]["none"] == pytest.approx(30.0)
    assert table.rows["clip0"]["std"] == pytest.approx(30.3)
    assert table.to_none["clip0"]["std"] == pytest.approx(0.25), "to none at the same two seeds"
    assert table.rows["average"]["output"] == pytest.approx(np.mean(NONE) + 0.1)
    assert table.by_seed[2] == pytest.approx({"none": 29.0, "output": 29.1})


def test_lower_is_better_where_it_is_and_what_was_not_measured_is_left_out(tmp_path):
    write_plan(tmp_path, ["none", "std"], range(3))
    for seed in range(3):
        for method, gain in (("none", 0.0), ("std", 0.1 + 0.01 * seed)):
            quality = {"psnr": 30 + gain, "ssim": 0.5, "frames": 3}
            clip = {**quality, "tof": 0.5 - gain, "warping": 0.01 + gain, "given": quality, "between": quality}
            clips = {"a": clip, "b": {**clip, "warping": None, "lpips": 0.1}}
            write_run(tmp_path / method / f"seed-{seed}", {"student after": evaluation(clips)})
    comparison = read_comparison(tmp_path)
    found = {each.metric: each for each in answers(comparison)}
    assert list(found) == ["psnr", "ssim", "given.psnr", "between.psnr", "lpips", "tof", "warping"]
    assert found["tof"].mean == pytest.approx(-0.11)
    assert {metric: each.verdict for metric, each in found.items()} == {
        "psnr": "yes",
        "ssim": "not shown",
        "given.psnr": "yes",
        "between.psnr": "yes",
        "lpips": "not shown",
        "tof": "yes",
        "warping": "no",
    }
    assert found["tof"].better == 6
    assert found["warping"].clips == ("a",)
    assert found["lpips"].clips == ("b",)


def test_rows_of_a_table_find_the_controls_of_their_student(tmp_path):
    rows = {
        "wide alone": ("wide", "none", 30.0),
        "thin alone": ("thin", "none", 25.0),
        "thin, taught": ("thin", "std", 26.0),
        "wide, taught": ("wide", "std", 30.5),
    }
    folders = {name: name.replace(" ", "-").replace(",", "") for name in rows}
    write_plan(tmp_path, list(rows), [0, 1], folders=folders)
    for name, (student, method, figure) in rows.items():
        for seed in range(2):
            results = {"student after": evaluation({"a": figure + 0.1 * seed})}
            path = tmp_path / folders[name] / f"seed-{seed}"
            write_run(path, results, student=student, distillation={"method": method})
    comparison = read_comparison(tmp_path)
    found = {(each.method, each.against): each.mean for each in answers(comparison) if each.metric == "psnr"}
    assert found == {
        ("thin, taught", "thin alone"): pytest.approx(1.0),
        ("wide, taught", "wide alone"): pytest.approx(0.5),
    }
    assert set(reproduction(comparison).differences) == {"student", "distillation.method"}


def test_figures_of_the_judge_go_before_those_of_training(tmp_path):
    figures_only(tmp_path, {"none": NONE, "std": shifted(0.1, 0.1, 0.1)})
    plan = json.loads((tmp_path / "compare.json").read_text())
    (tmp_path / "compare.json").write_text(json.dumps({**plan, "judge": "elsewhere"}))
    assert read_comparison(tmp_path).judge == "samples"
    for method, figure in (("none", 20.0), ("std", 21.0)):
        for seed in range(2):
            judged = {"student after": evaluation({"judge": figure})}
            (tmp_path / method / f"seed-{seed}" / "judged.json").write_text(json.dumps(judged))
    comparison = read_comparison(tmp_path)
    assert the_answer(tmp_path).mean == 1.0
    assert comparison.judge == "elsewhere"
    assert comparison.missing == ("none at seed 2 was not judged yet", "std at seed 2 was not judged yet")


def test_recipes_that_differ_in_more_than_the_method_are_unfair(tmp_path):
    write_plan(tmp_path, ["none", "std"], [0])
    figures = {"student after": evaluation({"a": 30.0})}
    shared = {"training": {"seed": 0, "steps": 40}, "distillation": {"warm_up": 3}}
    write_run(tmp_path / "none" / "seed-0", figures, **{**shared, "teacher": None})
    write_run(tmp_path / "std" / "seed-0", figures, **{**shared, "training": {"seed": 0, "steps": 80}})
    found = reproduction(read_comparison(tmp_path))
    assert found.differences == {"teacher": {"none": None, "std": "edvr"}}
    assert found.unfair == {"training.steps": {"none at seed 0": 40, "std at seed 0": 80}}
    assert found.recipe == {"data.validation": "samples", "training.seed": 0, "distillation.warm_up": 3}


def test_curves_average_over_slices_and_seeds(tmp_path):
    figures_only(tmp_path, {"none": NONE, "std": shifted(0.1, 0.1, 0.1)})
    for method, scale in (("none", 1.0), ("std", 2.0)):
        for seed in range(3):
            lines = [{"step": step, "loss": 9, "reconstruction": scale * (step + seed)} for step in range(1, 41)]
            lines += [{"step": step, "psnr": 20 + seed + step, "ssim": 0.1} for step in (20, 40)]
            path = tmp_path / method / f"seed-{seed}" / "metrics.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "reco')
    plan = json.loads((tmp_path / "compare.json").read_text())
    (tmp_path / "compare.json").write_text(json.dumps({**plan, "steps": 120}))  # slices of two steps
    curves = learning_curves(read_comparison(tmp_path))
    validation, loss = curves.panels
    assert (validation.title, loss.title, curves.slice_steps) == ("Validation PSNR, dB", "Loss: reconstruction", 2)
    assert validation.curves["none"][1] == ((20.0, 41.0), (40.0, 61.0))
    assert loss.curves["std"][0][:2] == ((1.5, 3.0), (3.5, 7.0))
    (mean,) = [line for line in loss.lines(("none", "std"), 7) if line.thick and line.tone == 1]
    assert mean.points[0] == (1.5, 2 * (1.5 + 1))


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda folder: folder.rename(folder.parent / "elsewhere"), ConfigError, "no compare.json"),
        (lambda folder: (folder / "compare.json").unlink(), ConfigError, "no compare.json"),
        (lambda folder: (folder / "compare.json").write_text("{"), ConfigError, "is damaged"),
        (lambda folder: (folder / "compare.json").write_text('{"teacher": null}'), ConfigError, "is damaged"),
        (lambda folder: [path.unlink() for path in folder.glob("*/*/results.json")], DataError, "no finished run"),
        (
            lambda folder: [path.unlink() for path in folder.glob("none/*/results.json")],
            DataError,
            "nothing to compare",
        ),
        (
            lambda folder: (folder / "std/seed-0/results.json").write_text(
                json.dumps({"student after": evaluation({"clip0": 1.0, "clip1": 1.0}, crop=4)})
            ),
            DataError,
            "judged on other clips or by another convention",
        ),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(tmp_path, spoil, error, said):
    folder = figures_only(tmp_path / "compared", {"none": NONE, "std": shifted(0.1, 0.1, 0.1)})
    spoil(folder)
    with pytest.raises(error, match=said) as caught:
        read_comparison(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_run_that_cannot_be_read_is_left_out_by_name(tmp_path):
    folder = figures_only(tmp_path, {"none": NONE, "std": shifted(0.1, 0.1, 0.1)})
    (folder / "std/seed-1/results.json").write_text('{"student after": 3}')
    (folder / "none/seed-2/config.yaml").unlink()
    missing = read_comparison(folder).missing
    assert [sentence.partition(" cannot be read (")[0] for sentence in missing] == ["none at seed 2", "std at seed 1"]


def test_minutes_leave_out_the_pause_before_a_run_was_resumed(tmp_path):
    folder = figures_only(tmp_path, {"none": NONE, "std": shifted(0.1, 0.1, 0.1)})
    (folder / "none/seed-0/log.txt").write_text(
        "2026-01-02 10:00:00,000 began\n2026-01-02 10:05:00,500 stopped\nof two lines\n"
        "2026-01-03 09:00:00,000 going on from step 20\n2026-01-03 09:01:30,000 ended\n"
    )
    runs = read_comparison(folder).runs
    assert runs["none", 0].minutes == pytest.approx(6.5)
    assert runs["none", 1].minutes is None


def test_signs():
    assert [signed(value, 2) for value in (0.126, -0.126, -0.001, 0)] == ["+0.13", "\u22120.13", "\u22120.001", "0.00"]
