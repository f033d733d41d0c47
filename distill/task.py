"""One training step's loss: student, frozen teacher, and what training alone needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distill.config import DistillationConfig
from distill.data import Batch
from distill.errors import ConfigError
from distill.interfaces import Upsampled, VideoNetwork, WindowNetwork
from distill.losses.attention import space_distance
from distill.losses.charbonnier import charbonnier
from distill.losses.memory import ConvLSTM, time_distance

__all__ = ["SpaceTimeDistillation"]

_COLLAPSED = 1e-8


class SpaceTimeDistillation(nn.Module):
    """L = L_rec + space * L_SD + time * L_TD (STD Eq. 9), after a warm-up on L_rec; L_rec alone without a teacher.

    The ConvLSTM belongs here, not to the student: what is exported is the student's architecture, untouched.

    Raises:
        ConfigError: the two networks' features cannot be compared.
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
        self.memory_frozen = False
        self.gain: float | None = None if settings.match_scale else 1.0
        if teacher is None:
            return
        teacher.requires_grad_(False)
        if (student.scale, student.time_scale) != (teacher.scale, teacher.time_scale):
            raise ConfigError(
                f"The student makes x{student.scale} in size and x{student.time_scale} in frames, the teacher "
                f"x{teacher.scale} and x{teacher.time_scale}; they must agree."
            )
        if settings.time:
            ours, theirs = self._channels(student), self._channels(teacher)
            if ours != theirs:
                raise ConfigError(
                    f"The shared ConvLSTM needs equal channels, and the student's F^{settings.features.upper()} has "
                    f"{ours} where the teacher's has {theirs}; set distillation.features=hr or distillation.time=0."
                )
            self.memory = ConvLSTM(ours, ours)

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
            restored, truth = self.student(batch.lr), batch.hr
        parts = {"reconstruction": charbonnier(restored.frames.float(), truth)}
        loss = parts["reconstruction"]
        if self.teacher is not None and step >= self.settings.warm_up:
            with torch.no_grad():
                taught: Upsampled = self.teacher(batch.lr)
            ours, theirs = self._features(restored), self._features(taught)
            if self.gain is None:
                self.gain = float((theirs.square().mean() / ours.detach().square().mean().clamp_min(1e-12)).sqrt())
            ours = ours * self.gain
            if self.settings.space:
                parts["space"] = space_distance(ours, theirs, self.settings.mapping)
                loss = loss + self.settings.space * parts["space"]
            if self.memory is not None:
                parts["time"] = self._time(self.memory, ours, theirs, step)
                loss = loss + self.settings.time * parts["time"]
        return {"loss": loss, **parts}

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
        return {"memory": memory, "memory_frozen": self.memory_frozen, "gain": self.gain}

    def load_trained_state(self, state: dict[str, Any]) -> None:
        """Undo `trained_state`."""
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        self.gain = state["gain"]
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
        return time_distance(memory, ours, theirs)

    def _features(self, restored: Upsampled) -> Tensor:
        return (restored.hr_features if self.settings.features == "hr" else restored.lr_features).float()

    def _channels(self, network: VideoNetwork) -> int:
        return network.hr_channels if self.settings.features == "hr" else network.lr_channels
