"""The loop: it learns by its settings, loses nothing when it is stopped, and leaves the best student behind."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch

from distill.errors import CheckpointError, TrainingDiverged
from distill.networks.checkpoint import Described, read, read_training_state
from distill.training.interruption import Interrupted
from distill.training.optimisation import Schedule


def metrics(trainer):
    return [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.task.student.state_dict().items()}


def assert_same(some, others):
    torch.testing.assert_close(some, others, rtol=0, atol=0)


def running_means(trainer):
    return {name: tensor for name, tensor in weights(trainer).items() if name.endswith("running_mean")}


def test_an_interruption_lets_the_step_finish_and_the_resumed_run_ends_the_same(trainer_of):
    unbroken = trainer_of("unbroken")
    unbroken.train()
    stopped = trainer_of("stopped")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def stop_in_the_second_step(*_):
        if stopped.step == 1 and stopped.task.training:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped.task.register_forward_hook(stop_in_the_second_step)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        stopped.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    described, saved, state = read_training_state(stopped.run.last)
    assert (described, state["step"]) == (stopped.described, 2)
    assert_same(saved, weights(stopped))
    resumed = trainer_of("stopped", resuming=True)
    torch.manual_seed(1)  # what is random goes on as it was saved
    resumed.resume(stopped.run.last)
    resumed.train()
    assert_same(weights(resumed), weights(unbroken))
    assert metrics(resumed) == metrics(unbroken)


def test_statistics_are_measured_once_before_the_first_step(trainer_of):
    one, three = trainer_of("one", steps=1), trainer_of("three", steps=3)
    fresh = running_means(one)
    one.train()
    three.train()
    measured = running_means(one)
    assert any(not torch.equal(measured[name], fresh[name]) for name in fresh)
    assert_same(running_means(three), measured)
    resumed = trainer_of("one", resuming=True, steps=2)
    resumed.resume(one.run.last)
    resumed.train()
    assert_same(running_means(resumed), measured)


def test_statistics_of_the_batch_move_with_every_step(trainer_of):
    one, three = (trainer_of(str(steps), steps=steps, frozen_norm=False) for steps in (1, 3))
    one.train()
    three.train()
    assert any(not torch.equal(mean, running_means(one)[name]) for name, mean in running_means(three).items())


def test_the_best_student_is_left_behind(trainer_of):
    trainer = trainer_of(steps=3, validate_every=1, schedule=Schedule(0.02, warm_up=3, halve_every=100))
    results = trainer.train()
    psnr = [line["psnr"] for line in metrics(trainer) if "psnr" in line]
    assert len(psnr) == 3
    assert psnr[-1] < max(psnr), "nothing to tell apart"
    student = read(trainer.run.path)
    assert results["student after"]["average"]["psnr"] == max(psnr)
    assert student.described.provenance["step"] == 1 + psnr.index(max(psnr))
    assert student.described.provenance["validation"] == results["student after"]
    assert trainer.evaluate(student.network).psnr == max(psnr)
    _, best, state = read_training_state(trainer.run.best)
    assert state["step"] == 1 + psnr.index(max(psnr))
    assert_same(best, student.network.state_dict())
    pictures = sorted(path.name for path in (trainer.run.path / "samples").iterdir())
    assert pictures == [f"step-{step:06d}.png" for step in range(1, 4)]


def test_each_step_has_the_learning_rate_of_the_schedule(trainer_of):
    trainer = trainer_of(schedule=Schedule(1e-3, warm_up=2))
    trainer.train()
    rates = [line["learning_rate"] for line in metrics(trainer) if "loss" in line]
    assert rates == [trainer.settings.schedule.learning_rate(step, 3) for step in range(3)]


def test_a_step_that_would_spoil_the_weights_is_not_made(trainer_of):
    trainer = trainer_of(schedule=Schedule(math.inf))
    with pytest.raises(TrainingDiverged, match="diverged at step 1: loss is nan"):
        trainer.train()
    _, saved, state = read_training_state(trainer.run.last)
    assert state["step"] == 0
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values())


def test_a_state_of_another_network_is_refused(trainer_of):
    first, other = trainer_of("first", steps=1), trainer_of("other")
    first.train()
    other.described = Described("fastdvdnet", {"channels": 16})
    before = weights(other)
    with pytest.raises(CheckpointError, match=r"is of fastdvdnet .* this run trains"):
        other.resume(first.run.last)
    assert_same(weights(other), before)
