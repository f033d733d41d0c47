"""What a teacher made is found again, only where it is the same, and nothing on the disk stops a training."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.data import CropSampler, find_clips, sample_clips
from distill.errors import CheckFailed, ConfigError
from distill.losses.methods import METHODS
from distill.training.task import Distillation, Teacher
from distill.training.teacher_cache import TeacherCache
from students.fastdvdnet import FastDVDnet
from teachers.edvr import EDVR
from tests.places import ROOT

HR = frozenset({"hr_features"})


def tiny(seed: int = 0, **keywords: object) -> EDVR:
    torch.manual_seed(seed)
    settings = {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1}
    teacher = EDVR(**{**settings, **keywords})  # type: ignore[arg-type]
    torch.nn.init.normal_(teacher.tail.conv_last.weight, std=0.05)
    return teacher.eval()


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.rand(2, 3, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def asked(cache: TeacherCache, clip: torch.Tensor, fields: frozenset[str] = HR):
    return cache(clip, fields)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_hit_is_the_miss_and_both_are_what_the_teacher_makes(tmp_path, clip) -> None:
    teacher = tiny()
    with torch.no_grad():
        live = teacher(clip)
    miss = asked(TeacherCache(tmp_path, teacher), clip)
    cache = TeacherCache(tmp_path, tiny())
    hit = asked(cache, clip)
    assert (cache.hits, cache.misses, cache.checked) == (2, 0, 1)
    assert (miss.lr_features, hit.lr_features) == (None, None), "not asked for"
    for name in ("frames", "hr_features"):
        made, found, true = (getattr(each, name) for each in (miss, hit, live))
        assert found.dtype == torch.float32
        assert torch.equal(made, found), "a run would depend on what lies in the cache"
        torch.testing.assert_close(found, true, rtol=2**-11, atol=1e-7)
    assert not any(path.name.endswith(".partial") for path in tmp_path.rglob("*"))


def test_after_three_checks_the_teacher_is_left_alone(tmp_path, clip) -> None:
    asked(TeacherCache(tmp_path, tiny()), clip)
    calls = []
    teacher = tiny()
    teacher.register_forward_hook(lambda *_: calls.append(1))
    cache = TeacherCache(tmp_path, teacher)
    for _ in range(6):
        asked(cache, clip)
    assert len(calls) == 3


def test_clips_of_a_batch_are_found_in_any_order(tmp_path, clip) -> None:
    first = asked(TeacherCache(tmp_path, tiny()), clip)
    cache = TeacherCache(tmp_path, tiny())
    turned = asked(cache, clip.flip(0))
    assert cache.misses == 0
    assert torch.equal(turned.frames, first.frames.flip(0))


def test_frames_alone_are_kept_alone_and_found_after_any_method(tmp_path, clip) -> None:
    cache = TeacherCache(tmp_path, tiny())
    asked(cache, clip, frozenset())
    assert [path.name.rpartition("-")[2] for path in files(tmp_path)] == ["frames.safetensors"] * 2
    asked(cache, clip, HR)
    assert (cache.hits, cache.misses) == (0, 4), "features were not kept"
    asked(cache, clip, frozenset())
    assert cache.hits == 2


def test_another_pixel_crop_turn_teacher_setting_or_precision_is_made_anew(tmp_path, clip) -> None:
    asked(TeacherCache(tmp_path, tiny()), clip)
    kept = len(files(tmp_path))
    changed = clip.clone()
    changed[:, 1, 2, 3, 4] += 1 / 255
    others = [(tiny(), changed), (tiny(), clip[..., :8]), (tiny(), clip.flip(-1)), (tiny(), clip.flip(1))]
    others += [(tiny(seed=1), clip), (tiny(offset_groups=4), clip)]
    for teacher, low in others:
        cache = TeacherCache(tmp_path, teacher)
        asked(cache, low)
        assert (cache.hits, cache.misses) == (0, 2)
    cache = TeacherCache(tmp_path, tiny())
    with torch.autocast("cpu", torch.bfloat16):
        coarse = asked(cache, clip)
        assert cache.misses == 2, "bfloat16 was given what float32 made"
        assert torch.equal(asked(cache, clip).frames, coarse.frames)
    assert cache.hits == 2
    assert len(files(tmp_path)) == 8 * kept


def test_a_setting_without_weights_makes_another_teacher(tmp_path) -> None:
    teacher = tiny()
    before = TeacherCache(tmp_path, teacher).folder
    teacher.flow = "farneback"
    assert TeacherCache(tmp_path, teacher).folder != before


@pytest.mark.parametrize("content", [b"", b"\x00" * 4000, b"truncated"])
def test_a_damaged_file_is_made_anew(tmp_path, clip, content) -> None:
    first = asked(TeacherCache(tmp_path, tiny()), clip)
    path = files(tmp_path)[0]
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2] if content == b"truncated" else content)
    cache = TeacherCache(tmp_path, tiny())
    assert torch.equal(asked(cache, clip).frames, first.frames)
    assert (cache.hits, cache.misses) == (0, 2)
    assert path.read_bytes() == sound


@pytest.mark.parametrize("change", [lambda half: half + 0.1, lambda half: half[..., 1:], lambda half: half * torch.nan])
def test_an_entry_that_the_teacher_does_not_make_is_refused(tmp_path, clip, change) -> None:
    asked(TeacherCache(tmp_path, tiny()), clip)
    for path in files(tmp_path):
        ((name, half),) = load_file(path).items()
        if name == "hr_features":
            save_file({name: change(half).contiguous()}, path)
    cache = TeacherCache(tmp_path, tiny())
    with pytest.raises(CheckFailed, match=r"teacher cache .* holds hr_features that differ .*; remove it") as raised:
        asked(cache, clip)
    assert str(cache.folder) in str(raised.value)


def test_values_beyond_half_precision_are_passed_on_and_not_kept(tmp_path, clip) -> None:
    teacher = tiny()
    with torch.no_grad():
        teacher.tail.conv_hr.weight.mul_(1e9)
        live = teacher(clip)
    assert live.hr_features.abs().max() > 65504
    cache = TeacherCache(tmp_path, teacher)
    assert torch.equal(asked(cache, clip).hr_features, live.hr_features)
    assert files(tmp_path) == []


WRITER = """
import sys
from pathlib import Path
import torch
from distill.training.teacher_cache import TeacherCache
from tests.unit.training.test_teacher_cache import HR, tiny
folder, first = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
cache = TeacherCache(folder, tiny())
with torch.no_grad():
    for step in range(24):
        generator = torch.Generator().manual_seed((first + step) % 12)
        found = cache(torch.rand(1, 3, 3, 8, 12, generator=generator), HR)
        assert found.frames.shape == (1, 3, 3, 32, 48)
