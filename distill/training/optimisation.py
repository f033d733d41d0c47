"""How the weights are moved: the optimiser, its learning rate, and in what precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Schedule", "adam", "mixed_precision"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, a function of the step alone, so a resumed run has the same.

    Attributes:
        highest: learning rate.
        warm_up: steps over which it rises to that, in a straight line.
        halve_every: steps after which it halves; None lets it fall to zero at the last step, as a cosine does.
    """

    highest: float
    warm_up: int = 0
    halve_every: int | None = None

    def learning_rate(self, step: int, steps: int) -> float:
        """That of a step, from 0, of a run of so many."""
        rate = self.highest * min(1.0, (step + 1) / max(self.warm_up, 1))
        if self.halve_every is not None:
            return rate * 0.5 ** (step // self.halve_every)
        return rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def mixed_precision(name: str, device: torch.device) -> bool:
    """Whether convolutions run in bfloat16: "bf16", or "auto" and the device computes in it."""
    if name != "auto":
        return name == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def adam(task: nn.Module, learning_rate: float, offset_rate: float) -> torch.optim.Adam:
    """Adam over everything in a task that learns.

    Args:
        task: student, ConvLSTM, adapters.
        learning_rate: of the first step.
        offset_rate: factor on it for the convolutions that predict deformable offsets (EDVR bursts without).

    Returns:
        Each group of parameters has its factor on the learning rate under "factor".
    """
    slow: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            (slow if ".conv_offset." in name else other).append(parameter)
    groups = [{"params": other, "factor": 1.0}]
    if slow:
        groups.append({"params": slow, "factor": offset_rate})
    return torch.optim.Adam(groups, lr=learning_rate, betas=(0.9, 0.999))
