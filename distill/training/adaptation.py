"""A trained student fine-tuned on footage of one's own, of which there is no high resolution.

The teacher supervises the footage; clips of known truth stay in, so that what was learnt is not forgotten. The last
fifth of each clip is never trained on: there the student is compared with the teacher, before and after. That tells
how far they agree, not how right they are; the clips of known truth tell what became of the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.data import Clip, bicubic_upsample, find_clips
from distill.data.excerpt import parts
from distill.errors import ConfigError, DataError
from distill.files import replacing
from distill.interfaces import VideoNetwork
from distill.metrics.evaluate import ClipJudge
from distill.metrics.psnr_ssim import to_8_bit
from distill.metrics.scores import Evaluation, Score
from distill.metrics.temporal import CONVENTION
from distill.networks import registry
from distill.networks.opening import open_network
from distill.training.config import Config, read_config
from distill.training.recipe import prepare, run_recipe
from distill.training.run_folder import RunFolder
from distill.training.task import Teacher
from distill.training.trainer import Trainer

__all__ = ["adaptation_recipe", "agreement", "held_out", "prepare_adaptation", "run_adaptation"]

JUDGED_FRAMES = 16
"""Frames of what is held out that are compared, from its start: a teacher may need seconds for each."""

JUDGED_SIDE = 128
"""Low-resolution pixels of each side that are compared, in the middle of the frame."""

_SETTINGS = (
    "distillation.method=std",
    "distillation.weights={output: 1.0, consistency: 0.1}",
    "data.unlabelled_share=0.8",
    "distillation.warm_up=0",  # the student has learnt already
    "optimiser.learning_rate=1e-4",
    "optimiser.warm_up=20",
    "training.steps=400",
)


def adaptation_recipe(
    student: str, settings: Sequence[str], flags: Mapping[str, Any], file: Path | None = None
) -> Config:
    """The recipe of an adaptation.

    Args:
        student: a trained one: a file, a run folder, or the name of one whose weights ship.
        settings: "key.sub=value", before the defaults of an adaptation.
        flags: by dotted key, before those; the footage is data.unlabelled.
        file: the recipe of an adaptation that goes on, instead of those defaults.

    Raises:
        InputError: the student cannot be opened or is none, or a setting is wrong.
    """
    _, described = open_network(student, "student")
    own: tuple[str, ...] = () if file is not None else _SETTINGS
    if file is None and described.degradation is not None:
        own = (*own, f"data.degradation={described.degradation}")
    # a bare name would be a fresh network
    entry = registry.find(student) if student in registry.names() else None
    path = str(entry.weights) if entry is not None and entry.weights is not None else student
    return read_config(file, [*own, *settings], {**flags, "student": path})


def held_out(clips: Sequence[Clip], config: Config) -> list[Clip]:
    """What no training sees of each clip of low resolution.

    Raises:
        DataError: a clip is too short for a sample and two frames beside it.
    """
    rest = []
    for clip in clips:
        trained, last = parts(clip, config.data.unlabelled_share)
        if trained.length < config.data.frames or last is None or last.length < 2:
            raise DataError(
                f"{clip.name} has {clip.length} frames, too few for an adaptation: of its first {trained.length} "
                f"({config.data.unlabelled_share:.0%}) samples of {config.data.frames} are drawn, and of the rest at "
                "least two judge; give a longer clip or set data.frames lower."
            )
        rest.append(last)
    return rest


def prepare_adaptation(config: Config, run: RunFolder, command: str) -> tuple[Trainer, list[Clip]]:
    """As `distill.training.recipe.prepare`, and what is held out of the footage.

    Raises:
        InputError: a name, a file or the footage cannot be used.
    """
    if config.data.unlabelled is None:
        raise ConfigError("There is no footage to adapt to; set data.unlabelled.")
    if config.teacher is None:
        raise ConfigError("Footage without high resolution needs a teacher; set one with --teacher.")
    footage = held_out(find_clips(Path(config.data.unlabelled)), config)
    return prepare(config, run, command), footage


def run_adaptation(
    config: Config, trainer: Trainer, footage: list[Clip], command: str, resume: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Train, and judge before and after; writes agreement.json beside the run's results.json.

    Args:
        config: the recipe.
        trainer: that `prepare_adaptation` built of it.
        footage: that it held out.
        command: as typed.
        resume: a state to go on from.

    Returns:
        Contender -> evaluation as JSON: under "agreement" against the teacher on what was held out of the footage,
        under "truth" on the clips of known truth.

    Raises:
        InputError: the run folder or the state to go on from cannot be used.
        Interrupted: stopped by the user, after the state was saved.
        TrainingDiverged: the last good state stays.
    """
    truth = run_recipe(config, trainer, command, resume)
    networks: dict[str, VideoNetwork | None] = {"bicubic": None}
    networks["student before"], _ = open_network(config.student)
    networks["student after"], _ = open_network(str(trainer.run.student))
    found = agreement(networks, trainer.task.teachers, footage, trainer.device)
    against = {name: evaluation.to_json() for name, evaluation in found.items()}
    with replacing(trainer.run.path / "agreement.json") as temporary:
        temporary.write_text(json.dumps(against, indent=2) + "\n", encoding="utf-8")
    return {"agreement": against, "truth": truth}


