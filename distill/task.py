"""One training step's loss: student, frozen teacher, and what training alone needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.config import DistillationConfig
from distill.data import Batch
from distill.errors import ConfigError
from distill.interfaces import Upsampled, VideoNetwork, WindowNetwork
from distill.losses.attention import space_distance
from distill.losses.charbonnier import charbonnier
from distill.losses.memory import ConvLSTM, time_distance

__all__ = ["SpaceTimeDistillation", "compared_features"]

_COLLAPSED = 1e-8
_USUAL_ATTENTION = 0.045
"""Mean attention of the shipped edvr-s on the sample clips, for which the default weights of the losses were chosen."""


class SpaceTimeDistillation(nn.Module):
    """L = L_rec + space * L_SD + time * L_TD (STD Eq. 9), after a warm-up on L_rec; L_rec alone without a teacher.

    The ConvLSTM, and the 1x1 convolution that brings the student's features to as many channels as the teacher's
    where the numbers differ, belong here, not to the student: what is exported is the student's architecture,
    untouched. The attention maps need no such convolution, since they have no channels.

    A student that keeps the frame rate may learn from a teacher that doubles it, whose in-between frames are dropped.
    A network that multiplies the frame rate is given every `time_scale`-th frame, and restores them all.

    Raises:
        ConfigError: the two networks' frames or features cannot be compared.
    """

    def __init__(
        self,
        student: VideoNetwork,
        teacher: VideoNetwork | None,
        settings: DistillationConfig,
        *,
        middle_only: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.settings = settings
        self.middle_only = middle_only
        self.memory: ConvLSTM | None = None
        self.adapter: nn.Conv2d | None = None
        self.memory_frozen = False
        self.gain: float | None = None if settings.match_scale else 1.0
        self.teacher_gain = 1.0
        if teacher is None:
            return
        teacher.requires_grad_(False)
        if student.scale != teacher.scale or teacher.time_scale % student.time_scale:
            raise ConfigError(
                f"The student makes x{student.scale} in size and x{student.time_scale} in frames, the teacher "
                f"x{teacher.scale} and x{teacher.time_scale}; the sizes must agree, and the teacher must make every "
                "frame that the student makes."
            )
        self.features = compared_features(student, teacher, settings.features)
        if settings.time:
            ours, theirs = _channels(student, self.features), _channels(teacher, self.features)
            self.memory = ConvLSTM(theirs, theirs)
            if ours != theirs:
                self.adapter = nn.Conv2d(ours, theirs, 1, bias=False)
                # keeps the sum of squares of what it is given, so the matched scale stays matched
                nn.init.orthogonal_(self.adapter.weight, gain=max(1, ours / theirs) ** 0.5)

    def train(self, mode: bool = True) -> SpaceTimeDistillation:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The step's loss under "loss", and each part by name, unweighted.

        Args:
            batch: low and high resolution.
            step: from 0, which tells the warm-up and where the ConvLSTM looks.
        """
        if self.middle_only:
            assert isinstance(self.student, WindowNetwork)
            restored, truth = self.student.reconstruct(batch.lr), batch.hr[:, batch.hr.shape[1] // 2]
        else:
            seen = batch.lr[:, :: self.student.time_scale]
            restored, truth = self.student(seen), batch.hr
        parts = {"reconstruction": charbonnier(restored.frames.float(), truth)}
        loss = parts["reconstruction"]
        if self.teacher is not None and step >= self.settings.warm_up:
            with torch.no_grad():
                taught: Upsampled = self.teacher(seen)
            step_in_time = self.teacher.time_scale // self.student.time_scale
            ours = _features(restored, self.features, self.student.scale)
            theirs = _features(taught, self.features, self.teacher.scale)[:, ::step_in_time] * self.teacher_gain
            if self.gain is None:
                self.gain = (_mean_attention(theirs) / max(_mean_attention(ours), 1e-12)) ** 0.5
            ours = ours * self.gain
            if self.settings.space:
                parts["space"] = space_distance(ours, theirs, self.settings.mapping)
                loss = loss + self.settings.space * parts["space"]
            if self.memory is not None:
                parts["time"] = self._time(self.memory, ours, theirs, step)
                loss = loss + self.settings.time * parts["time"]
        return {"loss": loss, **parts}

    def measure_teacher(self, clips: Iterable[Tensor]) -> None:
        """Bring the teacher's features to the scale that the losses' weights are for, where scales are matched.

        Teachers' attention differs a hundredfold, and its squared distance ten-thousandfold.

        Args:
            clips: low-resolution training clips (B, T, 3, h, w).
        """
        if self.teacher is None or not self.settings.match_scale:
            return
        with torch.no_grad():
            seen = (self.teacher(clip[:, :: self.student.time_scale]) for clip in clips)
            found = [_mean_attention(_features(each, self.features, self.teacher.scale)) for each in seen]
        self.teacher_gain = (_USUAL_ATTENTION / max(sum(found) / len(found), 1e-12)) ** 0.5

    def after_step(self, parts: dict[str, Tensor]) -> None:
        """Freeze the ConvLSTM once its term is under 1e-8, lest both collapse to zero (STD Sec. 3.2)."""
        if self.memory is not None and "time" in parts and parts["time"].item() < _COLLAPSED:
            self.freeze_memory()

    def freeze_memory(self) -> None:
        """From here on the ConvLSTM reads but does not learn."""
        self.memory_frozen = True
        if self.memory is not None:
            self.memory.requires_grad_(False)

    def trained_state(self) -> dict[str, Any]:
        """What a resumed run needs beside the student's weights."""
        memory = self.memory.state_dict() if self.memory is not None else {}
        adapter = self.adapter.state_dict() if self.adapter is not None else {}
        gains = {"gain": self.gain, "teacher_gain": self.teacher_gain}
        return {"memory": memory, "adapter": adapter, "memory_frozen": self.memory_frozen, **gains}

    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Undo `trained_state`."""
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        if self.adapter is not None:
            self.adapter.load_state_dict(state["adapter"])
        self.gain, self.teacher_gain = state["gain"], state["teacher_gain"]
        if state["memory_frozen"]:
            self.freeze_memory()

    def _time(self, memory: ConvLSTM, ours: Tensor, theirs: Tensor, step: int) -> Tensor:
        side = self.settings.memory_crop
        height, width = ours.shape[-2:]
        if side is not None and side < max(height, width):
            # the square moves with the step, in strides that visit all of it
            top = step * 13 % max(height - side + 1, 1)
            left = step * 29 % max(width - side + 1, 1)
            ours, theirs = (each[..., top : top + side, left : left + side] for each in (ours, theirs))
        if self.adapter is not None:
            ours = self.adapter(ours.flatten(0, 1)).unflatten(0, ours.shape[:2])
        return time_distance(memory, ours, theirs)


def compared_features(
    student: VideoNetwork, teacher: VideoNetwork, asked: Literal["auto", "hr", "lr"]
) -> Literal["hr", "lr"]:
    """Which features of the two networks are compared: F^SR where both have it, else F^LR, unless asked otherwise.

    Raises:
        ConfigError: F^SR was asked for, and one of the two has none.
    """
    lacking = [
        f"the {role}'s {type(network).__name__}"
        for role, network in (("student", student), ("teacher", teacher))
        if network.hr_channels is None
    ]
    if asked == "hr" and lacking:
        raise ConfigError(
            f"distillation.features=hr compares high-resolution features, which {' and '.join(lacking)} has not; "
            "set it to lr or auto."
        )
    if asked == "auto":
        return "lr" if lacking else "hr"
    return asked


def _features(restored: Upsampled, which: Literal["hr", "lr"], scale: int) -> Tensor:
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


def _channels(network: VideoNetwork, which: Literal["hr", "lr"]) -> int:
    if which == "lr" and network.lr_channels is not None:
        return network.lr_channels
    assert network.hr_channels is not None
    return network.hr_channels if which == "hr" else network.hr_channels * network.scale**2
