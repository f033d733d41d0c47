"""What can be set, as frozen dataclasses: the only defaults. A YAML file goes before them, key=value before that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.settings import Layer, complain, read_settings

__all__ = ["Config", "DataConfig", "DistillationConfig", "OptimiserConfig", "TrainingConfig", "read_config"]


@dataclass(frozen=True)
class DataConfig:
    """Footage and how low resolution is made of it.

    Attributes:
        path: a video, a folder of frames, a folder of those, Vimeo-90K or REDS; "samples" are the shipped clips.
        split: "train" or "test" where the layout has such lists.
        exclude: names of clips (as `path` yields them) that are left out; a name ending in / leaves out a folder.
        unlabelled: more footage, of low resolution as it is, that has no truth; teachers supervise it.
        unlabelled_share: of each such clip, how much is trained on, from its start; the rest is kept to judge by.
        validation: footage to judge on; "samples" are the shipped held-out clips.
        validation_frames: of each validation clip at most this many, from its start; null is all.
        degradation: "bi", "bd" or "bd-centred".
        frames: N, frames of a training clip, every one of which is restored.
        crop: side of the high-resolution crop, pixels.
        halve_from_height: frames at least so high are halved first (1080p footage carries codec artefacts).
        workers: threads that read ahead; they do not change what is read.
        force: go on although a network was trained on another degradation, which costs about 2 dB.
    """

    path: str = "samples"
    split: str | None = None
    exclude: tuple[str, ...] = ()
    unlabelled: str | None = None
    unlabelled_share: float = 1.0
    validation: str = "samples"
    validation_frames: int | None = None
    degradation: Literal["bi", "bd", "bd-centred"] = "bi"
    frames: int = 7
    crop: int = 96
    halve_from_height: int | None = None
    workers: int = 1
    force: bool = False


@dataclass(frozen=True)
class DistillationConfig:
    """What is distilled, and how much of it; the paper's own numbers are in configs/std_vimeo90k.yaml.

    Attributes:
        method: a name of `distill.losses.methods.METHODS`; "none" trains the student alone.
        weights: term -> weight instead of the method's; terms that the method lacks are added, 0 leaves one out.
        truth: weight of the reconstruction loss after the warm-up, such as 0.5 beside `output` at 0.5; null is what
            the method says, 1 for most.
        unlabelled: weight (lambda) of the loss on footage without high resolution.
        features: what is compared, F^SR ("hr", the paper's) or F^LR ("lr"); "auto" is F^SR where both networks have
            it; null is what the method says.
        match_scale: multiply both networks' features, for the comparison only: the teacher's to a usual mean
            attention, for which the weights are chosen, since teachers differ a hundredfold; the student's to the
            teacher's when distillation starts. A fresh student's may be 15 times larger, and a short recipe would spend
            its steps on shrinking them. The paper does neither; it has one teacher and 780,000 steps.
        warm_up: steps on the reconstruction loss alone.
        memory_crop: side of the square of features that the ConvLSTM sees, in their own pixels; null is all of it.
            The ConvLSTM over whole F^SR costs more than both networks together.
        cache: a folder where what the teacher makes of each crop is kept for the next run over the same crops.
    """

    method: str = "std"
    weights: Mapping[str, Any] = field(default_factory=dict)
    truth: float | None = None
    unlabelled: float = 1.0
    features: Literal["auto", "hr", "lr"] | None = None
    match_scale: bool = True
    warm_up: int = 450
    memory_crop: int | None = 32
    cache: str | None = None


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam.

    Attributes:
        learning_rate: the highest.
        warm_up: steps over which it rises to that, in a straight line.
        schedule: "cosine" falls to zero at the last step, "halving" halves every `halve_every` steps.
        halve_every: steps.
        offset_rate: factor on the learning rate of the convolutions that predict deformable offsets.
        clip_gradient: largest norm of the gradient; null is any.
    """

    learning_rate: float = 3e-4
    warm_up: int = 50
    schedule: Literal["cosine", "halving"] = "cosine"
    halve_every: int = 200_000
    offset_rate: float = 0.25
    clip_gradient: float | None = None


@dataclass(frozen=True)
class TrainingConfig:
    """The loop.

    Attributes:
        steps: how many.
        batch: clips per step.
        norm: batch normalisation "frozen" with statistics measured once before the first step, as the deployed student
            has them, or by "batch". A few small crops have statistics of their own, and a student that leans on them
            while it learns falls apart without them; large batches are safe.
        restore: "all" frames of a clip, or, without a teacher, the "middle" one of clips as long as the network's
            window, as window networks are trained by their authors.
        seed: of weights, crops and everything else random.
        device: "auto", "cpu" or "cuda".
        precision: "fp32"; "bf16", mixed: convolutions in bfloat16, weights and losses in float32; or "auto": bf16
            where the device computes in it.
        log_every: steps between lines in metrics.jsonl.
        validate_every: steps between validations, each with pictures and a checkpoint; null is at the end only.
    """

    steps: int = 650
    batch: int = 1
    norm: Literal["frozen", "batch"] = "frozen"
    restore: Literal["all", "middle"] = "all"
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    log_every: int = 10
    validate_every: int | None = None


@dataclass(frozen=True)
class Config:
    """A recipe.

    Attributes:
        teacher: a teacher's name, "package.module:Class", or a file of weights; several as "edvr+rbpn" or
            "0.7*edvr+0.3*rbpn"; null trains `student` alone.
        student: the network that is trained: a name, or a file of weights to go on from.
        student_options: keywords of the student's class, before those of its name.
    """

    teacher: str | None = "edvr"
    student: str = "fastdvdnet"
    student_options: Mapping[str, Any] = field(default_factory=dict)
    data: DataConfig = DataConfig()
    distillation: DistillationConfig = DistillationConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}, expected at least {least}"
            for name, value, least in (
                ("data.frames", self.data.frames, 1),
                ("data.crop", self.data.crop, 16),
                ("data.workers", self.data.workers, 0),
                ("training.steps", self.training.steps, 1),
                ("training.batch", self.training.batch, 1),
                ("training.log_every", self.training.log_every, 1),
                ("training.validate_every", self.training.validate_every or 1, 1),
                ("data.validation_frames", self.data.validation_frames or int(self.data.validation_frames is None), 1),
                ("training.seed", self.training.seed, 0),
                ("optimiser.halve_every", self.optimiser.halve_every, 1),
                ("optimiser.warm_up", self.optimiser.warm_up, 0),
                ("distillation.memory_crop", self.distillation.memory_crop or 1, 1),
                ("distillation.warm_up", self.distillation.warm_up, 0),
                ("distillation.truth", self.distillation.truth or 0, 0),
                ("distillation.unlabelled", self.distillation.unlabelled, 0),
            )
            if value < least
        ]
        if self.training.seed >= 2**63:
            problems.append(f"training.seed is {self.training.seed}, expected less than 2 to the 63rd")
        if not 0 < self.data.unlabelled_share <= 1:
            problems.append(f"data.unlabelled_share is {self.data.unlabelled_share}, expected more than 0, 1 at most")
        if not self.optimiser.learning_rate > 0:
            problems.append(f"optimiser.learning_rate is {self.optimiser.learning_rate}, expected more than 0")
        if self.training.restore == "middle" and self.teacher is not None:
            problems.append("training.restore is 'middle', which a teacher's memory of a whole clip cannot follow")
        complain(problems)


def read_config(
    file: Path | None,
    settings: Iterable[str],
    flags: Mapping[str, Any],
    *,
    before: Layer | None = None,
    after: Layer | None = None,
) -> Config:
    """The recipe: defaults, then a YAML file, then "key.sub=value" settings, then flags; see `read_settings`.

    Raises:
        ConfigError: everything that is wrong, together, each with where it stands.
    """
    return read_settings(Config, file, settings, flags, before=before, after=after)
