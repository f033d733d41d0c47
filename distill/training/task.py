"""One training step's loss: student, frozen teachers, and what training alone needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.data import Batch
from distill.errors import ConfigError
from distill.interfaces import Upsampled, VideoNetwork, WindowNetwork
from distill.losses.charbonnier import charbonnier
from distill.losses.methods import TERMS
from distill.losses.term import FeatureKind, Seen, Surroundings, Term
from distill.training.teacher_cache import TeacherCache

__all__ = ["Distillation", "Teacher", "compared_features"]

_USUAL_ATTENTION = 0.045
"""Mean attention of the shipped edvr-s on the sample clips, for which the methods' weights were chosen."""


@dataclass(frozen=True)
class Teacher:
    """A frozen network that teaches.

    Attributes:
        network: what restores the clip, frozen.
        name: in metrics, where several teach.
        weight: of all that it teaches.
        cache: of what it restored before.
    """

    network: VideoNetwork
    name: str = "teacher"
    weight: float = 1.0
    cache: TeacherCache | None = None


class Distillation(nn.Module):
    """L = truth * L_rec + the method's terms, for each teacher, after a warm-up on L_rec; L_rec alone without any.

    For the method `std` that is L_rec + space * L_SD + time * L_TD (STD Eq. 9). What the terms learn themselves (the
    ConvLSTM, 1x1 convolutions between unequal channels) belongs here, not to the student: what is exported is the
    student's architecture, untouched.

    A student that keeps the frame rate may learn from a teacher that doubles it, whose in-between frames are dropped.
    A network that multiplies the frame rate is given every `time_scale`-th frame, and restores them all.

    Args:
        student: the network that is trained.
        teachers: frozen; none trains on the truth alone.
        weights: term -> weight, of `distill.losses.methods.TERMS`.
        truth: weight of L_rec after the warm-up.
        features: what is compared: F^SR ("hr"), F^LR ("lr"), or F^SR where both networks have it ("auto").
        match_scale: multiply both networks' features, for the comparison only: the teacher's to a usual mean attention,
            the student's to the teacher's when distillation starts.
        warm_up: steps on L_rec alone.
        memory_crop: side of the square of features that the ConvLSTM sees, in their own pixels; None is all of it.
        middle_only: restore only the middle frame of clips as long as the student's window.

    Raises:
        ConfigError: the networks' frames or features cannot be compared.
    """

    def __init__(
        self,
        student: VideoNetwork,
        teachers: Sequence[Teacher],
        weights: Mapping[str, float],
        *,
        truth: float = 1.0,
        features: Literal["auto", "hr", "lr"] = "auto",
        match_scale: bool = True,
        warm_up: int = 0,
        memory_crop: int | None = None,
        middle_only: bool = False,
    ) -> None:
        super().__init__()
        self.student, self.teachers = student, tuple(teachers)
        self.weights, self.truth, self.warm_up, self.middle_only = dict(weights), truth, warm_up, middle_only
        taught = [name for name in weights if TERMS[name].taught]
        self.lessons = nn.ModuleList(
            Lesson(student, each, taught, features=features, match_scale=match_scale, memory_crop=memory_crop)
            for each in teachers
        )
        own = [name for name in weights if not TERMS[name].taught]
        for name in own:
            TERMS[name].check(student)
        self.own_terms = nn.ModuleDict({name: TERMS[name](Surroundings()) for name in own})
        self.looks_inside = any(TERMS[name].looks_inside for name in own)

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        for lesson in self._lessons():
            lesson.teacher.eval()
        return self

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The step's loss under "loss", and each part by name, unweighted.

        Args:
            batch: low and high resolution; without high resolution, teachers and terms that need no truth supervise.
            step: from 0, which tells the warm-up and where the ConvLSTM looks.
        """
        if self.middle_only:
            assert isinstance(self.student, WindowNetwork)
            assert batch.hr is not None
            middle = self.student.reconstruct(batch.lr).frames.float()
            loss = charbonnier(middle, batch.hr[:, batch.hr.shape[1] // 2])
            return {"loss": loss, "reconstruction": loss}
        low = batch.lr[:, :: self.student.time_scale]
        restored, inside = self.student.with_intermediates(low) if self.looks_inside else (self.student(low), None)
        pictures = restored.frames.float()
        seen = Seen(low, pictures, batch.hr, step, self.student, low_truth=batch.lr, intermediates=inside)
        warm = step >= self.warm_up
        parts, summands = {}, []
        if batch.hr is not None:
            parts["reconstruction"] = charbonnier(seen.restored, batch.hr)
            summands.append((self.truth if warm else 1.0) * parts["reconstruction"])
        if warm:
            for lesson in self._lessons():
                for name, value in lesson(seen, restored):
                    parts[name if len(self.lessons) == 1 else f"{name} {lesson.name}"] = value
                    summands.append(lesson.weight * self.weights[name] * value)
            for name, term in self._own_terms():
                if batch.hr is not None or not term.needs_truth:
                    parts[name] = term(seen)
                    summands.append(self.weights[name] * parts[name])
        return {"loss": torch.stack(summands).sum(), **parts}

    def measure_teachers(self, clips: Iterable[Tensor]) -> None:
        """Bring the teachers' features to the scale that the terms' weights are for, where scales are matched.

        Teachers' attention differs a hundredfold, and its squared distance ten-thousandfold.

        Args:
            clips: low-resolution training clips (B, T, 3, h, w).
        """
        lessons = [lesson for lesson in self._lessons() if lesson.kinds and lesson.match_scale]
        if lessons:
            found = [[lesson.attention(clip[:, :: self.student.time_scale]) for lesson in lessons] for clip in clips]
            for lesson, levels in zip(lessons, zip(*found, strict=True), strict=True):
                lesson.bring_to_usual(levels)

    def after_step(self, parts: dict[str, float]) -> None:
        """Tell each term what it was."""
        for lesson in self._lessons():
            for name, term in lesson.named_terms():
                key = name if len(self.lessons) == 1 else f"{name} {lesson.name}"
                if key in parts:
                    term.after_step(parts[key])

    def trained_state(self) -> dict[str, Any]:
        """What a resumed run needs beside the student's weights."""
        return {
            "lessons": [lesson.trained_state() for lesson in self._lessons()],
            "own_terms": self.own_terms.state_dict(),
            "terms": sorted(self.weights),
        }

    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Undo `trained_state`.

        Raises:
            ValueError: it is of other terms.
        """
        if state["terms"] != sorted(self.weights):
            raise ValueError(f"the state is of {state['terms']}, the recipe of {sorted(self.weights)}")
        self.own_terms.load_state_dict(state["own_terms"])
        for lesson, saved in zip(self._lessons(), state["lessons"], strict=True):
            lesson.load_trained_state(saved)

    def _lessons(self) -> Iterator[Lesson]:
        for lesson in self.lessons:
            assert isinstance(lesson, Lesson)
            yield lesson

    def _own_terms(self) -> Iterator[tuple[str, Term]]:
        for name, term in self.own_terms.items():
            assert isinstance(term, Term)
            yield name, term


class Lesson(nn.Module):
    """What one teacher teaches.

    Args:
        student: who learns.
        teacher: frozen here.
        terms: names of those that compare with a teacher.
        features: what is compared, as of `Distillation`.
        match_scale: likewise.
        memory_crop: likewise.

    Raises:
        ConfigError: the networks' frames or features cannot be compared.
    """

    def __init__(
        self,
        student: VideoNetwork,
        teacher: Teacher,
        terms: Iterable[str],
        *,
        features: Literal["auto", "hr", "lr"],
        match_scale: bool,
        memory_crop: int | None,
    ) -> None:
        super().__init__()
        self.teacher, self.name, self.weight, self.cache = teacher.network, teacher.name, teacher.weight, teacher.cache
        self.student_scale = student.scale
        self.teacher.requires_grad_(False)
        if student.scale != self.teacher.scale or self.teacher.time_scale % student.time_scale:
            raise ConfigError(
                f"The student makes x{student.scale} in size and x{student.time_scale} in frames, {self.name} "
                f"x{self.teacher.scale} and x{self.teacher.time_scale}; the sizes must agree, and the teacher must "
                "make every frame that the student makes (STINet, STARnet and STVUN double the frame rate)."
            )
        self.every = self.teacher.time_scale // student.time_scale
        self.match_scale = match_scale
        self.term_kinds: dict[str, FeatureKind | None] = {}
        self.terms = nn.ModuleDict()
        for name in terms:
            kind: FeatureKind | None = None
            if TERMS[name].compares is not None:
                kind = compared_features(student, self.teacher, "lr" if TERMS[name].compares == "lr" else features)
            channels = (_channels(student, kind), _channels(self.teacher, kind)) if kind is not None else (0, 0)
            self.terms[name] = TERMS[name](Surroundings(*channels, memory_crop))
            self.term_kinds[name] = kind
        self.kinds = sorted({kind for kind in self.term_kinds.values() if kind is not None})
        needed = (kind if _native(self.teacher, kind) else "hr" for kind in self.kinds)
        self.fields = frozenset(f"{kind}_features" for kind in needed)
        self.teacher_gains: dict[str, float] = dict.fromkeys(self.kinds, 1.0)
        self.gains: dict[str, float] = {} if match_scale else dict.fromkeys(self.kinds, 1.0)

    def forward(self, seen: Seen, restored: Upsampled) -> Iterator[tuple[str, Tensor]]:
        """Each term by name, unweighted, of a step that the student has restored."""
        if not self.terms:
            return
        taught = self.taught(seen.low)
        matched = {kind: self._matched(kind, restored, taught) for kind in self.kinds}
        seen = replace(seen, taught=taught.frames[:, :: self.every].float())
        for name, term in self.named_terms():
            if seen.truth is None and term.needs_truth:
                continue
            kind = self.term_kinds[name]
            if kind is not None:
                seen = replace(seen, ours=matched[kind][0], theirs=matched[kind][1])
            yield name, term(seen)

    def taught(self, low: Tensor) -> Upsampled:
        """What the teacher makes of clips (B, T, 3, h, w), its own frame rate kept."""
        with torch.no_grad():
            restored: Upsampled = self.teacher(low) if self.cache is None else self.cache(low, self.fields)
        return restored

    def attention(self, clip: Tensor) -> dict[FeatureKind, float]:
        """How much of each kind the teacher has on low-resolution clips, (B, T, 3, h, w)."""
        taught = self.taught(clip)
        return {kind: _mean_attention(_features(taught, kind, self.teacher.scale)) for kind in self.kinds}

    def bring_to_usual(self, levels: Sequence[dict[FeatureKind, float]]) -> None:
        """Scale the teacher's features so that these levels average the usual one."""
        for kind in self.kinds:
            mean = sum(level[kind] for level in levels) / len(levels)
            self.teacher_gains[kind] = (_USUAL_ATTENTION / max(mean, 1e-12)) ** 0.5

    def named_terms(self) -> Iterator[tuple[str, Term]]:
        """Each term by its name."""
        for name, term in self.terms.items():
            assert isinstance(term, Term)
            yield name, term

    def trained_state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        extra = {name: dict(term.extra()) for name, term in self.named_terms()}
        gains = {"gains": dict(self.gains), "teacher_gains": dict(self.teacher_gains)}
        return {"terms": self.terms.state_dict(), "extra": extra, **gains}

    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Undo `trained_state`."""
        self.terms.load_state_dict(state["terms"])
        self.gains, self.teacher_gains = dict(state["gains"]), dict(state["teacher_gains"])
        for name, term in self.named_terms():
            term.restore_extra(state["extra"][name])

    def _matched(self, kind: FeatureKind, restored: Upsampled, taught: Upsampled) -> tuple[Tensor, Tensor]:
        """Both networks' features, brought to one scale."""
        ours = _features(restored, kind, self.student_scale)
        theirs = _features(taught, kind, self.teacher.scale)[:, :: self.every] * self.teacher_gains[kind]
        if kind not in self.gains:
            self.gains[kind] = (_mean_attention(theirs) / max(_mean_attention(ours), 1e-12)) ** 0.5
        return ours * self.gains[kind], theirs


