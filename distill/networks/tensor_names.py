"""Reading a network's sizes off the names and shapes of its published tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from distill.errors import CheckpointError

__all__ = ["demand", "stack_length", "under_tail", "with_counters"]


def demand(state: Mapping[str, Tensor], network: str, ranks: Mapping[str, int]) -> None:
    """Check that the tensors that tell a network's sizes are there and tell some.

    Args:
        state: tensors by name.
        network: for the sentence.
        ranks: how many dimensions each of them has, by name.

    Raises:
        CheckpointError: one is missing or empty, or has another number of dimensions.
    """
    missing = [name for name in ranks if name not in state]
    if missing:
        raise CheckpointError(f"This {network} lacks the tensors {', '.join(missing)}; is the file complete?")
    for name, rank in ranks.items():
        if state[name].ndim != rank or not state[name].numel():
            raise CheckpointError(
                f"{name} has shape {tuple(state[name].shape)}, but that of a {network} has {rank} dimensions, none "
                "of them 0."
            )


def stack_length(state: Mapping[str, Tensor], stack: str, part: str = "") -> int:
    """How many modules `stack.0`, `stack.1`, ... have tensors, those before the last counted even where absent.

    Args:
        state: tensors by name.
        stack: the name before the number.
        part: how the name goes on after it, in modules that count.
    """
    pattern = re.compile(rf"{re.escape(stack)}\.(\d+)\.{re.escape(part)}")
    indices = {int(match[1]) for name in state if (match := pattern.match(name))}
    return max(indices, default=-1) + 1


def under_tail(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, with what makes a `PixelShuffleTail` here, and stands at the top in published files, under `tail.`."""
    parts = ("upconv1.", "upconv2.", "conv_hr.", "conv_last.")
    return {f"tail.{name}" if name.startswith(parts) else name: tensor for name, tensor in state.items()}


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, and each batch normalisation's counter, which files from before PyTorch 0.4.1 lack; nothing uses it."""
    end = ".running_mean"
    counted = [name.removesuffix(end) + ".num_batches_tracked" for name in state if name.endswith(end)]
    return {**{name: torch.tensor(0) for name in counted}, **state}
