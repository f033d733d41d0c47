"""The loop: batches in, a better student out, nothing lost on the way."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from distill.data import Batch, Clip, CropSampler, bicubic_upsample, degrade
from distill.errors import CheckpointError, TrainingDiverged
from distill.interfaces import VideoNetwork
from distill.layers import channels_last
from distill.metrics.evaluate import Evaluation, evaluate
from distill.networks.checkpoint import Described, read_training_state, save, save_training_state
from distill.training.config import Config
from distill.training.optimisation import learning_rate, mixed_precision, optimiser
from distill.training.run_folder import RunFolder, log
from distill.training.task import Distillation, Teacher

__all__ = ["Interrupted", "Trainer", "largest_mean_offset"]

_LARGEST_OFFSET = 50.0  # pixels; a trained EDVR stays under 10, one whose loss is about to burst goes far beyond
_SAVE_SECONDS = 600.0
_SPREAD = range(0, 128, 16)  # steps whose batches are looked at before training, for statistics and scales


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the state was saved."""


@dataclass
class _Pace:
    """How fast the loop goes, and how much of that is waiting for data."""

    started: float
    steps: int = 0
    waited: float = 0.0

    def line(self, remaining: int) -> str:
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        rate = self.steps / elapsed
        left = remaining / rate if rate else math.inf
        waiting = 100 * self.waited / elapsed
        return f"{rate:.2f} it/s  {left / 60:.1f} min left  {waiting:.0f}% waiting for data{_peak_memory()}"


