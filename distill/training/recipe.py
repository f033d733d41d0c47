"""From a recipe to a finished run: networks, footage, training, and the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distill import __version__
from distill.data import Clip, CropSampler, find_clips, sample_clips
from distill.data.excerpt import parts
from distill.errors import ConfigError, DataError, did_you_mean
from distill.interfaces import VideoNetwork, WindowNetwork
from distill.losses.methods import TERMS, Method, resolve
from distill.networks import optical_flow as flow
from distill.networks import registry
from distill.networks.checkpoint import Described
from distill.networks.opening import (
    check_degradation,
    is_checkpoint_path,
    named_teachers,
    open_network,
    pick_device,
)
from distill.settings import to_yaml
from distill.training.config import Config, DataConfig
from distill.training.optimisation import Schedule, mixed_precision
from distill.training.run_folder import RunFolder, environment, log
from distill.training.task import Distillation, Teacher
from distill.training.teacher_cache import TeacherCache
from distill.training.trainer import LoopSettings, Trainer
from distill.training.validation import Validation

__all__ = ["prepare", "run_recipe"]

_SAMPLES = "samples"


def prepare(config: Config, run: RunFolder, command: str) -> Trainer:
    """Open everything that a recipe names; nothing is written or trained yet.

    Args:
        config: the recipe.
        run: where everything will go.
        command: as typed, for whoever wants to repeat it.

    Raises:
        InputError: a name, a file or the footage cannot be used.
    """
    data, device = config.data, pick_device(config.training.device)
    torch.manual_seed(config.training.seed)
    student, described = _student(config, command)
    teachers = _teachers(config)
    method = _method(config, teachers)
    for network in (student, *(teacher.network for teacher in teachers)):
        flow.require(getattr(network, "flow", "torch"))  # now rather than at the first frame
    if student.scale == 1:
        raise ConfigError(f"{config.student} keeps the size of its frames; training here is for networks that upscale.")
    sampler = _sampler(config, student, _training_clips(data), data.degradation)
    unlabelled = None
    if data.unlabelled is not None:
        _check_unlabelled(config, method, teachers)
        footage = find_clips(Path(data.unlabelled))
        unlabelled = _sampler(config, student, [parts(clip, data.unlabelled_share)[0] for clip in footage], None)
    held_out = find_clips(sample_clips("held_out") if data.validation == _SAMPLES else data.validation)
    validation = Validation(
        held_out, data.degradation, student.scale, student.time_scale, device, frames=data.validation_frames
    )
    task = _task(config, method, student, teachers)
    return Trainer(task, _loop_settings(config, device), sampler, unlabelled, validation, run, described, device)


def run_recipe(config: Config, trainer: Trainer, command: str, resume: Path | None = None) -> dict[str, Any]:
    """Train, and judge bicubic, the student before and after, and the teacher alike.

    Args:
        config: the recipe.
        trainer: that `prepare` built of it.
        command: as typed.
        resume: a state to go on from.

    Returns:
        Contender -> evaluation as JSON, in the order of the table.

    Raises:
        InputError: the run folder cannot be written, or the state to go on from cannot be used.
        Interrupted: stopped by the user, after the state was saved.
        TrainingDiverged: the last good state stays.
    """
    run, task = trainer.run, trainer.task
    if resume is not None:
        trainer.resume(resume)  # before anything is written: a state that does not fit leaves the run as it was
    run.start(to_yaml(config), command, resuming=resume is not None)
    with run.logging_to_file():
        if resume is not None:
            run.forget_after(trainer.step)
            log.info("going on from step %d of %s", trainer.step, resume)
        terms = ", ".join(f"{name} {weight:g}" for name, weight in task.weights.items())
        taught = f"{config.teacher} teaches " if task.teachers and terms else "training "
        clips = len(trainer.sampler.clips)
        log.info("%s%s on %s, %d clips, into %s", taught, config.student, trainer.device, clips, run.path)
        log.info("method %s: %s", config.distillation.method, terms or "the truth alone")
        trained = trainer.train()
        for cache in (teacher.cache for teacher in task.teachers if teacher.cache is not None):
            log.info("teacher cache: %d found, %d made, in %s", cache.hits, cache.misses, cache.folder)
        bicubic = trainer.evaluate(None).to_json()
        judged = {teacher.name: trainer.evaluate(teacher.network).to_json() for teacher in task.teachers}
    results = {"bicubic": bicubic, **trained, **judged}
    run.results(results)
    return results


def _teachers(config: Config) -> list[Teacher]:
    """The frozen networks of a recipe, each with its weight and its cache."""
    teachers = []
    named = named_teachers(config.teacher) if config.teacher is not None else []
    for name, weight in named:
        network, described = open_network(name, "teacher")
        check_degradation(name, described, config.data.degradation, force=config.data.force)
        folder = config.distillation.cache
        cache = TeacherCache(Path(folder), network) if folder is not None else None
        teachers.append(Teacher(network, "teacher" if len(named) == 1 else f"teacher {name}", weight, cache))
    return teachers


def _method(config: Config, teachers: list[Teacher]) -> Method:
    """What is learnt, with the recipe's changes; refuses, or warns of, terms that would do nothing."""
    settings, training = config.distillation, config.training
    method = resolve(settings.method, settings.weights, truth=settings.truth, features=settings.features)
    idle = [name for name in method.weights if TERMS[name].taught and not teachers]
    active = [name for name in method.weights if name not in idle]
    if idle:
        log.warning("the method %s teaches nothing without a teacher: %s", settings.method, ", ".join(idle))
    if training.restore == "middle" and (active or config.data.unlabelled is not None):
        raise ConfigError(
            "training.restore=middle learns from the truth alone; set it to all, or leave out "
            f"{', '.join(active) or 'data.unlabelled'}."
        )
    if settings.truth == 0 and not active:
        raise ConfigError(f"distillation.truth is 0 and the method {settings.method} adds no term: nothing is learnt.")
    if active and settings.warm_up >= training.steps:
        log.warning(
            "nothing is distilled: the warm-up lasts %d steps of %d; set distillation.warm_up lower",
            settings.warm_up,
            training.steps,
        )
    return method


