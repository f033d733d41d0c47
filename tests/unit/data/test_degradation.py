from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.data import DEGRADATIONS, bicubic_upsample, degrade
from distill.data.degradation import margin
from distill.errors import DataError


def random_frames(height: int, width: int, seed: int = 0) -> Tensor:
    levels = np.random.default_rng(seed).integers(256, size=(2, 3, height, width))
    return torch.from_numpy(levels).float() / 255


def mirror(position: int, length: int) -> int:
    """Half-sample symmetric: ... 1 0 | 0 1 ..."""
    while not 0 <= position < length:
        position = -1 - position if position < 0 else 2 * length - 1 - position
    return position


def reflect(position: int, length: int) -> int:
    """Whole-sample symmetric: ... 2 1 | 0 1 ..."""
    while not 0 <= position < length:
        position = -position if position < 0 else 2 * (length - 1) - position
    return position


def cubic(x: float) -> float:
    x = abs(x)
    if x >= 2:
        return 0.0
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2


def slow_pixel(plane: np.ndarray, row: int, column: int, scale: int, name: str) -> float:
    """One low-resolution pixel by a plain double sum over the formula of its convention."""
    offset = 0.0 if name == "bd" else (scale - 1) / 2
    edge = reflect if name == "bd" else mirror
    total = weight_sum = 0.0
    for i in range(-3 * scale, 4 * scale):
        for j in range(-3 * scale, 4 * scale):
            dy, dx = i - offset, j - offset
            if name == "bi":
                weight = cubic(dy / scale) * cubic(dx / scale)
            else:
                reach = int(1.6 * scale + 0.5) + offset % 1
                inside = abs(dy) <= reach and abs(dx) <= reach
                weight = math.exp(-(dy * dy + dx * dx) / (2 * (0.4 * scale) ** 2)) if inside else 0.0
            y, x = edge(row * scale + i, plane.shape[0]), edge(column * scale + j, plane.shape[1])
            total += weight * plane[y, x]
            weight_sum += weight
    value = total / weight_sum
    return value if name == "bd" else min(max(math.floor(value * 255 + 0.5 + 1e-9), 0), 255) / 255


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_equals_the_formula_summed_slowly(name: str, scale: int) -> None:
    frames = random_frames(6 * scale, 5 * scale)
    small = degrade(frames, name, scale)
    assert small.shape == (2, 3, 6, 5)
    plane = frames[1, 2].double().numpy()
    for row, column in [(0, 0), (0, 4), (5, 0), (5, 4), (2, 2), (3, 1)]:
        assert small[1, 2, row, column].item() == pytest.approx(slow_pixel(plane, row, column, scale, name), abs=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upsampling_equals_the_formula_summed_slowly(scale: int) -> None:
    frames = random_frames(6, 5)
    large = bicubic_upsample(frames, scale)
    assert large.shape == (2, 3, 6 * scale, 5 * scale)
    plane = frames[0, 1].double().numpy()
    for row, column in [(0, 0), (0, 5 * scale - 1), (6 * scale - 1, 0), (2 * scale + 1, 3 * scale - 1), (7, 6)]:
        y, x = (row + 0.5) / scale - 0.5, (column + 0.5) / scale - 0.5
        value = sum(
            cubic(y - i) * cubic(x - j) * plane[mirror(i, 6), mirror(j, 5)]
            for i in range(math.floor(y) - 1, math.floor(y) + 3)
            for j in range(math.floor(x) - 1, math.floor(x) + 3)
        )
        level = min(max(math.floor(value * 255 + 0.5 + 1e-9), 0), 255)
        assert large[0, 1, row, column].item() == pytest.approx(level / 255, abs=1e-6)


@pytest.mark.parametrize("name", ["bi", "bd-centred"])
def test_what_is_stored_is_rounded_to_eight_bit(name: str) -> None:
    levels = degrade(random_frames(32, 32), name) * 255
    assert torch.equal(levels, levels.round())
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_the_undershoot_of_bicubic_is_clamped() -> None:
    step = torch.zeros(3, 8, 64)
    step[..., 32:] = 1
    assert degrade(step, "bi").min() == 0
    assert degrade(step, "bi").max() == 1
    assert bicubic_upsample(step).min() == 0
    assert bicubic_upsample(step).max() == 1


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_flat_picture_stays_flat(name: str) -> None:
    flat = torch.full((3, 16, 16), 77 / 255)
    assert torch.allclose(degrade(flat, name), flat[:, :4, :4], atol=1e-6)
    assert torch.allclose(bicubic_upsample(flat[:, :4, :4]), flat, atol=1e-6)


def test_the_two_bd_differ_by_their_phase() -> None:
    ramp = (torch.arange(64.0) / 255).expand(3, 16, 64)
    shift = (degrade(ramp, "bd-centred") - degrade(ramp, "bd"))[..., 4:-4] * 255
    # 1.5 levels a pixel apart, of which rounding takes or adds half a level at most
    assert shift.min() >= 1
    assert shift.max() <= 2
    assert torch.allclose(degrade(ramp, "bd")[..., 4:-4], ramp[..., :4, 16:-16:4], atol=1e-6)


@pytest.mark.parametrize("name", ["bi", "bd-centred"])
def test_centred_conventions_commute_with_flips(name: str) -> None:
    frames = random_frames(24, 32)
    flipped = degrade(frames.flip(-1, -2), name)
    assert torch.equal(flipped, degrade(frames, name).flip(-1, -2))


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(list(DEGRADATIONS)),
    scale=st.sampled_from([2, 4]),
    top=st.integers(0, 11),
    left=st.integers(0, 11),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_a_crop_with_its_margin_degrades_as_the_whole_frame(
    name: str, scale: int, top: int, left: int, height: int, width: int, seed: int
) -> None:
    rows = columns = 12
    top, left = min(top, rows - height), min(left, columns - width)
    frames = random_frames(rows * scale, columns * scale, seed)
    reach = margin(scale) // scale
    above, before = min(reach, top), min(reach, left)
    below, behind = min(reach, rows - top - height), min(reach, columns - left - width)
    crop = frames[
        ...,
        (top - above) * scale : (top + height + below) * scale,
        (left - before) * scale : (left + width + behind) * scale,
    ]
    small = degrade(crop, name, scale)[..., above : above + height, before : before + width]
    whole = degrade(frames, name, scale)[..., top : top + height, left : left + width]
    if name == "bi":
        assert torch.equal(small, whole)
    else:
        assert torch.allclose(small, whole, atol=1e-6)


def test_leading_axes_and_type_are_kept() -> None:
    frames = random_frames(8, 12)
    clip = frames.expand(4, 5, 2, 3, 8, 12)
    assert degrade(clip, "bi").shape == (4, 5, 2, 3, 2, 3)
    assert torch.equal(degrade(clip, "bd")[3, 4], degrade(frames, "bd"))
    assert bicubic_upsample(clip, 2).shape == (4, 5, 2, 3, 16, 24)
    assert degrade(frames.half(), "bi").dtype == torch.float16
    assert degrade(frames.double(), "bd").dtype == torch.float64


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"'bx' is unknown; choose one of bi, bd, bd-centred"):
        degrade(random_frames(8, 8), "bx")
    with pytest.raises(DataError, match="10x8 were given to shrink by 4"):
        degrade(random_frames(8, 10), "bi")
    with pytest.raises(DataError, match="must be 1 or more"):
        bicubic_upsample(random_frames(8, 8), 0)