class Trainer:
    """Trains a student as a recipe says, with or without a teacher.

    Args:
        config: the recipe.
        student: the network that is trained, and `described`, what its files will say of it.
        teachers: frozen; none trains on the truth alone.
        sampler: of training batches.
        unlabelled: of batches without high resolution, one beside each training batch.
        validation: high-resolution clips to judge on.
        run: where everything goes.
        device: where the networks run.
    """

    def __init__(
        self,
        config: Config,
        student: VideoNetwork,
        described: Described,
        teachers: Sequence[Teacher],
        sampler: CropSampler,
        unlabelled: CropSampler | None,
        validation: list[Clip],
        run: RunFolder,
        device: torch.device,
    ) -> None:
        self.config, self.described, self.run, self.device = config, described, run, device
        self.sampler, self.unlabelled, self.validation = sampler, unlabelled, validation
        self.teachers = teachers
        middle_only = config.training.restore == "middle"
        self.task = Distillation(student, teachers, config.distillation, middle_only=middle_only).to(device)
        channels_last(self.task)
        self.optimiser = optimiser(self.task, config.optimiser)
        self.mixed = mixed_precision(config.training.precision, device)
        self.step = 0
        self.best: dict[str, Any] | None = None  # the evaluation of what student.safetensors holds
        self.before: dict[str, Any] | None = None
        self.stopping: int | None = None

    def train(self) -> dict[str, Any]:
        """Run from the current step to the last; returns each contender's evaluation as JSON.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the state was saved first.
            TrainingDiverged: the loss, a gradient or the offsets left their range.
        """
        with self._catching_signals():
            try:
                if self.before is None:
                    self._measure_norm()
                    self.task.measure_teachers(self._spread_clips())
                    self.before = self.judge(self.task.student)
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
        settings = self.config.training
        pace = _Pace(time.perf_counter())
        saved = time.perf_counter()
        workers = self.config.data.workers
        batches = self.sampler.batches(self.step, workers)
        more = None if self.unlabelled is None else self.unlabelled.batches(self.step, workers)
        progress = tqdm(
            total=settings.steps, initial=self.step, unit="it", disable=None, dynamic_ncols=True, smoothing=0.05
        )
        try:
            while self.step < settings.steps:
                asked = time.perf_counter()
                batch = next(batches).to(self.device)
                unlabelled = None if more is None else next(more).to(self.device)
                pace.waited += time.perf_counter() - asked
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
                self._stop_if_asked()
        finally:
            progress.close()
            for each in (batches, more):
                if each is not None:
                    each.close()  # type: ignore[attr-defined]

    def _learn(self, batch: Batch, unlabelled: Batch | None) -> dict[str, float]:
        """One step; returns each loss by name. L = L(labelled) + lambda L(unlabelled) (Lin et al. 2020, Sec. 3.1)."""
        self.task.train()
        self._freeze_norm()
        rate = learning_rate(self.config.optimiser, self.step, self.config.training.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            parts = self.task(batch, self.step)
            settings = self.config.distillation
            if unlabelled is not None and self.step >= settings.warm_up:
                extra = self.task(unlabelled, self.step)
                parts |= {f"unlabelled {name}": part for name, part in extra.items() if name != "loss"}
                parts["loss"] = parts["loss"] + settings.unlabelled * extra["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        limit = self.config.optimiser.clip_gradient
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), math.inf if limit is None else limit)
        losses = {name: part.item() for name, part in parts.items()}
        self._guard(losses, norm)
        self.optimiser.step()
        self.task.after_step(losses)
        return losses

    def _freeze_norm(self) -> None:
        if self.config.training.norm == "frozen":
            for norm in self._norms():
                norm.eval()

    def _measure_norm(self) -> None:
        """Give a fresh student the statistics of real footage, averaged over some batches."""
        fresh = [norm for norm in self._norms() if not int(norm.num_batches_tracked or 0)]
        if self.config.training.norm != "frozen" or not fresh:
            return
        momenta = [norm.momentum for norm in fresh]
        for norm in fresh:
            norm.momentum = None  # a plain average
        self.task.train()
        with torch.no_grad():
            for clip in self._spread_clips():
                self.task.student(clip[:, :: self.task.student.time_scale])
        for norm, momentum in zip(fresh, momenta, strict=True):
            norm.momentum = momentum

    def _spread_clips(self) -> Iterator[Tensor]:
        """Low-resolution clips of training batches that lie far enough apart to be of several scenes."""
        return (self.sampler.batch(step).lr.to(self.device) for step in _SPREAD)

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.task.student.modules() if isinstance(module, nn.BatchNorm2d)]

    def _guard(self, losses: dict[str, float], norm: Tensor) -> None:
        """Stop before a step that would spoil the weights."""
        wrong = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
        if not wrong and not bool(torch.isfinite(norm)):
            wrong = [f"the gradient's norm is {float(norm)}"]
        offset = largest_mean_offset(self.task.student)
        if not wrong and not offset < _LARGEST_OFFSET:
            wrong = [f"deformable offsets are {offset:.0f} pixels long on average"]
        if wrong:
            raise TrainingDiverged(
                f"Training diverged at step {self.step}: {wrong[0]}. The last good state is {self.run.last}; go on "
                f"from it with --resume auto --out {self.run.path} and a lower optimiser.learning_rate or a set "
                "optimiser.clip_gradient."
            )

    def _report(self, losses: dict[str, float], pace: _Pace, progress: tqdm[Any]) -> None:
        rate = self.optimiser.param_groups[0]["lr"]
        self.run.measure({"step": self.step, "learning_rate": rate, **losses})
        shown = "  ".join(f"{name} {value:.5f}" for name, value in losses.items())
        progress.set_postfix_str(shown, refresh=False)
        left = pace.line(self.config.training.steps - self.step)
        # with a progress bar on screen the line goes to log.txt only
        log.log(
            logging.INFO if progress.disable else logging.DEBUG,
            "step %d/%d  lr %.2e  %s  %s",
            self.step,
            self.config.training.steps,
            rate,
            shown,
            left,
        )

    def _validate(self) -> None:
        """Validate, keep the best, and show a picture."""
        evaluation = self._evaluate(self.task.student)
        log.info("step %d  validation PSNR %.3f dB  SSIM %.4f", self.step, evaluation.psnr, evaluation.ssim)
        self.run.measure({"step": self.step, "psnr": evaluation.psnr, "ssim": evaluation.ssim})
        self._picture()
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

    def judge(self, network: VideoNetwork | None) -> dict[str, Any]:
        """Any network, or bicubic, on the validation clips, as JSON."""
        return self._evaluate(network).to_json()

    def _evaluate(self, network: VideoNetwork | None) -> Evaluation:
        return evaluate(
            network,
            self.validation,
            degradation=self.config.data.degradation,
            scale=self.task.student.scale,
            device=self.device,
            frames=self.config.data.validation_frames,
            time_scale=self.task.student.time_scale,
            progress=lambda _: self._stop_if_asked(),
        )

    def _picture(self) -> None:
        """Bicubic | student | teachers | truth, of the first validation clip's middle."""
        clip, reach = self.validation[0], 3
        middle = min(clip.length, self.config.data.validation_frames or clip.length) // 2
        start = max(middle - reach, 0)
        scale = self.task.student.scale
        frames = [torch.from_numpy(frame).permute(2, 0, 1) for frame in clip.frames(start, middle + reach + 1)]
        height, width = (side // scale * scale for side in frames[0].shape[-2:])
        truth = torch.stack(frames)[..., :height, :width].float() / 255
        low = degrade(truth, self.config.data.degradation, scale)
        centre = middle - start
        panels = [bicubic_upsample(low[centre], scale)]
        self.task.eval()
        with torch.inference_mode():
            for network in (self.task.student, *(teacher.network for teacher in self.teachers)):
                streamed = network.stream(iter(low.to(self.device)))
                panels.append(next(islice(streamed, centre * network.time_scale, None)))
        self.run.picture(f"step-{self.step:06d}", [*panels, truth[centre]])

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

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks the loop to stop after its step; a second one stops at once."""

        def ask(number: int, _: FrameType | None) -> None:
            self.stopping = number
            signal.signal(number, previous[signal.Signals(number)])
            log.info("stopping after this step; once more to stop without saving")

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop_if_asked(self) -> None:
        if self.stopping is not None:
            raise Interrupted(f"stopped by {signal.Signals(self.stopping).name}")


def _peak_memory() -> str:
    """This process's largest memory so far, where the system tells it."""
    if sys.platform == "win32":
        return ""
    import resource

    unit = 1 << 30 if sys.platform == "darwin" else 1 << 20  # bytes there, kilobytes elsewhere
    return f"  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GB"


def largest_mean_offset(network: nn.Module) -> float:
    """Of all deformable convolutions in a network, the largest mean |offset| of the last training step, pixels."""
    recorded = (getattr(module, "mean_offset", None) for module in network.modules())
    return max((float(offset) for offset in recorded if isinstance(offset, Tensor)), default=0.0)
