"""What can be set, as frozen dataclasses: the only defaults. A YAML file goes before them, key=value before that."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from distill.errors import ConfigError
from distill.registry import did_you_mean

__all__ = [
    "Config",
    "DataConfig",
    "DistillationConfig",
    "Layer",
    "OptimiserConfig",
    "TrainingConfig",
    "read_config",
    "read_yaml",
    "to_yaml",
]

Layer = tuple[str, Mapping[str, Any]]
"""Settings, after what to call them in errors."""


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
        method: a name of `distill.methods.METHODS`; "none" trains the student alone.
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
        _complain(problems)


def read_config(
    file: Path | None,
    settings: Iterable[str],
    flags: Mapping[str, Any],
    *,
    before: Layer | None = None,
    after: Layer | None = None,
) -> Config:
    """The recipe: defaults, then a YAML file, then "key.sub=value" settings, then flags by dotted key.

    Args:
        file: a recipe.
        settings: each "key.sub=value".
        flags: by dotted key; None is not given.
        before: a recipe that comes before the file, with what to call it in errors.
        after: settings that win over all others, likewise.

    Raises:
        ConfigError: everything that is wrong, together, each with where it stands.
    """
    layers = [(where, _flat(content)) for where, content in _layers(file, settings, flags, before, after)]
    known = _leaves(Config)
    values: dict[str, Any] = {}
    problems = []
    for where, given in layers:
        for key, value in given.items():
            leaf = key if key in known else key.rpartition(".")[0]
            if leaf not in known or (leaf != key and not _is_mapping(known[leaf])):
                problems.append(f"{where}: there is no key {key!r}.{did_you_mean(key, known)}")
                continue
            if key != leaf:
                values[leaf] = {**values.get(leaf, {}), key.rpartition(".")[2]: value}
                continue
            values[key], problem = _fit(value, known[key])
            if problem:
                problems.append(f"{where}: {key} is {value!r}, expected {problem}")
    _complain(problems)
    config: Config = _build(Config, values, "")
    return config


def _layers(
    file: Path | None, settings: Iterable[str], flags: Mapping[str, Any], before: Layer | None, after: Layer | None
) -> Iterator[Layer]:
    """What was given, the weakest first."""
    if before is not None:
        yield before
    if file is not None:
        yield str(file), read_yaml(file)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting} has no '='; expected key.sub=value.")
        yield f"--set {setting}", {key: _scalar(text, setting)}
    yield "the command line", {key: value for key, value in flags.items() if value is not None}
    if after is not None:
        yield after


def to_yaml(config: Config) -> str:
    """The whole recipe, every default written out."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value

    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def _complain(problems: list[str]) -> None:
    if len(problems) == 1:
        raise ConfigError(problems[0].rstrip(".") + ".")
    if problems:
        raise ConfigError(
            f"{len(problems)} things are wrong: " + "; ".join(each.rstrip(".") for each in problems) + "."
        )


def read_yaml(file: Path) -> Mapping[str, Any]:
    """What a YAML file holds, keys with values.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The recipe {file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe {file} is not YAML: {' '.join(str(error).split())}.") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"The recipe {file} holds a {type(content).__name__}, expected keys with values.")
    return content


def _scalar(text: str, setting: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: {text!r} is not a YAML value.") from error


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{dotted}.")
        else:
            flat[dotted] = value
    return flat


def _leaves(kind: type, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type, for every setting."""
    leaves: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            leaves |= _leaves(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            leaves[prefix + name] = hint
    return leaves


def _is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) is Mapping


def _fit(value: Any, hint: Any) -> tuple[Any, str]:
    """The value as the hint wants it, or what was expected."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None, ""
        fitted, problem = _fit(value, next(each for each in choices if each is not type(None)))
        return fitted, problem and f"{problem} or null"
    if origin is Literal:
        return value, "" if value in choices else f"one of {', '.join(map(repr, choices))}"
    if origin is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        return (tuple(value), "") if fits else (value, "a list of names")
    if _is_mapping(hint):
        return value, "" if isinstance(value, Mapping) else "keys with values"
    if hint is float:
        return _fit_number(value)
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    return value, "" if fits else {int: "a whole number", str: "text", bool: "true or false"}[hint]


def _fit_number(value: Any) -> tuple[Any, str]:
    try:  # YAML reads 1e-4 as text
        return (float(value), "") if not isinstance(value, bool) else (value, "a number")
    except (TypeError, ValueError):
        return value, "a number"


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    arguments = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            arguments[name] = _build(hint, values, f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return kind(**arguments)
