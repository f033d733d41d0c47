"""From a recipe to a finished run: networks, footage, training, and the table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill import __version__
from distill.data import Clip, CropSampler, find_clips, sample_clips
from distill.data.excerpt import parts
from distill.errors import ConfigError, DataError, did_you_mean
from distill.interfaces import VideoNetwork, WindowNetwork
from distill.losses.methods import TERMS, weights
from distill.networks import optical_flow as flow
from distill.networks import registry
from distill.networks.checkpoint import Described
from distill.networks.opening import _is_file, check_degradation, named_teachers, open_network, pick_device
from distill.training.config import Config, DataConfig
from distill.training.run_folder import RunFolder, environment, log
from distill.training.task import Teacher
from distill.training.teacher_cache import TeacherCache
from distill.training.trainer import Trainer

__all__ = ["Prepared", "prepare", "run_recipe"]

_SAMPLES = "samples"


@dataclass(frozen=True)
class Prepared:
    """A recipe whose every part was found to be usable; nothing is written or trained yet."""

    config: Config
    trainer: Trainer
    clips: int

    def contenders(self) -> Iterator[tuple[str, VideoNetwork | None]]:
        """What the student is judged beside, by its name in the table."""
        yield "bicubic", None
        for teacher in self.trainer.teachers:
            yield teacher.name, teacher.network


def prepare(config: Config, run: RunFolder, command: str) -> Prepared:
    """Open everything that a recipe names.

    Args:
        config: the recipe.
        run: where everything will go.
        command: as typed, kept for whoever wants to repeat it.

    Raises:
        InputError: a name, a file or the footage cannot be used.
    """
    device = pick_device(config.training.device)
    torch.manual_seed(config.training.seed)
    student, described = _student(config, command)
    teachers = _teachers(config)
    _check_method(config, teachers)
    for network in (student, *(teacher.network for teacher in teachers)):
        flow.require(getattr(network, "flow", "torch"))  # now rather than at the first frame
    if student.scale == 1:
        raise ConfigError(f"{config.student} keeps the size of its frames; training here is for networks that upscale.")
    sampler = _sampler(config, student, _training_clips(config.data), config.data.degradation)
    unlabelled = None
    if config.data.unlabelled is not None:
        _check_unlabelled(config, teachers)
        footage = find_clips(Path(config.data.unlabelled))
        unlabelled = _sampler(config, student, [parts(clip, config.data.unlabelled_share)[0] for clip in footage], None)
    validation = find_clips(sample_clips("held_out") if config.data.validation == _SAMPLES else config.data.validation)
    trainer = Trainer(config, student, described, teachers, sampler, unlabelled, validation, run, device)
    return Prepared(config, trainer, len(sampler.clips))


def run_recipe(prepared: Prepared, command: str, resume: Path | None = None) -> dict[str, Any]:
    """Train, and judge bicubic, the student before and after, and the teacher alike.

    Args:
        prepared: what `prepare` found.
        command: as typed.
        resume: a state to go on from.

    Returns:
        Contender -> evaluation as JSON, in the order of the table.

    Raises:
        InputError: the run folder cannot be written, or the state to go on from cannot be used.
        Interrupted: stopped by the user, after the state was saved.
        TrainingDiverged: the last good state is kept.
    """
    config, trainer = prepared.config, prepared.trainer
    run = trainer.run
    if resume is not None:
        trainer.resume(resume)  # before anything is written: a state that does not fit leaves the run as it was
    run.start(config, command, resuming=resume is not None)
    with run.logging_to_file():
        if resume is not None:
            run.forget_after(trainer.step)
            log.info("going on from step %d of %s", trainer.step, resume)
        terms = ", ".join(f"{name} {weight:g}" for name, weight in trainer.task.weights.items())
        taught = f"{config.teacher} teaches " if trainer.teachers and terms else "training "
        log.info("%s%s on %s, %d clips, into %s", taught, config.student, trainer.device, prepared.clips, run.path)
        log.info("method %s: %s", config.distillation.method, terms or "the truth alone")
        trained = trainer.train()
        for cache in (teacher.cache for teacher in trainer.teachers if teacher.cache is not None):
            log.info("teacher cache: %d found, %d made, in %s", cache.hits, cache.misses, cache.folder)
        judged = {name: trainer.judge(network) for name, network in prepared.contenders()}
    results = {"bicubic": judged.pop("bicubic"), **trained, **judged}
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


def _check_method(config: Config, teachers: list[Teacher]) -> None:
    """Refuse, or tell of, terms that would do nothing."""
    settings, training = config.distillation, config.training
    chosen = weights(settings.method, settings.weights)
    idle = [name for name in chosen if TERMS[name].taught and not teachers]
    active = [name for name in chosen if name not in idle]
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


def _check_unlabelled(config: Config, teachers: list[Teacher]) -> None:
    """Refuse footage without truth where nothing would learn from it."""
    terms = [TERMS[name] for name in weights(config.distillation.method, config.distillation.weights)]
    if not any(not term.needs_truth and (teachers or not term.taught) for term in terms):
        raise ConfigError(
            f"data.unlabelled has no high resolution, and the method {config.distillation.method!r} "
            f"{'' if teachers else 'without a teacher '}learns from nothing else; choose another, such as output."
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
    kept = [clip for clip in clips if not any(_excluded(clip.name, name) for name in data.exclude)]
    if not kept:
        raise DataError(f"data.exclude leaves none of the {len(clips)} clips in {data.path}.")
    return kept


def _excluded(clip: str, name: str) -> bool:
    return clip.startswith(name) if name.endswith("/") else clip == name


def _student(config: Config, command: str) -> tuple[VideoNetwork, Described]:
    """The network that is trained: fresh, or going on from a file."""
    provenance = {"command": command, "teacher": config.teacher, "data": config.data.path, "versions": environment()}
    provenance["distill-vsr"] = __version__
    degradation = config.data.degradation
    role: registry.Role | None = "student" if config.teacher is not None else None
    if _is_file(config.student):
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
