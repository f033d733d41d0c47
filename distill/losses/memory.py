"""Time distillation: one ConvLSTM reads both networks' features; its memories must agree (STD Sec. 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvLSTM", "time_distance"]


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
