"""`distill adapt`: a student learns from a teacher on footage that has no high resolution."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from distill.data import find_clips
from distill.data.excerpt import Excerpt, parts
from distill.errors import DataError
from distill.networks.checkpoint import Described, read, save
from distill.training.adaptation import adaptation_recipe, held_out, prepare_adaptation
from distill.training.config import Config, DataConfig
from distill.training.run_folder import RunFolder
from students.fastdvdnet import FastDVDnet

KEYWORDS = {"channels": 8, "blocks": 1, "widths": [8, 8, 8], "frame_channels": 4}
SMALL = [
    *("--set", "data.frames=3", "--set", "data.crop=64", "--set", "data.validation_frames=2"),
    *("--set", "distillation.memory_crop=8", "--set", "training.log_every=1", "--precision", "fp32"),
]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A file of a student that knows bicubic and nothing more."""
    torch.manual_seed(0)
    network = FastDVDnet(**KEYWORDS)
    network.train()
    with torch.no_grad():
        network(torch.rand(1, 5, 3, 16, 16))  # statistics, which a trained one has
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save(path, network.eval(), Described("fastdvdnet", KEYWORDS, "bi"))
    return path


def footage(path, count, height=24, width=40):
    """A video of moving noise whose red level tells the frame."""
    noise = np.random.default_rng(0).integers(60, 200, size=(height, width + count, 3), dtype=np.uint8)
    with av.open(str(path), "w") as output:
        video = output.add_stream("ffv1", rate=Fraction(25))
        video.width, video.height, video.pix_fmt = width, height, "bgr0"
        for index in range(count):
            picture = np.ascontiguousarray(noise[:, index : index + width])
            picture[..., 0] = 5 * index
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return footage(tmp_path_factory.mktemp("footage") / "my_clip.mkv", 12)


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_adapt_reports_before_and_after_and_goes_on(command, document, lesson, student, clip, tmp_path):
    out = tmp_path / "run"
    found = document("adapt", student, clip, "--steps", 2, "--out", out, *lesson, *SMALL)
    assert (found["teacher"], found["student"]) == (str(lesson[1]), str(out / "student.safetensors"))
    near = found["agreement"]
    assert list(near) == ["bicubic", "student before", "student after"]
    for evaluation in near.values():
        assert "agreement and not truth" in evaluation["convention"]["against"]
        assert set(evaluation["clips"]) == {"my_clip"}
        assert evaluation["average"].keys() >= {"psnr", "ssim", "tof", "warping", "truth_warping"}
        assert evaluation["clips"]["my_clip"]["frames"] == 2, "the last fifth of 12"
    assert near["student before"]["average"]["psnr"] != near["student after"]["average"]["psnr"]
    assert json.loads((out / "agreement.json").read_text()) == near
    assert list(found["truth"]) == ["bicubic", "student before", "student after", "teacher"]
    learnt = [line for line in lines(out) if "loss" in line]
    assert len(learnt) == 2
    assert learnt[0].keys() >= {"unlabelled output", "unlabelled space", "unlabelled time", "output", "reconstruction"}
    described = read(out).described
    assert (described.name, described.degradation) == ("fastdvdnet", "bi")
    assert described.provenance["from"] == str(student)

    code, text, _ = command("adapt", student, clip, "--resume", "auto", "--out", out, "--steps", 3)
    assert code == 0
    assert [line["step"] for line in lines(out) if "loss" in line] == [1, 2, 3]
    for sentence in ("its last fifth, which was not trained on", "agreement with the teacher, whose own"):
        assert sentence in text
    assert text.count("student after") == 2


def test_what_the_teacher_shows_is_learnt_where_nothing_was_trained_on(document, lesson, student, clip, tmp_path):
    spoilt = read(student)
    with torch.no_grad():
        spoilt.network.tail.conv_last.bias.add_(0.1)  # everything too bright
    save(tmp_path / "bright.safetensors", spoilt.network, spoilt.described)
    settings = [*lesson, *SMALL, "--set", "optimiser.learning_rate=3e-3", "--set", "optimiser.warm_up=0"]
    found = document(
        "adapt", tmp_path / "bright.safetensors", clip, "--steps", 15, "--out", tmp_path / "run", *settings
    )
    for judged in (found["agreement"], found["truth"]):
        before, after = (judged[name]["average"]["psnr"] for name in ("student before", "student after"))
        assert after > before + 0.5


