"""How sure a mean difference is: Student's t, and the two-way crossed model of seeds and clips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import mpmath
import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "over_seeds", "over_seeds_and_clips", "t_cumulative", "t_quantile"]

_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Where a mean lies with 95 % confidence.

    Attributes:
        low: its lower end.
        high: its upper end.
        degrees: of freedom of the t distribution behind it.
    """

    low: float
    high: float
    degrees: float

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low


def over_seeds(differences: NDArray[np.float64]) -> Interval | None:
    """For the mean over these very clips, the seeds being drawn at random.

    The mean over the clips is one figure a seed; the interval is Student's, with one degree of freedom fewer than
    there are seeds.

    Args:
        differences: (seeds, clips), each of two networks at the same seed and clip.

    Returns:
        None for a single seed, which tells nothing of other seeds.
    """
    seeds = differences.shape[0]
    if seeds < 2:
        return None
    means = differences.mean(1)
    return _interval(float(means.mean()), float(means.var(ddof=1)) / seeds, seeds - 1.0)


def over_seeds_and_clips(differences: NDArray[np.float64]) -> Interval | None:
    """For the mean over clips like these, seeds and clips both being drawn at random.

    d[s, c] = mean + seed effect + clip effect + rest, crossed, one figure a cell. The variance of the mean is
    (MS_seed + MS_clip - MS_rest) / (seeds * clips); an effect whose mean square is less than the rest's counts as none
    (its variance would be negative). Degrees of freedom after Satterthwaite (Biometrics Bulletin 2, 1946), at least 1.

    Args:
        differences: (seeds, clips), each of two networks at the same seed and clip.

    Returns:
        None for a single seed or a single clip.
    """
    seeds, clips = differences.shape
    if seeds < 2 or clips < 2:
        return None
    mean = float(differences.mean())
    by_seed, by_clip = differences.mean(1), differences.mean(0)
    rest = differences - by_seed[:, None] - by_clip[None, :] + mean
    rest_degrees = (seeds - 1) * (clips - 1)
    rest_square = float(np.square(rest).sum()) / rest_degrees
    terms = [
        (clips * float(by_seed.var(ddof=1)), seeds - 1),
        (seeds * float(by_clip.var(ddof=1)), clips - 1),
    ]
    present = [(square, degrees) for square, degrees in terms if square > rest_square]
    # one effect: its own mean square; both: their sum less the rest's; none: the rest's
    total = sum(square for square, _ in present) + (1 - len(present)) * rest_square
    parts = [*present, (rest_square, rest_degrees)] if len(present) != 1 else present
    spread = sum(square**2 / degrees for square, degrees in parts)
    degrees = max(total**2 / spread, 1.0) if spread > 0 else float(rest_degrees)
    return _interval(mean, total / (seeds * clips), degrees)


@lru_cache  # the same few degrees come with every metric
def t_quantile(probability: float, degrees: float) -> float:
    """The t that a Student variable of so many degrees of freedom stays under with this probability.

    Args:
        probability: between 0 and 1, both excluded.
        degrees: more than 0, whole or not.
    """
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    # Newton's method from the left, where the cumulative is concave: it never steps beyond the quantile.
    logarithm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    value, step = 0.0, math.inf
    while step > 1e-12 * value:
        density = math.exp(logarithm - (degrees + 1) / 2 * math.log1p(value * value / degrees))
        step = (probability - t_cumulative(value, degrees)) / density
        value += step
    return value


def t_cumulative(value: float, degrees: float) -> float:
    """The probability that a Student variable of so many degrees of freedom stays under a value."""
    below = degrees / (degrees + value * value)
    tail = float(mpmath.betainc(degrees / 2, 0.5, 0, below, regularized=True)) / 2
    return 1 - tail if value > 0 else tail


def _interval(mean: float, variance: float, degrees: float) -> Interval:
    reach = t_quantile((1 + _LEVEL) / 2, degrees) * math.sqrt(variance)
    return Interval(mean - reach, mean + reach, degrees)
