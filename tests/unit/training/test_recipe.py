"""The recipe builds everything of numbers, once, before anything is written."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch

from distill.errors import ConfigError
from distill.losses import methods
from distill.networks.checkpoint import Described, save
from distill.settings import to_yaml
from distill.training.config import Config, DataConfig, DistillationConfig, OptimiserConfig, TrainingConfig
from distill.training.optimisation import Schedule
from distill.training.recipe import prepare, run_recipe
from distill.training.run_folder import RunFolder
from distill.training.trainer import LoopSettings
from teachers.edvr import EDVR
from tests.unit.training.conftest import TINY

TEACHER = {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1}


@pytest.fixture
def config(footage, tmp_path):
    save(tmp_path / "teacher.safetensors", EDVR(**TEACHER), Described("edvr", TEACHER, "bi"))
    return Config(
        teacher=str(tmp_path / "teacher.safetensors"),
        student_options=TINY,
        data=DataConfig(path=str(footage), validation=str(footage), validation_frames=2, frames=3, crop=32),
        distillation=DistillationConfig(method="std-lr", weights={"time": 5, "output": "1e-1"}, warm_up=1),
        optimiser=OptimiserConfig(schedule="halving", halve_every=7, clip_gradient=2.0),
        training=TrainingConfig(steps=2, device="cpu", precision="fp32"),
    )


def test_the_task_and_the_loop_are_given_the_recipes_numbers(config, tmp_path):
    trainer = prepare(config, RunFolder(tmp_path / "run"), "distill train")
    task = trainer.task
    assert task.weights == {"space": 0.1, "time": 5.0, "output": 0.1}
    assert (task.truth, task.warm_up, task.middle_only) == (1.0, 1, False)
    (lesson,) = task.lessons
    assert lesson.kinds == ["lr"], "the method's features"
    assert lesson.match_scale
    assert lesson.terms["time"].crop == 32
    assert trainer.settings == LoopSettings(
        steps=2, schedule=Schedule(3e-4, 50, 7), offset_rate=0.25, clip_gradient=2.0, workers=1
    )
    cosine = replace(config, optimiser=OptimiserConfig(), distillation=DistillationConfig(method="star"))
    cosine = replace(cosine, teacher=None, student="starnet-s", student_options={})
    trainer = prepare(cosine, RunFolder(tmp_path / "run"), "distill pretrain")
    assert trainer.settings.schedule.halve_every is None
    assert trainer.task.truth == 0
    assert not (tmp_path / "run").exists(), "nothing is written yet"


def test_the_method_is_resolved_once_and_a_run_leaves_everything(config, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "distill")
    names = []

    def noted(name, known=methods.method_named):
        names.append(name)
        return known(name)

    monkeypatch.setattr(methods, "method_named", noted)
    run = RunFolder(tmp_path / "run")
    results = run_recipe(config, prepare(config, run, "distill train"), "distill train")
    assert names == ["std-lr"]
    assert list(results) == ["bicubic", "student before", "student after", "teacher"]
    assert json.loads((run.path / "results.json").read_text()) == results
    assert (run.path / "config.yaml").read_text() == to_yaml(config)
    assert "method std-lr: space 0.1, time 5, output 0.1" in (run.path / "log.txt").read_text()


def test_the_seed_is_the_students_weights(config, tmp_path):
    def first(seed):
        seeded = replace(config, training=replace(config.training, seed=seed))
        return prepare(seeded, RunFolder(tmp_path / "run"), "").task.student.temp2.outc.convblock[0].weight

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


@pytest.mark.parametrize(
    ("distillation", "training", "message"),
    [
        ({"method": "none", "truth": 0.0, "weights": {}}, {}, "adds no term: nothing is learnt"),
        ({"method": "stdd"}, {}, "Did you mean 'std'"),
        ({"weights": {"consistency": 1}}, {"restore": "middle"}, "leave out consistency"),
    ],
)
def test_a_method_that_cannot_be_is_refused(config, tmp_path, distillation, training, message):
    changed = replace(
        config,
        teacher=None,
        distillation=replace(config.distillation, **distillation),
        training=replace(config.training, **training),
    )
    with pytest.raises(ConfigError, match=message):
        prepare(changed, RunFolder(tmp_path / "run"), "")
