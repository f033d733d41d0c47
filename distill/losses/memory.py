"""Time distillation: one ConvLSTM reads both networks' features; its memories must agree (STD Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.losses.term import Seen, Surroundings, Term, channel_adapter

__all__ = ["ConvLSTM", "Time", "time_distance"]

_COLLAPSED = 1e-8


class ConvLSTM(nn.Module):
    """The convolutional LSTM of Shi et al. (2015) without peepholes, one layer, 3x3.

    i, f, o = sigmoid, g = tanh of one convolution over (x, h), in this order; c = f c + i g; h = o tanh c.
    """

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.conv = nn.Conv2d(in_channels + hidden_channels, 4 * hidden_channels, 3, padding=1)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C, H, W), in order -> the last hidden state h and cell state c, each (B, hidden, H, W)."""
        batch, _, _, height, width = sequence.shape
        hidden = cell = sequence.new_zeros(batch, self.hidden_channels, height, width)
        for features in sequence.unbind(1):
            gates = self.conv(torch.cat((features, hidden), 1))
            admit, keep, show, candidate = gates.chunk(4, 1)
            cell = keep.sigmoid() * cell + admit.sigmoid() * candidate.tanh()
            hidden = show.sigmoid() * cell.tanh()
        return hidden, cell


def time_distance(memory: ConvLSTM, student: Tensor, teacher: Tensor) -> Tensor:
    """L_TD, Eqs. 6 and 7: mean squared distance of the two last cell states C.

    Args:
        memory: the one ConvLSTM that reads both.
        student: features (B, N, C, H, W).
        teacher: features of the same shape.

    Returns:
        A scalar; its gradient reaches the student and `memory`.
    """
    return functional.mse_loss(memory(student)[1], memory(teacher)[1])


class Time(Term):
    """L_TD. The ConvLSTM stops learning once the term is under 1e-8, lest both memories collapse to zero (Sec. 3.2)."""

    name = "time"
    compares = "features"

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.memory = ConvLSTM(surroundings.theirs, surroundings.theirs)
        self.adapter = channel_adapter(surroundings.ours, surroundings.theirs)
        self.crop = surroundings.memory_crop
        self.frozen = False

    def forward(self, seen: Seen) -> Tensor:
        ours, theirs = seen.features()
        height, width = ours.shape[-2:]
        if self.crop is not None and self.crop < max(height, width):
            # the square moves with the step, in strides that visit all of it
            top = seen.step * 13 % max(height - self.crop + 1, 1)
            left = seen.step * 29 % max(width - self.crop + 1, 1)
            ours, theirs = (each[..., top : top + self.crop, left : left + self.crop] for each in (ours, theirs))
        ours = self.adapter(ours.flatten(0, 1)).unflatten(0, ours.shape[:2])
        return time_distance(self.memory, ours, theirs)

    def after_step(self, value: float) -> None:
        if value < _COLLAPSED:
            self.freeze()

    def freeze(self) -> None:
        """From here on the ConvLSTM reads but does not learn."""
        self.frozen = True
        self.memory.requires_grad_(False)

    def extra(self) -> Mapping[str, object]:
        return {"frozen": self.frozen}

    def restore_extra(self, extra: Mapping[str, object]) -> None:
        if extra["frozen"]:
            self.freeze()