def compared_features(
    student: VideoNetwork, teacher: VideoNetwork, features: Literal["auto", "hr", "lr"]
) -> FeatureKind:
    """Which features of the two networks are compared; "auto" is F^SR where both have it, else F^LR.

    Raises:
        ConfigError: F^SR is to be compared, and one of the two has none.
    """
    lacking = [
        f"the {role}'s {type(network).__name__}"
        for role, network in (("student", student), ("teacher", teacher))
        if network.hr_channels is None
    ]
    if features == "hr" and lacking:
        raise ConfigError(
            f"distillation.features=hr compares high-resolution features, which {' and '.join(lacking)} has not; "
            "set it to lr or auto."
        )
    if features == "auto":
        return "lr" if lacking else "hr"
    return features


def _features(restored: Upsampled, which: FeatureKind, scale: int) -> Tensor:
    """(B, T', C, H, W) or (B, T', C', h, w), in float32.

    A network that works at high resolution throughout has no F^LR; its F^SR, the scale^2 pixels over each
    low-resolution one laid into channels, stands in, and the sum over channels (Eq. 2) then covers them all.
    """
    if which == "hr":
        assert restored.hr_features is not None
        return restored.hr_features.float()
    if restored.lr_features is not None:
        return restored.lr_features.float()
    assert restored.hr_features is not None
    return functional.pixel_unshuffle(restored.hr_features.float(), scale)


def _mean_attention(features: Tensor) -> float:
    """Of Eq. 2, over all pixels of (B, N, C, H, W)."""
    return float(features.detach().square().sum(2).mean())


def _native(network: VideoNetwork, which: FeatureKind) -> bool:
    """Whether the network has features of that kind by itself."""
    return (network.hr_channels if which == "hr" else network.lr_channels) is not None


def _channels(network: VideoNetwork, which: FeatureKind) -> int:
    if which == "lr" and network.lr_channels is not None:
        return network.lr_channels
    assert network.hr_channels is not None
    return network.hr_channels if which == "hr" else network.hr_channels * network.scale**2
