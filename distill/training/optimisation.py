"""How the weights are moved: the optimiser, its learning rate, and in what precision."""

from __future__ import annotations

import math

import torch
from torch import nn

from distill.training.config import OptimiserConfig

__all__ = ["learning_rate", "mixed_precision", "optimiser"]


def learning_rate(settings: OptimiserConfig, step: int, steps: int) -> float:
    """The learning rate of a step, a function of the step alone, so a resumed run has the same.

    Args:
        settings: schedule and start.
        step: from 0.
        steps: of the whole run.
    """
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warm_up, 1))
    if settings.schedule == "halving":
        return rate * 0.5 ** (step // settings.halve_every)
    return rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def mixed_precision(name: str, device: torch.device) -> bool:
    """Whether convolutions run in bfloat16: asked for, or "auto" and the device computes in it."""
    if name != "auto":
        return name == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def optimiser(task: nn.Module, settings: OptimiserConfig) -> torch.optim.Adam:
    """Adam over student and ConvLSTM; convolutions that predict offsets learn more slowly (EDVR bursts otherwise)."""
    slow: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            (slow if ".conv_offset." in name else other).append(parameter)
    groups = [{"params": other, "factor": 1.0}]
    if slow:
        groups.append({"params": slow, "factor": settings.offset_rate})
    return torch.optim.Adam(groups, lr=settings.learning_rate, betas=(0.9, 0.999))