def test_what_is_held_out_is_never_drawn(student, clip, tmp_path):
    settings = [text for text in SMALL if "=" in text]
    config = adaptation_recipe(str(student), settings, {"data.unlabelled": str(clip)})
    trainer, found = prepare_adaptation(config, RunFolder(tmp_path / "run"), "distill adapt")
    sampler = trainer.unlabelled
    seen = {round(float(level) * 51) for step in range(40) for level in sampler.batch(step).lr[0, :, 0, 0, 0]}
    assert seen == set(range(10))
    (rest,) = found
    assert [int(frame[0, 0, 0]) // 5 for frame in rest.frames()] == [10, 11]
    assert not (tmp_path / "run").exists()


def test_an_excerpt_is_a_clip(clip):
    (whole,) = find_clips(clip)
    excerpt = Excerpt(whole, 3, 9)
    assert (excerpt.name, excerpt.length, excerpt.size) == ("my_clip", 6, (24, 40))
    assert excerpt.frame_rate == whole.frame_rate
    for bounds, numbers in (((), range(3, 9)), ((2,), range(5, 9)), ((1, 3), (4, 5)), ((4, 90), (7, 8)), ((6,), ())):
        assert [int(frame[0, 0, 0]) // 5 for frame in excerpt.frames(*bounds)] == list(numbers)
    for start, stop in ((3, 3), (-1, 4), (0, 13)):
        with pytest.raises(DataError, match="it has 12"):
            Excerpt(whole, start, stop)
    with pytest.raises(DataError, match="counted from 0"):
        excerpt.frames(-1)


@pytest.mark.parametrize(("length", "frames", "trained"), [(10, 7, 8), (47, 7, 38), (10, 3, 8), (19, 15, 16)])
def test_every_clip_is_cut_after_four_fifths(tmp_path, length, frames, trained):
    (clip,) = find_clips(footage(tmp_path / "a.mkv", length, 16, 16))
    config = Config(data=DataConfig(frames=frames, unlabelled_share=0.8))
    assert [rest.length for rest in held_out([clip], config)] == [length - trained]
    assert parts(clip, 0.8)[0].length == trained
    assert parts(clip, 1.0)[1] is None


def test_wrong_input_is_one_sentence(command, student, clip, tmp_path):
    short, small = footage(tmp_path / "short.mkv", 5), footage(tmp_path / "small.mkv", 12, 14, 40)
    teacher = tmp_path / "teacher.safetensors"
    (tmp_path / "text.safetensors").write_text("no weights")
    other = tmp_path / "bd.safetensors"
    save(other, FastDVDnet(**KEYWORDS), Described("fastdvdnet", KEYWORDS, "bd"))
    untaught = ["--set", "distillation.method=none", "--set", "distillation.weights={output: 0, consistency: 0}"]
    cases = [
        ([student, short], "short has 5 frames, too few"),
        ([student, small], "smaller than the crop: 40x14 against 24x24"),
        ([student, tmp_path / "none.mp4"], "none.mp4"),
        ([tmp_path / "text.safetensors", clip], "cannot be read"),
        ([teacher, clip], "There is no file"),
        (["fastdvdnet", clip], "No weights of fastdvdnet ship"),
        (["edvr", clip], "'edvr' is a teacher, not a student"),
        ([student, clip, "--teacher", "evdr"], "Did you mean 'edvr'?"),
        ([student, clip, *untaught], "such as output"),
        ([student, clip, "--set", "teacher=null"], "needs a teacher"),
        ([student, clip, "--resume", "auto"], "--out"),
        ([other, clip], "edvr was trained on degradation bi"),
    ]
    for arguments, sentence in cases:
        code, out, error = command("adapt", *arguments)
        assert (code, out) == (2, ""), error
        said = [line for line in error.splitlines() if line.startswith("distill: ")]
        assert len(said) == 1
        assert sentence in said[0]


def test_a_dry_run_shows_the_recipe_and_writes_nothing(document, student, clip, tmp_path):
    planned = document("adapt", student, clip, "--out", tmp_path / "run", "--dry-run")
    assert "steps: 400" in planned["config"]
    assert f"unlabelled: {clip}" in planned["config"]
    assert not (tmp_path / "run").exists()
