"""How low resolution is made from high resolution: three conventions of the literature, told apart by name.

A network trained on one of them loses up to 7 dB on another (the two `bd` differ by 1.5 high-resolution pixels), so
the name belongs into every checkpoint. All are separable, so each is a filter along the height, then along the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from distill.errors import DataError

__all__ = ["DEGRADATIONS", "bicubic_upsample", "degrade", "margin"]


class _Taps(NamedTuple):
    """One filter: output j is the sum of weights[k] * input[step * j + first + k]."""

    first: int
    weights: tuple[float, ...]


class _Convention(NamedTuple):
    taps: Callable[[int], _Taps]
    half_sample_edges: bool  # True: ...b a | a b...; False: ...c b | a b c...
    rounded: bool  # to 8 bit levels, as a stored low-resolution image would be


def _bicubic_weight(distance: float) -> float:
    """Keys's cubic kernel with a = -0.5, as MATLAB's imresize has it."""
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def _shrinking_bicubic(scale: int) -> _Taps:
    """The cubic kernel stretched by the scale, so that it also removes what the small grid cannot hold."""
    centre = (scale - 1) / 2
    first = math.ceil(centre - 2 * scale)
    weights = [_bicubic_weight((k - centre) / scale) for k in range(first, math.floor(centre + 2 * scale) + 1)]
    return _normalised(first, weights)


def _gaussian(scale: int, centre: float) -> _Taps:
    """Sigma is 0.4 * scale and the reach 4 sigma: 1.6 and 13 taps at scale 4 (14 around half a pixel)."""
    sigma = 0.4 * scale
    reach = int(4 * sigma + 0.5) + centre % 1
    first = round(centre - reach)
    weights = [math.exp(-0.5 * ((k - centre) / sigma) ** 2) for k in range(first, round(centre + reach) + 1)]
    return _normalised(first, weights)


def _normalised(first: int, weights: list[float]) -> _Taps:
    total = sum(weights)
    return _Taps(first, tuple(weight / total for weight in weights))


DEGRADATIONS: dict[str, _Convention] = {
    # Antialiased bicubic (MATLAB's imresize), rounded to 8 bit: the paper's table.
    "bi": _Convention(_shrinking_bicubic, half_sample_edges=True, rounded=True),
    # Gaussian blur (sigma 1.6 at scale 4), then pixels 0, 4, 8, ...: DUF, RSDN, the paper's training.
    "bd": _Convention(lambda scale: _gaussian(scale, 0.0), half_sample_edges=False, rounded=False),
    # Gaussian blur seen at the centre of each 4x4 block, rounded to 8 bit: BasicVSR's BDx4.
    "bd-centred": _Convention(lambda scale: _gaussian(scale, (scale - 1) / 2), half_sample_edges=True, rounded=True),
}
"""What `degrade` knows, by name."""


def degrade(frames: Tensor, name: str, scale: int = 4) -> Tensor:
    """Low-resolution frames as one of the conventions makes them.

    "bi": MATLAB's imresize (Keys's kernel with a = -0.5 stretched by the scale, half-sample symmetric edges), rounded
    to 8 bit. "bd": Gaussian of sigma 0.4 * scale, then pixels 0, scale, 2 * scale, ...; edges reflected about the
    outermost pixels, not rounded; equal to BasicSR's duf_downsample. "bd-centred": the same Gaussian about the centres
    of blocks of scale x scale pixels, half-sample symmetric edges, rounded to 8 bit.

    Args:
        frames: (..., 3, H, W), RGB in [0, 1], on the CPU or a CUDA device.
        name: one of DEGRADATIONS.
        scale: how many times smaller; divides H and W.

    Returns:
        (..., 3, H/scale, W/scale) in [0, 1].

    Raises:
        DataError: the name is unknown, or the scale does not divide the size.
    """
    convention = DEGRADATIONS.get(name)
    if convention is None:
        raise DataError(f"The degradation {name!r} is unknown; choose one of {', '.join(DEGRADATIONS)}.")
    height, width = frames.shape[-2:]
    if scale < 1 or height % scale or width % scale or not height or not width:
        raise DataError(
            f"Frames of {width}x{height} were given to shrink by {scale}; width and height must be multiples of it, "
            "so crop them first."
        )
    taps = _cached_taps(name, scale)
    small = _filter(_levels_of(frames), -2, taps, scale, convention.half_sample_edges)
    small = _filter(small, -1, taps, scale, convention.half_sample_edges)
    return _unit_range(small, convention.rounded).to(frames.dtype)


def margin(scale: int) -> int:
    """High-resolution pixels to keep around a crop, so that its low resolution equals the whole frame's.

    A multiple of the scale: no convention reaches further than two low-resolution pixels beyond its own.
    """
    return 2 * scale


def bicubic_upsample(frames: Tensor, scale: int = 4) -> Tensor:
    """The "bicubic" baseline: MATLAB's imresize upwards, rounded to 8 bit.

    Args:
        frames: (..., 3, h, w), RGB in [0, 1], on the CPU or a CUDA device.
        scale: how many times larger, at least 1.

    Returns:
        (..., 3, scale*h, scale*w) in [0, 1].

    Raises:
        DataError: the scale is below 1.
    """
    if scale < 1:
        raise DataError(f"The scale {scale} was given to enlarge by; it must be 1 or more.")
    tall = _enlarged(_levels_of(frames), -2, scale)
    return _unit_range(_enlarged(tall, -1, scale), rounded=True).to(frames.dtype)


def _enlarged(frames: Tensor, axis: int, scale: int) -> Tensor:
    """One axis enlarged: every phase is a filter of its own, and the phases interleave."""
    phases = []
    for phase in range(scale):
        centre = (phase + 0.5) / scale - 0.5
        first = math.floor(centre) - 1
        taps = _normalised(first, [_bicubic_weight(first + k - centre) for k in range(4)])
        phases.append(_filter(frames, axis, taps, 1, half_sample_edges=True))
    return torch.stack(phases, dim=frames.dim() if axis == -1 else axis).flatten(axis - 1, axis)


@lru_cache
def _cached_taps(name: str, scale: int) -> _Taps:
    return DEGRADATIONS[name].taps(scale)


def _filter(frames: Tensor, axis: int, taps: _Taps, step: int, half_sample_edges: bool) -> Tensor:
    """A filter along one axis, evaluated at every `step`-th position."""
    length = frames.shape[axis]
    count = length // step
    reach = (count - 1) * step + 1
    positions = torch.arange(taps.first, taps.first + reach + len(taps.weights) - 1, device=frames.device)
    padded = frames.index_select(axis, _mirrored(positions, length, half_sample_edges))
    total = torch.zeros((), dtype=frames.dtype, device=frames.device)
    for k, weight in enumerate(taps.weights):
        picked = padded[..., k : k + reach : step, :] if axis == -2 else padded[..., k : k + reach : step]
        total = picked * weight if k == 0 else total.add_(picked, alpha=weight)
    return total


def _mirrored(positions: Tensor, length: int, half_sample: bool) -> Tensor:
    """Positions beyond the edges folded back, as often as it takes."""
    if length == 1:
        return torch.zeros_like(positions)
    period = 2 * length if half_sample else 2 * length - 2
    folded = positions % period
    return torch.where(folded < length, folded, (period - 1 if half_sample else period) - folded)


def _levels_of(frames: Tensor) -> Tensor:
    """From [0, 1] to [0, 255] in double precision.

    8 bit pictures become whole numbers, because the product is taken before the precision grows. At scales 2 and 4
    every sum of the bicubic filters is then exact: a crop rounds as the whole frame does, and ties are MATLAB's ties.
    """
    return (frames.to(torch.promote_types(frames.dtype, torch.float32)) * 255).double()


def _unit_range(levels: Tensor, rounded: bool) -> Tensor:
    """From [0, 255] to [0, 1]; a tie rounds up as in MATLAB, not to even as in torch."""
    if rounded:
        # An edge through the middle of a Gaussian is a tie but for its last bits, which must not decide.
        levels = (levels + (0.5 + 1e-9)).floor_().clamp_(0, 255)
    return levels / 255
