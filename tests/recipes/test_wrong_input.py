"""Wrong input: exit code 2 and one clear sentence, nothing written."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from distill.data import sample_clips
from tests.recipes.conftest import TINY, frames


@pytest.fixture
def refused(command):
    """Runs `distill ...`, which must refuse, and gives its sentence."""

    def run(*arguments):
        code, out, error = command(*arguments)
        assert code == 2, error
        assert out == ""
        sentence = error.strip().splitlines()[-1]
        assert sentence.startswith("distill: ")
        assert "Traceback" not in error
        assert error.strip().count("distill: ") == 1
        return sentence

    return run


def test_unknown_teacher_with_a_suggestion(refused):
    assert "Did you mean 'edvr'?" in refused("train", "--teacher", "evdr")


def test_networks_that_keep_the_size_are_not_trained(refused):
    assert "keeps the size" in refused("pretrain", "fastdvdnet-denoiser")


def test_keywords_that_no_network_can_be_built_with(refused):
    for network, keyword in (("vespcn", "window=-1"), ("edvr-m", "offset_groups=0")):
        assert "cannot be built" in refused("pretrain", network, "--set", f"student_options.{keyword}")


def test_opencv_is_missed_before_the_first_frame(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "needs OpenCV" in refused("pretrain", "rbpn-s", "--set", "student_options.flow=farneback")


def test_misspelt_key_with_a_suggestion(refused, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("optimiser:\n  learning_rat: 1e-4\n")
    assert "Did you mean 'optimiser.learning_rate'?" in refused("train", "--config", recipe)


def test_a_text_file_named_mp4(refused, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("not a video\n")
    for arguments in (["train", "--data", path], ["eval", "bicubic", "--data", path], ["upscale", path, "b.mp4"]):
        assert "a.mp4" in refused(*arguments)


def test_a_clip_with_fewer_frames_than_needed(refused, tmp_path):
    frames(tmp_path / "clips", 3, 96, 96)
    sentence = refused("train", "--data", tmp_path / "clips")
    assert "fewer frames than needed" in sentence
    assert "data.frames" in sentence


def test_frames_smaller_than_the_crop(refused, tmp_path):
    frames(tmp_path / "clips", 7, 64, 64)
    sentence = refused("train", "--data", tmp_path / "clips")
    assert "smaller than the crop" in sentence
    assert "data.crop" in sentence


def test_a_truncated_checkpoint(refused, run_folder, tmp_path):
    for name in ("student.safetensors", "checkpoints/last.pt"):
        content = (run_folder / name).read_bytes()
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(content[: len(content) // 2])
        assert "cannot be read" in refused("train", "--teacher", path)
        assert "cannot be read" in refused("eval", path, "--data", sample_clips("held_out"))
    state = tmp_path / "checkpoints-last.pt"
    recipe = run_folder / "config.yaml"
    sentence = refused("train", "--resume", state, "--out", tmp_path / "run", "--config", recipe)
    assert "checkpoints-last.pt cannot be read" in sentence
    assert not (tmp_path / "run").exists()


def test_a_students_file_given_as_teacher(refused, run_folder):
    sentence = refused("train", "--teacher", run_folder / "student.safetensors")
    assert "holds fastdvdnet, a student; a teacher is wanted" in sentence


def test_an_unwritable_out(refused, run_folder, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", tmp_path / "file"):
        assert "cannot be written" in refused("train", "--out", out, *TINY)
        refused("export", run_folder, "--to", "onnx", "--out", out)
    source = sample_clips("held_out") / "road.mp4"
    refused("upscale", source, tmp_path / "file" / "b.mp4", "--network", run_folder)


def test_a_resume_that_does_not_fit_leaves_the_run_as_it_was(refused, run_folder):
    before = {name: (run_folder / name).read_bytes() for name in ("config.yaml", "metrics.jsonl", "command.txt")}
    again = ["train", "--resume", "auto", "--out", run_folder]
    assert "this run trains" in refused(*again, "--set", "student_options.channels=16")
    assert "another kind of run" in refused(*again, "--set", "distillation.weights.time=0")
    assert before == {name: (run_folder / name).read_bytes() for name in before}


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80", b".", b"0", b"R", b"\x00" * 40])
def test_files_that_are_no_checkpoints(refused, tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    assert "a.pth cannot be read" in refused("eval", tmp_path / "a.pth", "--data", sample_clips("held_out"))


def test_out_that_holds_a_run(refused, run_folder):
    assert "already holds a run" in refused("train", "--out", run_folder, *TINY)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--student", "edvr-m"], "is a teacher, not a student"),
        (["train", "--teacher", "edvr-l"], "No weights of edvr-l ship"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--device", "cuda:7"], "not to be had here"),
        (["train", "--set", "data.degradation=bd"], "trained on degradation bi"),
        (["train", "--set", "data.exclude=[roda]"], "does not have"),
        (["train", "--set", "student_options.channel=8"], "takes no 'channel'"),
        (["train", "--resume", "auto"], "needs --out"),
        (["train", "--set", "optimiser.halve_every=0"], "expected at least 1"),
        (["train", "--set", "data.validation_frames=0"], "expected at least 1"),
        (["train", "--set", "distillation.memory_crop=-5"], "expected at least 1"),
        (["train", "--seed", "99999999999999999999"], "2 to the 63rd"),
        (["train", "--resume", "nothing.pt"], "There is no state"),
        (["train", "--config", "nothing.yaml"], "cannot be read"),
        (["eval", "nothing", "--data", "."], "There is no network 'nothing'"),
        (["eval", "bicubic", "--data", "nowhere"], "nowhere"),
        (["eval", "nothing.pth", "--data", "."], "There is no file nothing.pth"),
        (["profile", "nothing.onnx"], "nothing.onnx"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_names_that_are_wrong(refused, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_flags_leave_with_2():
    for arguments in (["trian"], ["export", "x", "--to", "tflite"], ["profile", "x.onnx", "--size", "180"]):
        program = [sys.executable, "-c", "import sys; from distill.cli import main; sys.exit(main())", *arguments]
        process = subprocess.run(program, capture_output=True, text=True, check=False)
        assert process.returncode == 2
        assert "Traceback" not in process.stderr


def test_divergence_stops_with_the_last_good_state(command, tmp_path):
    out = tmp_path / "run"
    code, _, error = command("train", "--out", out, *TINY, "--set", "optimiser.learning_rate=1e30")
    assert code == 1
    assert "diverged" in error
    assert "--resume auto" in error
    state = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["weights"].values())
