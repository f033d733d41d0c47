from __future__ import annotations

import math

import numpy as np
import pytest

from distill.comparison.intervals import over_seeds, over_seeds_and_clips, t_cumulative, t_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980), (1e6, 1.960)],
)
def test_quantiles_are_those_of_the_tables(degrees, quantile):
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=6e-4)
    assert t_quantile(0.025, degrees) == pytest.approx(-quantile, abs=6e-4)


@pytest.mark.parametrize("degrees", [1.0, 2.6, 7.3])
def test_the_cumulative_is_the_integral_of_the_density(degrees):
    norm = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    grid = np.linspace(0, 2.5, 20_001)
    density = norm * (1 + grid**2 / degrees) ** (-(degrees + 1) / 2)
    area = float(((density[1:] + density[:-1]) / 2).sum() * (grid[1] - grid[0]))
    assert t_cumulative(2.5, degrees) == pytest.approx(0.5 + area, abs=1e-8)
    assert t_cumulative(-2.5, degrees) == pytest.approx(0.5 - area, abs=1e-8)
    assert t_cumulative(0.0, degrees) == pytest.approx(0.5)


def test_the_interval_over_seeds_is_students():
    differences = np.array([[0.1, 0.3], [0.2, 0.6], [0.0, 0.3]])  # means 0.2, 0.4, 0.15
    found = over_seeds(differences)
    mean, deviation = 0.25, math.sqrt((0.05**2 + 0.15**2 + 0.1**2) / 2)
    assert (found.low, found.high) == pytest.approx(
        (mean - 4.3027 * deviation / 3**0.5, mean + 4.3027 * deviation / 3**0.5), abs=1e-4
    )
    assert found.degrees == 2


def test_the_crossed_interval_against_sums_in_loops():
    differences = np.array([[0.1, 0.9, 0.4], [0.5, 1.2, 1.1], [-0.2, 0.5, 0.3], [0.3, 1.3, 0.4]])
    seeds, clips = differences.shape
    mean = sum(differences[s, c] for s in range(seeds) for c in range(clips)) / 12
    rows = [sum(differences[s]) / clips for s in range(seeds)]
    columns = [sum(differences[:, c]) / seeds for c in range(clips)]
    seed_square = clips * sum((row - mean) ** 2 for row in rows) / 3
    clip_square = seeds * sum((column - mean) ** 2 for column in columns) / 2
    rest_square = (
        sum((differences[s, c] - rows[s] - columns[c] + mean) ** 2 for s in range(seeds) for c in range(clips)) / 6
    )
    assert min(seed_square, clip_square) > rest_square, "the case without a floor"
    total = seed_square + clip_square - rest_square
    degrees = total**2 / (seed_square**2 / 3 + clip_square**2 / 2 + rest_square**2 / 6)
    found = over_seeds_and_clips(differences)
    assert found.degrees == pytest.approx(degrees)
    assert (found.high - found.low) / 2 == pytest.approx(t_quantile(0.975, degrees) * math.sqrt(total / 12))
    assert (found.high + found.low) / 2 == pytest.approx(mean)


def test_an_effect_smaller_than_the_rest_counts_as_none():
    # rows have one mean: no effect of the seed; the clip's alone is left
    alike = np.array([[0.0, 1.2], [0.4, 0.8]])
    found = over_seeds_and_clips(alike)
    clip_square = 2 * np.var([0.2, 1.0], ddof=1)
    assert found.degrees == 1
    assert found.width / 2 == pytest.approx(12.7062 * math.sqrt(clip_square / 4), rel=1e-4)
    # neither has an effect: what is left is the rest's
    found = over_seeds_and_clips(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert found.width / 2 == pytest.approx(12.7062 * math.sqrt(1.0 / 4), rel=1e-4)


def test_too_little_gives_no_interval_and_no_spread_gives_a_point():
    assert over_seeds(np.ones((1, 4))) is None
    assert over_seeds_and_clips(np.ones((1, 4))) is None
    assert over_seeds_and_clips(np.ones((4, 1))) is None
    point = over_seeds_and_clips(np.full((3, 4), 0.25))
    assert (point.low, point.high) == (0.25, 0.25)


@pytest.mark.parametrize(("seed_spread", "clip_spread", "rest"), [(0.1, 0.1, 0.05), (0.02, 0.2, 0.05)])
def test_intervals_cover_the_truth_about_95_times_in_100(seed_spread, clip_spread, rest):
    rng = np.random.default_rng(5)
    trials, seeds, clips, truth = 500, 4, 5, 0.3
    seeds_only = both = 0
    for _ in range(trials):
        of_clips = clip_spread * rng.standard_normal((1, clips))
        differences = (
            truth
            + seed_spread * rng.standard_normal((seeds, 1))
            + of_clips
            + rest * rng.standard_normal((seeds, clips))
        )
        fixed, random = over_seeds(differences), over_seeds_and_clips(differences)
        seeds_only += fixed.low <= truth + of_clips.mean() <= fixed.high
        both += random.low <= truth <= random.high
    assert 0.92 <= seeds_only / trials <= 0.98
    assert 0.92 <= both / trials <= 0.98
