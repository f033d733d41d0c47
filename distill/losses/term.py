"""What a term of the loss is, and what a step shows to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from distill.errors import ConfigError
from distill.interfaces import Intermediates, VideoNetwork

__all__ = ["FeatureKind", "Seen", "Surroundings", "Term", "channel_adapter"]

FeatureKind = Literal["hr", "lr"]


@dataclass(frozen=True)
class Seen:
    """One step's clips, T' moments each, as student, truth and teacher have them; float32.

    Attributes:
        low: what the student was given, (B, T, 3, h, w) in [0, 1]; T' = time_scale * (T - 1) + 1.
        restored: by the student, (B, T', 3, H, W).
        truth: (B, T', 3, H, W); None for footage without high resolution.
        step: from 0.
        student: the network that is trained, for terms that run it again.
        taught: by the teacher, (B, T', 3, H, W), without gradient; None where the term has no teacher.
        ours: the student's features (B, T', C, H', W'), in the scale of the teacher's; None where the term compares
            none. H' and W' are those of the high resolution or of the low one, as the term was built.
        theirs: the teacher's features (B, T', C', H', W'), without gradient.
        low_truth: low resolution at all T' moments, (B, T', 3, h, w), for terms that look inside.
        intermediates: what the student made on its way, for terms that look inside.
    """

    low: Tensor
    restored: Tensor
    truth: Tensor | None
    step: int
    student: VideoNetwork
    taught: Tensor | None = None
    ours: Tensor | None = None
    theirs: Tensor | None = None
    low_truth: Tensor | None = None
    intermediates: Intermediates | None = None

    def features(self) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's, for terms that compare features."""
        assert self.ours is not None
        assert self.theirs is not None
        return self.ours, self.theirs

    def reference(self) -> Tensor:
        """The truth, or where there is none, what the teacher made."""
        best = self.truth if self.truth is not None else self.taught
        assert best is not None
        return best

    def inside(self) -> tuple[Intermediates, Tensor]:
        """What the student made on its way, and low resolution at every moment, for terms that look inside."""
        assert self.intermediates is not None
        assert self.low_truth is not None
        return self.intermediates, self.low_truth


@dataclass(frozen=True)
class Surroundings:
    """What a term is built for.

    Attributes:
        ours: channels of the student's features; 0 for a term that compares none.
        theirs: channels of the teacher's.
        memory_crop: side of the square of features that a ConvLSTM sees, in their own pixels; None is all of it.
    """

    ours: int = 0
    theirs: int = 0
    memory_crop: int | None = None


class Term(nn.Module, ABC):
    """One summand of the loss. What it learns (a ConvLSTM, an adapter) exists for training alone.

    Attributes:
        name: in recipes and in metrics.jsonl.
        taught: whether it compares with a teacher, once for each of them.
        needs_truth: whether it has nothing to say about footage without high resolution.
        compares: "features", of which kind the recipe says; "lr", always F^LR; None, frames alone.
        looks_inside: whether it needs `Seen.low_truth` and `Seen.intermediates`.
    """

    name: ClassVar[str]
    taught: ClassVar[bool] = True
    compares: ClassVar[Literal["features", "lr"] | None] = None
    needs_truth: ClassVar[bool] = False
    looks_inside: ClassVar[bool] = False

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__()

    @classmethod
    def check(cls, student: VideoNetwork) -> None:
        """Refuse a student that the term cannot train.

        Raises:
            ConfigError: it makes nothing on its way, at which the term looks, or is otherwise unfit.
        """
        if cls.looks_inside and type(student).with_intermediates is VideoNetwork.with_intermediates:
            raise ConfigError(
                f"The term {cls.name} supervises what STARnet and STINet make on their way to the frames, and "
                f"{type(student).__name__} makes nothing of the kind; leave the term out."
            )

    @abstractmethod
    def forward(self, seen: Seen) -> Tensor:
        """A scalar, unweighted."""

    def after_step(self, value: float) -> None:
        """Called after the optimiser's step with what the term was."""

    def extra(self) -> Mapping[str, object]:
        """What a resumed run needs beside the tensors."""
        return {}

    def restore_extra(self, extra: Mapping[str, object]) -> None:
        """Undo `extra`."""


def channel_adapter(ours: int, theirs: int) -> nn.Module:
    """A 1x1 convolution over (..., C, H, W) from `ours` channels to `theirs`; nothing where they agree.

    It keeps the sum of squares of what it is given, so that matched scales stay matched.
    """
    if ours == theirs:
        return nn.Identity()
    adapter = nn.Conv2d(ours, theirs, 1, bias=False)
    nn.init.orthogonal_(adapter.weight, gain=max(1, ours / theirs) ** 0.5)
    return adapter
