"""Weights of an ML program in fewer bits; it computes in half precision as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_compression", "clustered"]

# "pipeline": a coremltools PassPipeline, which has no types

_ROUNDS = 100  # of moving the entries of a table; they settle after some 50


def add_compression(pipeline: Any, precision: str, kept: list[str]) -> None:
    """Make a conversion to half precision end with putting the weights into fewer bits.

    "w8" rounds to 255 steps of equal size, symmetric around zero, of a size for each output channel. "p6" and "p4"
    take one of 64 or 16 values for each weight, a table for each tensor. Tensors of up to 2048 weights stay, as do
    biases: they weigh little, and first layers, which pictures come in by, are among them.

    Args:
        pipeline: the conversion's passes, which one is added to.
        precision: "w8", "p6" or "p4".
        kept: names of tensors that must stay: fixed kernels, such as that of the bicubic base image, on which an error
            would show everywhere.
    """
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OpPalettizerConfig, OptimizationConfig

    if precision == "w8":
        step = "compression::linear_quantize_weights"
        each = OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8")
    else:
        step = "compression::palettize_weights"
        each = OpPalettizerConfig(mode="custom", lut_function=_table(2 ** int(precision[1:])))
    spared = {halved: None for name in kept for halved in (name, f"{name}_to_fp16")}
    pipeline.append_pass(step)
    pipeline.set_options(step, {"config": OptimizationConfig(global_config=each, op_name_configs=spared)})


def _table(entries: int) -> Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[np.uint8]]]:
    return lambda weight: clustered(weight, entries)


def clustered(weight: NDArray[Any], entries: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The table of values that are nearest to the weights in the mean square (k-means), and each weight's place in it.

    Starts from entries as dense as the cube root of the weights' density, where the best ones are for many of them
    (Panter and Dite, 1951), so that the same weights give the same table.

    Returns:
        (entries,) ascending and of the weights' type, and (n,).
    """
    values, places, counts = np.unique(weight.astype(np.float64), return_inverse=True, return_counts=True)
    density, edges = np.histogram(values, bins=1024, weights=counts)
    rising = np.concatenate(([0.0], np.cumsum(np.cbrt(density))))
    table = np.interp((np.arange(entries) + 0.5) / entries * rising[-1], rising, edges)
    sums, totals = (np.concatenate(([0.0], np.cumsum(each))) for each in (values * counts, counts))
    for _ in range(_ROUNDS):
        bounds = np.searchsorted(values, (table[1:] + table[:-1]) / 2)
        starts, ends = np.concatenate(([0], bounds)), np.concatenate((bounds, [len(values)]))
        weights = totals[ends] - totals[starts]
        table = np.where(weights > 0, (sums[ends] - sums[starts]) / np.maximum(weights, 1), table)
    nearest = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    return table.astype(weight.dtype), nearest.astype(np.uint8)[places.reshape(-1)]
