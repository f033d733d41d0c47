"""`distill train --unlabelled`: footage of low resolution as it is, which the teacher supervises."""

from __future__ import annotations

import json

import pytest

from tests.recipes.conftest import frames

SMALL = [
    *("--set", "student_options={channels: 8, blocks: 1, widths: [8, 8, 8], frame_channels: 4}"),
    *("--set", "data.crop=64", "--set", "data.validation_frames=2", "--set", "data.frames=3"),
    *("--set", "distillation.warm_up=1", "--set", "training.steps=3", "--set", "training.log_every=1"),
    *("--set", "training.precision=fp32"),
]


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Two short clips of low resolution."""
    return frames(tmp_path_factory.mktemp("footage"), 5, 24, 40)


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def test_unlabelled_footage_adds_lambda_times_its_loss_and_resume_goes_on(document, lesson, footage, tmp_path):
    out = tmp_path / "run"
    weighted = ["--set", "distillation.unlabelled=0.25", "--set", "distillation.weights.output=2"]
    method = ["--method", "output", "--unlabelled", footage]
    document("train", "--out", out, *lesson, *SMALL, *method, *weighted)
    first, *later = losses(out)
    assert set(first) == {"step", "learning_rate", "loss", "reconstruction"}, "the first step is warm-up"
    for line in later:
        assert set(line) == {"step", "learning_rate", "loss", "reconstruction", "output", "unlabelled output"}
        assert line["unlabelled output"] > 0
        total = line["reconstruction"] + 2 * line["output"] + 0.25 * 2 * line["unlabelled output"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    document("train", "--resume", "auto", "--out", out, "--set", "training.steps=4")
    resumed = losses(out)
    assert [line["step"] for line in resumed] == [1, 2, 3, 4]
    assert resumed[:3] == [first, *later]
    assert resumed[3]["unlabelled output"] > 0


def test_a_resumed_run_sees_the_unlabelled_crops_of_an_unbroken_one(document, lesson, footage, tmp_path):
    same = [*lesson, *SMALL, "--method", "output", "--unlabelled", footage, "--set", "optimiser.schedule=halving"]
    document("train", "--out", tmp_path / "whole", *same)
    document("train", "--out", tmp_path / "broken", *same, "--set", "training.steps=2")
    document("train", "--resume", "auto", "--out", tmp_path / "broken", "--set", "training.steps=3")
    last, unbroken = (losses(tmp_path / name)[-1] for name in ("broken", "whole"))
    assert last == pytest.approx(unbroken, rel=1e-6)


def test_with_a_cache_the_second_run_makes_nothing_anew(document, lesson, footage, tmp_path):
    cached = [
        *lesson,
        *SMALL,
        "--method",
        "output",
        "--unlabelled",
        footage,
        "--set",
        f"distillation.cache={tmp_path / 'cache'}",
    ]
    results, kept = [], []
    for name in ("cold", "warm"):
        results.append((document("train", "--out", tmp_path / name, *cached)["results"], losses(tmp_path / name)))
        kept.append({path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")})
    assert len(kept[0]) == 2 * 2, "frames of a labelled and an unlabelled crop of each step after the warm-up"
    assert kept[0] == kept[1]
    assert results[0] == results[1]


def test_what_learns_nothing_from_it_is_refused(command, footage, tmp_path):
    code, out, error = command("train", "--method", "none", "--unlabelled", footage, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert "has no high resolution, and the method 'none' learns from nothing else" in error
    assert "such as output" in error
    assert not (tmp_path / "run").exists()


def test_footage_that_cannot_be_used_is_one_sentence(command, footage, tmp_path):
    missing = ["--unlabelled", tmp_path / "nowhere"]
    large = ["--unlabelled", footage, "--set", "data.crop=128", "--set", "data.frames=3"]
    long = ["--unlabelled", footage, "--set", "data.frames=7"]
    cases = ((missing, "nowhere"), (large, "40x24 against 32x32"), (long, "it has 5 and a sample takes 7"))
    for arguments, sentence in cases:
        code, _, error = command("train", "--method", "output", "--out", tmp_path / "run", *arguments)
        assert code == 2
        assert sentence in error.strip().splitlines()[-1]