def _check_unlabelled(config: Config, method: Method, teachers: list[Teacher]) -> None:
    """Refuse footage without truth where nothing would learn from it."""
    terms = [TERMS[name] for name in method.weights]
    if not any(not term.needs_truth and (teachers or not term.taught) for term in terms):
        raise ConfigError(
            f"data.unlabelled has no high resolution, and the method {config.distillation.method!r} "
            f"{'' if teachers else 'without a teacher '}learns from nothing else; choose another, such as output."
        )


def _task(config: Config, method: Method, student: VideoNetwork, teachers: list[Teacher]) -> Distillation:
    return Distillation(
        student,
        teachers,
        method.weights,
        truth=method.truth,
        features=method.features,
        match_scale=config.distillation.match_scale,
        warm_up=config.distillation.warm_up,
        memory_crop=config.distillation.memory_crop,
        middle_only=config.training.restore == "middle",
    )


def _loop_settings(config: Config, device: torch.device) -> LoopSettings:
    training, optimiser = config.training, config.optimiser
    halve_every = optimiser.halve_every if optimiser.schedule == "halving" else None
    return LoopSettings(
        steps=training.steps,
        schedule=Schedule(optimiser.learning_rate, optimiser.warm_up, halve_every),
        offset_rate=optimiser.offset_rate,
        clip_gradient=optimiser.clip_gradient,
        unlabelled_weight=config.distillation.unlabelled,
        frozen_norm=training.norm == "frozen",
        mixed=mixed_precision(training.precision, device),
        workers=config.data.workers,
        log_every=training.log_every,
        validate_every=training.validate_every,
    )


def _sampler(config: Config, student: VideoNetwork, clips: list[Clip], degradation: str | None) -> CropSampler:
    data, low = config.data, degradation is None
    return CropSampler(
        clips,
        frames=_frames(config, student),
        crop=data.crop // student.scale if low else data.crop,
        scale=1 if low else student.scale,
        degradation=degradation,
        batch_size=config.training.batch,
        seed=config.training.seed,
        halve_from_height=None if low else data.halve_from_height,
    )


def _training_clips(data: DataConfig) -> list[Clip]:
    clips = find_clips(sample_clips("train")) if data.path == _SAMPLES else find_clips(Path(data.path), data.split)
    unknown = [name for name in data.exclude if not any(_excluded(clip.name, name) for clip in clips)]
    if unknown:
        known = [clip.name for clip in clips]
        hint = did_you_mean(unknown[0], known)
        raise ConfigError(f"data.exclude names {unknown[0]!r}, which {data.path} does not have.{hint}")
    rest = [clip for clip in clips if not any(_excluded(clip.name, name) for name in data.exclude)]
    if not rest:
        raise DataError(f"data.exclude leaves none of the {len(clips)} clips in {data.path}.")
    return rest


def _excluded(clip: str, name: str) -> bool:
    return clip.startswith(name) if name.endswith("/") else clip == name


def _student(config: Config, command: str) -> tuple[VideoNetwork, Described]:
    """The network that is trained: fresh, or going on from a file."""
    provenance = {"command": command, "teacher": config.teacher, "data": config.data.path, "versions": environment()}
    provenance["distill-vsr"] = __version__
    degradation = config.data.degradation
    role: registry.Role | None = "student" if config.teacher is not None else None
    if is_checkpoint_path(config.student):
        network, before = open_network(config.student, role)
        known = {"time_scale": 1, **before.keywords}
        if any(known.get(key) != value for key, value in config.student_options.items()):
            raise ConfigError(
                f"{config.student} holds {before.name} {dict(before.keywords)}, which is not built anew; "
                f"leave out student_options {dict(config.student_options)}, or give a name instead of the file."
            )
        check_degradation(config.student, before, degradation, force=config.data.force)
        return network, Described(before.name, before.keywords, degradation, {**provenance, "from": config.student})
    entry = registry.find(config.student, role)
    keywords = {**entry.keywords, **config.student_options}
    return entry.build(**keywords), Described(entry.name, keywords, degradation, provenance)


def _frames(config: Config, student: VideoNetwork) -> int:
    """How many consecutive frames a training clip has."""
    if (config.data.frames - 1) % student.time_scale:
        raise ConfigError(
            f"data.frames is {config.data.frames}; a network that makes every frame {student.time_scale}-fold needs "
            f"1 more than a multiple of {student.time_scale}, such as 7."
        )
    if config.training.restore != "middle":
        return config.data.frames
    if not isinstance(student, WindowNetwork):
        raise ConfigError("training.restore=middle is for networks that see a window of frames; set it to all.")
    return student.window