def agreement(
    networks: Mapping[str, VideoNetwork | None],
    teachers: Sequence[Teacher],
    clips: Sequence[Clip],
    device: torch.device,
) -> dict[str, Evaluation]:
    """How near networks come to what teachers make of footage, which says nothing of how right that is.

    The middle of the first frames of each clip is restored by all, and compared in 8 bit: PSNR and SSIM of luma, and
    the temporal figures with the teachers' frames in the place of the truth. Several teachers count by their weights.
    Frames that a network inserts are left out.

    Args:
        networks: by name, in evaluation mode; None is bicubic.
        teachers: likewise.
        clips: of low resolution.
        device: where the networks run.

    Returns:
        For each network; `truth_warping` is the teachers' own.

    Raises:
        DataError: a clip has no frames, or none of at least 11 restored pixels a side.
    """
    for network in networks.values():
        if network is not None:
            network.to(device).eval()
    scores: dict[str, dict[str, Score]] = {name: {} for name in networks}
    with torch.inference_mode():
        for clip in clips:
            low = _middles(clip).to(device)
            scale = teachers[0].network.scale
            judges = {name: ClipJudge(temporal=True) for name in networks}
            restored = [_restored(network, low, scale) for network in networks.values()]
            for reference, *frames in zip(_taught(teachers, low), *restored, strict=True):
                for judge, frame in zip(judges.values(), frames, strict=True):
                    judge.add(frame, reference)
            for name, judge in judges.items():
                scores[name][clip.name] = judge.score(clip.name)
    convention: dict[str, str | int] = {
        "channel": "y",
        "crop": 0,
        "degradation": "none",
        "scale": teachers[0].network.scale,
        "frames": JUDGED_FRAMES,
        "time_scale": 1,
        "side": JUDGED_SIDE,
        "against": "the teacher's frames, so this is agreement and not truth; likewise tof and warping",
        **CONVENTION,
    }
    return {name: Evaluation(found, convention) for name, found in scores.items()}


def _middles(clip: Clip) -> Tensor:
    """The middle of the first frames, (T, 3, h, w) in [0, 1]."""
    middles = []
    for frame in clip.frames(0, JUDGED_FRAMES):
        top, left = (max(side - JUDGED_SIDE, 0) // 2 for side in frame.shape[:2])
        middle = frame[top : top + JUDGED_SIDE, left : left + JUDGED_SIDE]
        middles.append(torch.from_numpy(middle.copy()).permute(2, 0, 1).float() / 255)
    if not middles:
        raise DataError(f"{clip.name} ends before the frames that were held out of it; cut off its damaged end.")
    return torch.stack(middles)


def _restored(network: VideoNetwork | None, low: Tensor, scale: int) -> Iterator[Tensor]:
    """The given frames of a clip (T, 3, h, w), restored: (3, H, W) uint8."""
    for frame in _frames(network, low, scale):
        yield to_8_bit(frame).cpu()


def _taught(teachers: Sequence[Teacher], low: Tensor) -> Iterator[Tensor]:
    """The mean of what the teachers make of it, by their weights."""
    total = sum(teacher.weight for teacher in teachers)
    restored = [_frames(teacher.network, low, teacher.network.scale) for teacher in teachers]
    for frames in zip(*restored, strict=True):
        weighted = [teacher.weight / total * frame for teacher, frame in zip(teachers, frames, strict=True)]
        yield to_8_bit(torch.stack(weighted).sum(0)).cpu()


def _frames(network: VideoNetwork | None, low: Tensor, scale: int) -> Iterator[Tensor]:
    if network is None:
        return (bicubic_upsample(frame, scale) for frame in low)
    return islice(network.stream(iter(low)), 0, None, network.time_scale)
