"""The whole command on the shipped clips: train, then eval, upscale, export and profile what came out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import find_clips, sample_clips
from distill.networks.checkpoint import read, read_training_state
from tests.recipes.conftest import TINY


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_everything(run_folder):
    expected = ["config.yaml", "command.txt", "env.json", "log.txt", "metrics.jsonl", "student.safetensors"]
    for name in [*expected, "checkpoints/last.pt", "checkpoints/best.pt"]:
        assert (run_folder / name).stat().st_size > 0, name
    lines = metrics(run_folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert set(lines[0]) == {"step", "learning_rate", "loss", "reconstruction"}, "the first step is warm-up"
    assert {"space", "time"} <= set(lines[1])
    with Image.open(run_folder / "samples" / "step-000004.png") as picture:
        assert picture.size == (4 * 432, 240), "bicubic | student | teacher | truth"
    described = read(run_folder).described
    assert (described.name, described.degradation) == ("fastdvdnet", "bi")
    assert described.provenance["validation"]["convention"]["degradation"] == "bi"


def test_train_prints_the_table_and_the_next_commands(command, tmp_path):
    code, out, _ = command("train", "--out", tmp_path / "run", *TINY, "--set", "training.steps=1")
    assert code == 0
    rows = [line.rsplit(None, 2)[0] for line in out.splitlines()[2:6]]
    assert rows == ["bicubic", "student before", "student after", "teacher"]
    assert "degradation bi" in out
    for verb in ("eval", "upscale", "export", "profile"):
        assert f"distill {verb} " in out


def test_student_after_is_the_student_that_is_left_behind(document, quick, tmp_path):
    spoilt = ["--set", "training.validate_every=1", "--set", "optimiser.learning_rate=0.01"]
    spoilt += ["--set", "optimiser.schedule=halving", "--set", "training.steps=2"]
    result = document("train", "--out", tmp_path / "run", *quick, *spoilt)
    psnr = [line["psnr"] for line in metrics(tmp_path / "run") if "psnr" in line]
    assert psnr[-1] < max(psnr), "nothing to tell apart"
    after = result["results"]["student after"]
    assert after["average"]["psnr"] == max(psnr)
    assert after == read(tmp_path / "run").described.provenance["validation"]


def test_the_same_seed_trains_the_same_whatever_the_workers(document, quick, tmp_path):
    weights = []
    for name, workers, seed in (("a", 0, 3), ("b", 2, 3), ("c", 0, 4)):
        extra = ["--seed", seed, "--set", f"data.workers={workers}", "--set", "training.steps=3"]
        document("train", "--out", tmp_path / name, *quick, *extra)
        weights.append(read(tmp_path / name).network.tail.conv_last.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_resume_goes_on_with_everything(document, quick, tmp_path):
    out = tmp_path / "run"
    document("train", "--out", out, *quick, "--set", "training.steps=2")
    before = metrics(out)
    result = document("train", "--resume", "auto", "--out", out, "--set", "training.steps=3")
    assert [line["step"] for line in metrics(out)] == [line["step"] for line in before] + [3, 3]
    _, _, state = read_training_state(out / "checkpoints" / "last.pt")
    assert state["step"] == 3
    assert set(state["optimiser"]["param_groups"][0]) >= {"lr", "factor"}
    assert set(state["task"]["lessons"][0]["terms"]) >= {"time.memory.conv.weight", "time.memory.conv.bias"}
    assert state["random"].dtype == torch.uint8
    assert list(result["results"]) == ["bicubic", "student before", "student after", "teacher"]
    assert len((out / "command.txt").read_text().splitlines()) == 2


def test_resume_takes_a_changed_recipe_and_a_half_written_line(document, quick, tmp_path):
    out = tmp_path / "run"
    small = "student_options={channels: 8, offset_groups: 2, extract_blocks: 1, reconstruct_blocks: 1}"
    tiny = ["--set", small, *quick[2:], "--set", "training.steps=1"]
    document("pretrain", "edvr-s", "--out", out, *tiny)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "psn')
    changed = ["--set", "optimiser.offset_rate=0.01", "--set", "training.steps=2"]
    document("pretrain", "--resume", out / "checkpoints" / "last.pt", *changed)
    _, _, state = read_training_state(out / "checkpoints" / "last.pt")
    assert [group["factor"] for group in state["optimiser"]["param_groups"]] == [1.0, 0.01]
    assert [line["step"] for line in metrics(out)] == [1, 1, 2, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_saves_first_and_resume_goes_on(quick, tmp_path, number):
    out = tmp_path / "run"
    arguments = ["train", "--out", str(out), *quick, "--set", "training.steps=100000"]
    program = [sys.executable, "-c", "import sys; from distill.cli import main; sys.exit(main())", *arguments]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (out / "metrics.jsonl").exists() and process.poll() is None:  # for as long as a busy machine takes
        time.sleep(0.1)
    process.send_signal(number)
    _, error = process.communicate(timeout=600)  # without end if it takes no notice
    assert process.returncode == 130, error
    assert "--resume auto" in error
    described, _, state = read_training_state(out / "checkpoints" / "last.pt")
    assert described.name == "fastdvdnet"
    assert 0 < state["step"] < 100000


def test_pretrain_needs_no_teacher_and_goes_on_from_a_file(document, quick, tmp_path):
    teacher = [
        *("--set", "student_options={channels: 8, offset_groups: 2, extract_blocks: 1, reconstruct_blocks: 1}"),
        *("--set", "training.restore=middle", "--precision", "bf16", *quick[2:]),
    ]
    result = document("pretrain", "edvr-s", "--out", tmp_path / "first", *teacher)
    assert list(result["results"]) == ["bicubic", "student before", "student after"]
    first = tmp_path / "first" / "student.safetensors"
    document("pretrain", first, "--out", tmp_path / "second", *quick[2:], "--set", "training.steps=1")
    assert read(tmp_path / "second").described.provenance["from"] == str(first)
    # and what was pretrained teaches
    result = document("train", "--teacher", first, "--out", tmp_path / "third", *quick, "--set", "training.steps=2")
    assert "teacher" in result["results"]


@pytest.mark.parametrize("features", ["hr", "lr"])
@pytest.mark.parametrize("method", ["attention-sum", "attention-max"])
def test_every_way_to_compare_features(document, quick, tmp_path, features, method):
    extra = ["--set", f"distillation.features={features}", "--set", f"distillation.method={method}"]
    document("train", "--out", tmp_path / "run", *quick, *extra, "--set", "training.steps=2")
    assert metrics(tmp_path / "run")[1][method] > 0


def test_dry_run_checks_and_writes_nothing(document, tmp_path):
    planned = document("train", "--out", tmp_path / "run", "--dry-run", *TINY)
    assert planned["clips"] == 3
    assert "warm_up: 1" in planned["config"]
    assert not (tmp_path / "run").exists()


def test_eval_of_the_student_and_of_bicubic(document, command, run_folder, tmp_path):
    clip = next(clip for clip in find_clips(sample_clips("held_out")) if clip.name == "road")
    short = tmp_path / "clips" / "road"
    short.mkdir(parents=True)
    for index, frame in enumerate(clip.frames(0, 3)):
        Image.fromarray(frame[:60, :64]).save(short / f"{index}.png")
    for network in (run_folder, run_folder / "checkpoints" / "best.pt", "bicubic", "edvr"):
        result = document("eval", network, "--data", tmp_path / "clips", "--degradation", "bi")
        assert set(result) == {"clips", "average", "convention"}
        assert set(result["clips"]) == {"road"}
        assert result["clips"]["road"]["frames"] == 3, "every frame counts"
        assert 15 < result["average"]["psnr"] < 50
        assert 0 < result["average"]["ssim"] <= 1
        facts = {name: result["convention"][name] for name in ("channel", "crop", "degradation", "scale")}
        assert facts == {"channel": "y", "crop": 0, "degradation": "bi", "scale": 4}
    code, _, error = command("eval", run_folder, "--data", tmp_path / "clips", "--degradation", "bd")
    assert code == 2
    assert "trained on degradation bi" in error
    code, out, _ = command("eval", run_folder, "--data", tmp_path / "clips", "--degradation", "bd", "--force")
    assert code == 0
    assert "degradation bd" in out


def test_upscale_export_and_profile_the_student(document, run_folder, tmp_path):
    source = sample_clips("held_out") / "flower.mp4"
    small = tmp_path / "small"
    small.mkdir()
    for index, frame in enumerate(find_clips(source)[0].frames(0, 4)):
        Image.fromarray(frame[:40, :64]).save(small / f"{index}.png")
    target = tmp_path / "large.mp4"
    result = document("upscale", small, target, "--network", run_folder)
    assert (result["frames"], result["width"], result["height"]) == (4, 256, 160)
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4

    (exported,) = document("export", run_folder, "--to", "onnx", "--out", tmp_path / "export")
    assert exported["parity"]["max_abs"] <= 1e-4
    assert len({tuple(size) for size in exported["parity"]["sizes"]}) >= 2
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["student.onnx"]
    assert exported["metadata"]["degradation"] == "bi"
    assert str(run_folder) not in json.dumps(exported["metadata"]), "a path of this machine goes to strangers"
    assert exported["quality"] is None
    same = tmp_path / "same"
    document("upscale", small, same, "--network", tmp_path / "export" / "student.onnx")
    document("upscale", small, tmp_path / "eager", "--network", run_folder)
    for path in sorted(same.iterdir()):
        frames = [np.asarray(Image.open(folder / path.name)).astype(int) for folder in (same, tmp_path / "eager")]
        assert np.abs(frames[0] - frames[1]).max() <= 1

    profile = document("profile", tmp_path / "export" / "student.onnx", "--size", "32x24", "--threads", "1")
    assert "host" in json.dumps(profile).lower()
    assert json.loads(json.dumps(profile))["rows"][0]["isMinQueryMet"] is True


def test_streaming_and_int8_exports(document, command, run_folder, tmp_path):
    out, pieces = tmp_path / "export", tmp_path / "pieces"
    for clip in find_clips(sample_clips("held_out")):
        (pieces / clip.name).mkdir(parents=True)
        for index, frame in enumerate(clip.frames(0, 8)):
            Image.fromarray(np.ascontiguousarray(frame[64:192, 64:256])).save(pieces / clip.name / f"{index}.png")
    both = ["--to", "onnx", "--streaming", "--precision", "fp32", "int8", "--size", "48x32", "--data", pieces]
    both += ["--out", out]
    plain, small = document("export", run_folder, *both)
    names = ["student-48x32-streaming-int8.onnx", "student-48x32-streaming.onnx"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert plain["metadata"]["sizes"] == "32x48"
    assert plain["parity"]["frames"] == 21, "two clips of seven frames from the first to the last, one mirrored too"
    assert small["bytes"] < 0.5 * plain["bytes"]
    assert set(small["quality"]["lost_psnr_db"]) == {"flower", "road"}
    judged = small["quality"]["after"]
    evaluated = document("eval", out / "student-48x32-streaming-int8.onnx", "--data", pieces)
    assert evaluated["clips"] == judged["clips"]
    code, _, error = command("export", run_folder, *both, "--floor", "200")
    assert code == 1
    assert "under the floor of 200 dB" in error
    code, _, error = command("eval", out / "student-48x32-streaming.onnx", "--data", pieces, "--degradation", "bd")
    assert (code, "trained on degradation bi" in error) == (2, True)