assert cache.checked == 3
print(found.frames.double().sum().item())
"""


def test_processes_that_share_a_folder_do_not_break_each_other(tmp_path) -> None:
    here = ROOT
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)], cwd=here, stdout=subprocess.PIPE, text=True
        )
        for first in (0, 0)
    ]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert len(files(tmp_path)) == 24
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


@pytest.fixture
def warnings_of_distill(caplog):
    with caplog.at_level(logging.WARNING, logger="distill"):
        yield lambda: [record.message for record in caplog.records]


def test_a_disk_nearly_full_is_told_once_and_what_is_there_still_serves(
    tmp_path, clip, warnings_of_distill, monkeypatch
) -> None:
    asked(TeacherCache(tmp_path, tiny()), clip)
    before = files(tmp_path)
    monkeypatch.setattr("distill.training.teacher_cache._RESERVE", 1 << 60)  # no disk has as much to leave free
    cache = TeacherCache(tmp_path, tiny())
    for shift in range(3):
        asked(cache, clip.roll(shift, -1))
    assert (cache.hits, cache.misses) == (2, 4)
    assert files(tmp_path) == before
    (sentence,) = warnings_of_distill()
    assert "takes up no more" in sentence
    assert "GB of the disk are free" in sentence


def test_a_disk_that_takes_no_entry_stops_nothing(tmp_path, clip, warnings_of_distill) -> None:
    cache, teacher = TeacherCache(tmp_path, tiny()), tiny()
    with torch.no_grad():
        live = teacher(clip)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # any longer file fails to be written
    try:
        made = asked(cache, clip)
        asked(cache, clip.flip(-1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    torch.testing.assert_close(made.frames, live.frames, rtol=2**-11, atol=1e-7)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "something half written was left"
    (sentence,) = warnings_of_distill()
    assert "the run goes on without it" in sentence


def test_a_folder_that_cannot_be_is_refused_before_anything_is_made(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(ConfigError, match=r"teacher cache .* cannot be made.*distillation\.cache"):
            TeacherCache(folder, tiny())
    TeacherCache(tmp_path / "new", tiny())
    assert not (tmp_path / "new").exists(), "a dry run writes nothing"


def test_runs_of_one_seed_find_each_others_entries_whatever_the_method(tmp_path) -> None:
    """The loss with a cache is that without, but for half precision; another seed draws other crops."""
    losses, caches = {}, []
    for method, seed, cached in (("std", 0, False), ("std", 0, True), ("output", 0, True), ("output", 1, True)):
        cache = TeacherCache(tmp_path, tiny()) if cached else None
        torch.manual_seed(0)
        student = FastDVDnet(channels=8, blocks=1, widths=(8, 8, 8), frame_channels=4)
        teachers = [Teacher(tiny(), cache=cache)]
        task = Distillation(student, teachers, METHODS[method].weights, memory_crop=8).train()
        clips = find_clips(sample_clips("train"))
        sampler = CropSampler(clips, frames=3, crop=32, batch_size=1, seed=seed)
        losses[method, cached] = [task(sampler.batch(step), step)["loss"].item() for step in range(4)]
        if cache is not None:
            caches.append((cache.hits, cache.misses))
    assert caches == [(0, 4), (4, 0), (0, 4)]
    np.testing.assert_allclose(losses["std", True], losses["std", False], rtol=1e-3)
