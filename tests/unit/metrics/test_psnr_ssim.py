from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.errors import DataError
from distill.metrics.psnr_ssim import luma, psnr, ssim, to_8_bit


def pictures(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """A smooth picture of 8-bit levels and a noisy copy."""
    rng = np.random.default_rng(seed)
    waves = np.add.outer(np.sin(np.arange(shape[-2]) / 3), np.cos(np.arange(shape[-1]) / 5))
    first = 127 + 50 * np.broadcast_to(waves, shape) + rng.normal(0, 4, shape)
    second = first + rng.normal(0, 9, shape)
    return tuple(torch.from_numpy(p.round().clip(0, 255).astype(np.uint8)) for p in (first, second))  # type: ignore[return-value]


def ssim_by_loops(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, Eqs. 13-16, window by window, deviations taken about the mean."""
    offsets = range(-5, 6)
    window = np.array([[math.exp(-(x * x + y * y) / 4.5) for x in offsets] for y in offsets])
    window /= window.sum()
    values = []
    for top in range(first.shape[0] - 10):
        for left in range(first.shape[1] - 10):
            a, b = (p[top : top + 11, left : left + 11].astype(float) for p in (first, second))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("rgb", "level"),
    [
        ((255, 255, 255), 235),
        ((0, 0, 0), 16),
        ((255, 0, 0), 81),  # 16 + 65.481
        ((0, 255, 0), 145),  # 16 + 128.553, rounded
        ((0, 0, 255), 41),  # 16 + 24.966, rounded
        ((120, 200, 33), 151),  # 16 + 30.815 + 100.826 + 3.231
    ],
)
def test_luma_gives_studio_levels(rgb: tuple[int, int, int], level: int) -> None:
    picture = torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 4)
    assert luma(picture).tolist() == [[level] * 4] * 2
    assert luma(picture.float() / 255).tolist() == [[level] * 4] * 2


def test_luma_keeps_leading_axes() -> None:
    clip = torch.randint(0, 256, (2, 5, 3, 4, 6), dtype=torch.uint8)
    assert luma(clip).shape == (2, 5, 4, 6)
    assert torch.equal(luma(clip)[1, 3], luma(clip[1, 3]))


def test_to_8_bit_clamps_and_rounds() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 99.6 / 255, 1.0, 7.0])
    assert to_8_bit(values).tolist() == [0, 0, 0, 1, 100, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_8_bit(levels.float() / 255), levels)


def test_psnr_of_a_constant_error() -> None:
    truth = torch.full((3, 7, 9), 100, dtype=torch.uint8)
    assert psnr(truth + 5, truth) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(truth - 5, truth) == pytest.approx(20 * math.log10(255 / 5))  # no wrap-around of unsigned levels


def test_psnr_joins_the_channels_before_the_logarithm() -> None:
    first, second = pictures(1, 3, 13, 17)
    error = np.mean([(float(a) - float(b)) ** 2 for a, b in zip(first.flatten(), second.flatten(), strict=True)])
    assert psnr(first, second) == pytest.approx(10 * math.log10(65025 / error), abs=1e-9)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    picture, _ = pictures(2, 3, 12, 12)
    assert psnr(picture, picture) == math.inf


def test_ssim_equals_the_definition() -> None:
    first, second = pictures(3, 23, 19)
    expected = ssim_by_loops(first.numpy(), second.numpy())
    assert 0.3 < expected < 0.95
    assert ssim(first, second) == pytest.approx(expected, abs=1e-10)


def test_ssim_of_flat_pictures_is_their_luminance_term() -> None:
    first, second = torch.full((11, 11), 50), torch.full((11, 11), 200)
    assert ssim(first, second) == pytest.approx((2 * 50 * 200 + 6.5025) / (50**2 + 200**2 + 6.5025), abs=1e-9)


def test_ssim_of_rgb_is_the_mean_over_channels() -> None:
    first, second = pictures(4, 3, 20, 15)
    second[0] = first[0]
    alone = [ssim(a, b) for a, b in zip(first, second, strict=True)]
    assert alone[0] == pytest.approx(1, abs=1e-12)
    assert alone[1] < 0.95
    assert ssim(first, second) == pytest.approx(sum(alone) / 3, abs=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_crop_leaves_the_border_out(metric: object) -> None:
    first, second = pictures(5, 24, 30)
    inner = metric(first[4:-4, 4:-4], second[4:-4, 4:-4])  # type: ignore[operator]
    first[:4], second[:, -4:] = 0, 255
    assert metric(first, second, crop=4) == inner  # type: ignore[operator]
    assert metric(first, second) != inner  # type: ignore[operator]


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_that_would_broadcast_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"\(3, 16, 16\) and \(16, 16\)"):
        metric(torch.zeros(3, 16, 16), torch.zeros(16, 16))  # type: ignore[operator]


def test_pictures_too_small_are_named() -> None:
    with pytest.raises(DataError, match=r"18x16 with 3 pixels cropped .* at least 11x11"):
        ssim(torch.zeros(16, 18), torch.zeros(16, 18), crop=3)
    with pytest.raises(DataError, match="at least 1x1"):
        psnr(torch.zeros(16, 18), torch.zeros(16, 18), crop=8)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_metrics_are_symmetric_and_bounded(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 256, (14, 12), dtype=torch.uint8, generator=generator)
    second = torch.randint(0, 256, (14, 12), dtype=torch.uint8, generator=generator)
    assert psnr(first, second) == psnr(second, first) > 0
    assert ssim(first, second) == pytest.approx(ssim(second, first), abs=1e-12)
    assert -1 <= ssim(first, second) < 1
    assert ssim(first, first) == pytest.approx(1, abs=1e-12)
