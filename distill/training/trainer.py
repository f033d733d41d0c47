"""The loop: batches in, a better student out, nothing lost on the way."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from distill.data import Batch, CropSampler
from distill.errors import CheckpointError, TrainingDiverged
from distill.interfaces import VideoNetwork
from distill.layers import channels_last
from distill.metrics.evaluate import Evaluation
from distill.networks.checkpoint import Described, read_training_state, save, save_training_state
from distill.training.batch_norm import freeze_statistics, measure_statistics
from distill.training.divergence import sign_of_divergence
from distill.training.interruption import Interrupted, Interruption
from distill.training.optimisation import Schedule, adam
from distill.training.pace import Pace
from distill.training.run_folder import RunFolder, log
from distill.training.task import Distillation
from distill.training.validation import Validation

__all__ = ["LoopSettings", "Trainer"]

_SAVE_SECONDS = 600.0
_SPREAD = range(0, 128, 16)  # steps whose batches are looked at before training, for statistics and scales


@dataclass(frozen=True)
class LoopSettings:
    """The numbers of the loop.

    Attributes:
        steps: how many.
        schedule: of the learning rate.
        offset_rate: factor on the learning rate of the convolutions that predict deformable offsets.
        clip_gradient: largest norm of the gradient; None is any.
        unlabelled_weight: lambda, of the loss on footage without high resolution.
        frozen_norm: batch normalisation with statistics measured once before the first step, not those of the batch.
        mixed: convolutions in bfloat16, weights and losses in float32.
        workers: threads that read ahead.
        log_every: steps between lines in metrics.jsonl.
        validate_every: steps between validations; None is at the end only.
    """

    steps: int
    schedule: Schedule
    offset_rate: float = 1.0
    clip_gradient: float | None = None
    unlabelled_weight: float = 1.0
    frozen_norm: bool = True
    mixed: bool = False
    workers: int = 0
    log_every: int = 10
    validate_every: int | None = None


class Trainer:
    """Trains a student, with or without a teacher.

    Args:
        task: the student with its teachers; moved to the device.
        settings: of the loop.
        sampler: of training batches.
        unlabelled: of batches without high resolution, one beside each training batch.
        validation: what students are judged on.
        run: where everything goes.
        described: what the student's files will say of it.
        device: where the networks run.
    """

    def __init__(
        self,
        task: Distillation,
        settings: LoopSettings,
        sampler: CropSampler,
        unlabelled: CropSampler | None,
        validation: Validation,
        run: RunFolder,
        described: Described,
        device: torch.device,
    ) -> None:
        self.task, self.settings, self.device = task.to(device), settings, device
        self.sampler, self.unlabelled, self.validation = sampler, unlabelled, validation
        self.run, self.described = run, described
        channels_last(self.task)
        self.optimiser = adam(self.task, settings.schedule.highest, settings.offset_rate)
        self.interruption = Interruption()
        self.step = 0
        self.best: dict[str, Any] | None = None  # the evaluation of what student.safetensors holds
        self.before: dict[str, Any] | None = None

    def train(self) -> dict[str, Any]:
        """Run from the current step to the last; returns each contender's evaluation as JSON.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the state was saved first.
            TrainingDiverged: the loss, a gradient or the offsets left their range.
        """
        with self.interruption.catching_signals():
            try:
                if self.before is None:
                    if self.settings.frozen_norm:
                        measure_statistics(self.task.student, self._spread_clips())
                    self.task.measure_teachers(self._spread_clips())
                    self.before = self.evaluate(self.task.student).to_json()
                    self._save()
                self._loop()
                return {"student before": self.before, "student after": self._finish()}
            except Interrupted:
                self._save()
                log.info(
                    "stopped at step %d; saved %s, go on with --resume auto --out %s",
                    self.step,
                    self.run.last,
                    self.run.path,
                )
                raise

    def resume(self, path: Any) -> None:
        """Take up the state in a run's checkpoints/last.pt.

        Raises:
            CheckpointError: it is not one, or of another network.
        """
        described, weights, state = read_training_state(path)
        if (described.name, dict(described.keywords)) != (self.described.name, dict(self.described.keywords)):
            raise CheckpointError(
                f"{path} is of {described.name} {dict(described.keywords)}, this run trains "
                f"{self.described.name} {dict(self.described.keywords)}."
            )
        factors = [group["factor"] for group in self.optimiser.param_groups]
        try:
            self.task.student.load_state_dict(weights)
            self.task.load_trained_state(state["task"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} was written by another kind of run (teacher, method or features differ); "
                "go on with the recipe it was started with."
            ) from error
        for group, factor in zip(self.optimiser.param_groups, factors, strict=True):
            group["factor"] = factor  # the recipe's, which may have been changed since
        self.step, self.best, self.before = state["step"], state["best"], state["before"]
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])

    def _loop(self) -> None:
        settings = self.settings
        pace = Pace(time.perf_counter())
        saved = time.perf_counter()
        batches = self.sampler.batches(self.step, settings.workers)
        more = None if self.unlabelled is None else self.unlabelled.batches(self.step, settings.workers)
        progress = tqdm(
            total=settings.steps, initial=self.step, unit="it", disable=None, dynamic_ncols=True, smoothing=0.05
        )
        try:
            while self.step < settings.steps:
                waiting_since = time.perf_counter()
                batch = next(batches).to(self.device)
                unlabelled = None if more is None else next(more).to(self.device)
                pace.waited += time.perf_counter() - waiting_since
                parts = self._learn(batch, unlabelled)
                self.step += 1
                pace.steps += 1
                progress.update()
                if self.step % settings.log_every == 0 or self.step == settings.steps:
                    self._report(parts, pace, progress)
                every = settings.validate_every
                if every is not None and self.step % every == 0 and self.step < settings.steps:
                    self._save()
                    self._validate()
                    self._save()  # again, with the best figure so far
                if time.perf_counter() - saved > _SAVE_SECONDS:
                    self._save()
                    saved = time.perf_counter()
                self.interruption.check()
        finally:
            progress.close()
            for each in (batches, more):
                if each is not None:
                    each.close()  # type: ignore[attr-defined]

    def _learn(self, batch: Batch, unlabelled: Batch | None) -> dict[str, float]:
        """One step; returns each loss by name. L = L(labelled) + lambda L(unlabelled) (Lin et al. 2020, Sec. 3.1)."""
        settings = self.settings
        self.task.train()
        if settings.frozen_norm:
            freeze_statistics(self.task.student)
        rate = settings.schedule.learning_rate(self.step, settings.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.mixed):
            parts = self.task(batch, self.step)
            if unlabelled is not None and self.step >= self.task.warm_up:
                extra = self.task(unlabelled, self.step)
                parts |= {f"unlabelled {name}": part for name, part in extra.items() if name != "loss"}
                parts["loss"] = parts["loss"] + settings.unlabelled_weight * extra["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        limit = settings.clip_gradient
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), math.inf if limit is None else limit)
        losses = {name: part.item() for name, part in parts.items()}
        self._guard(losses, norm)
        self.optimiser.step()
        self.task.after_step(losses)
        return losses

    def _spread_clips(self) -> Iterator[Tensor]:
        """Low-resolution clips of training batches that lie far enough apart to be of several scenes."""
        return (self.sampler.batch(step).lr.to(self.device) for step in _SPREAD)

    def _guard(self, losses: dict[str, float], norm: Tensor) -> None:
        """Stop before a step that would spoil the weights."""
        sign = sign_of_divergence(losses, norm, self.task.student)
        if sign is not None:
            raise TrainingDiverged(
                f"Training diverged at step {self.step}: {sign}. The last good state is {self.run.last}; go on "
                f"from it with --resume auto --out {self.run.path} and a lower optimiser.learning_rate or a set "
                "optimiser.clip_gradient."
            )

    def _report(self, losses: dict[str, float], pace: Pace, progress: tqdm[Any]) -> None:
        rate = self.optimiser.param_groups[0]["lr"]
        self.run.measure({"step": self.step, "learning_rate": rate, **losses})
        shown = "  ".join(f"{name} {value:.5f}" for name, value in losses.items())
        progress.set_postfix_str(shown, refresh=False)
        left = pace.line(self.settings.steps - self.step)
        # with a progress bar on screen the line goes to log.txt only
        log.log(
            logging.INFO if progress.disable else logging.DEBUG,
            "step %d/%d  lr %.2e  %s  %s",
            self.step,
            self.settings.steps,
            rate,
            shown,
            left,
        )

    def _validate(self) -> None:
        """Validate, show a picture, and save the student if it is the best so far."""
        evaluation = self.evaluate(self.task.student)
        log.info("step %d  validation PSNR %.3f dB  SSIM %.4f", self.step, evaluation.psnr, evaluation.ssim)
        self.run.measure({"step": self.step, "psnr": evaluation.psnr, "ssim": evaluation.ssim})
        networks = (self.task.student, *(teacher.network for teacher in self.task.teachers))
        self.run.picture(f"step-{self.step:06d}", self.validation.panels(networks))
        if self.best is None or evaluation.psnr > self.best["average"]["psnr"]:
            self.best = evaluation.to_json()
            self._save(best=True)
            save(self.run.student, self.task.student, self._described(evaluation))

    def _finish(self) -> dict[str, Any]:
        """The last validation; returns the figures of the best, which is the student that the run leaves behind."""
        self._validate()
        self._save()
        assert self.best is not None
        return self.best

    def evaluate(self, network: VideoNetwork | None) -> Evaluation:
        """Any network, or bicubic, on the validation clips.

        Raises:
            Interrupted: a signal to stop came meanwhile.
        """
        return self.validation.evaluate(network, self.interruption.check)

    def _described(self, evaluation: Evaluation) -> Described:
        figures = {"step": self.step, "validation": evaluation.to_json()}
        provenance = {**self.described.provenance, **figures}
        return Described(self.described.name, self.described.keywords, self.described.degradation, provenance)

    def _save(self, *, best: bool = False) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "before": self.before,
            "task": self.task.trained_state(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }
        path = self.run.best if best else self.run.last
        save_training_state(path, self.task.student, self.described, state)
