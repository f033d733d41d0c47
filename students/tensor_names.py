"""Reading a network's sizes off the names and shapes of its published tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from distill.errors import CheckpointError

__all__ = ["demand", "stack_length"]


def demand(state: Mapping[str, Tensor], network: str, ranks: Mapping[str, int]) -> None:
    """Check that the tensors that tell a network's sizes are there.

    Args:
        state: tensors by name.
        network: for the sentence.
        ranks: how many dimensions each of them has, by name.

    Raises:
        CheckpointError: one is missing, or has another number of dimensions.
    """
    missing = [name for name in ranks if name not in state]
    if missing:
        raise CheckpointError(f"This {network} lacks the tensors {', '.join(missing)}; is the file complete?")
    for name, rank in ranks.items():
        if state[name].ndim != rank:
            raise CheckpointError(
                f"{name} has shape {tuple(state[name].shape)}, but that of a {network} has {rank} dimensions."
            )


def stack_length(state: Mapping[str, Tensor], stack: str) -> int:
    """How many modules `stack.0`, `stack.1`, ... have tensors, those before the last counted even where absent."""
    pattern = re.compile(rf"{re.escape(stack)}\.(\d+)\.")
    indices = {int(match[1]) for name in state if (match := pattern.match(name))}
    return max(indices, default=-1) + 1
