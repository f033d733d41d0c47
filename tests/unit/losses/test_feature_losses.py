"""Terms on features, spectra and motion, each against its equation computed another way."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.data import find_clips, sample_clips
from distill.layers import warp
from distill.losses.affinity import affinity_distance, affinity_matrix
from distill.losses.attention_transfer import attention_transfer_distance
from distill.losses.fitnet import feature_distance
from distill.losses.frequency import frequency_distance
from distill.losses.mean_map import mean_map_distance
from distill.losses.methods import TERMS
from distill.losses.temporal_difference import backward_flow, temporal_distance
from distill.losses.term import Seen, Surroundings
from distill.networks.optical_flow import estimate_flow
from students.vsrnet import VSRNet

B, N, C, H, W = 2, 3, 4, 5, 6
NAMES = ["fitnet", "mean", "attention-transfer", "affinity", "frequency", "temporal"]


def of_each_frame(student, teacher, distance):
    """The mean over clips and frames of a distance of (C, H, W) arrays."""
    pairs = zip(student.flatten(0, 1).double().numpy(), teacher.flatten(0, 1).double().numpy(), strict=True)
    return np.mean([distance(one, two) for one, two in pairs])


def test_fitnet_is_the_mean_squared_difference_of_features():
    student, teacher = torch.randn(B, N, C, H, W), torch.randn(B, N, C, H, W)
    pairs = zip(student.ravel().tolist(), teacher.ravel().tolist(), strict=True)
    expected = sum((a - b) ** 2 for a, b in pairs) / student.numel()
    assert feature_distance(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_mean_is_the_squared_mean_over_channels():
    student, teacher = torch.randn(B, N, C, H, W), torch.randn(B, N, C + 3, H, W)

    def mapped(features, y, x):
        return (sum(features[:, y, x]) / len(features)) ** 2

    def distance(one, two):
        return np.mean([(mapped(one, y, x) - mapped(two, y, x)) ** 2 for y in range(H) for x in range(W)])

    expected = of_each_frame(student, teacher, distance)
    assert mean_map_distance(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_attention_transfer_is_two_minus_two_cosines_whatever_the_scale():
    student, teacher = torch.randn(B, N, C, H, W), torch.randn(B, N, C + 3, H, W)

    def distance(one, two):
        q, p = ((features**2).sum(0).ravel() for features in (one, two))
        return 2 - 2 * (q @ p) / math.sqrt((q @ q) * (p @ p))

    expected = of_each_frame(student, teacher, distance)
    assert attention_transfer_distance(student, teacher).item() == pytest.approx(expected, rel=1e-4)
    scaled = attention_transfer_distance(7 * student, teacher / 9)
    assert scaled.item() == pytest.approx(expected, rel=1e-4)


def cosines(features, grid):
    """The cosines between the means over cells, for sides that the grid divides."""
    _, height, width = features.shape
    tall, wide = height // grid, width // grid
    cells = [
        features[:, y * tall : (y + 1) * tall, x * wide : (x + 1) * wide].mean((1, 2))
        for y in range(grid)
        for x in range(grid)
    ]
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in cells] for a in cells])


def test_affinity_is_the_distance_of_cosines_between_pooled_places():
    student, teacher = torch.randn(1, 2, C, 16, 24), torch.randn(1, 2, C + 3, 16, 24)
    expected = of_each_frame(student, teacher, lambda one, two: np.abs(cosines(one, 8) - cosines(two, 8)).mean())
    assert affinity_distance(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_the_affinity_of_a_large_frame_is_no_larger():
    for side in (8, 96, 512):
        assert affinity_matrix(torch.randn(1, 2, C, side, side + 8)).shape == (1, 2, 64, 64)
    assert affinity_matrix(torch.randn(1, 2, C, 3, 20)).shape == (1, 2, 24, 24), "no cell without pixels of its own"


def test_frequency_is_the_modulus_of_the_difference_of_two_discrete_transforms():
    student, teacher = torch.rand(B, N, 3, 5, 6), torch.rand(B, N, 3, 5, 6)

    def transform(picture):
        height, width = picture.shape
        rows = np.exp(-2j * np.pi * np.outer(range(height), range(height)) / height)
        columns = np.exp(-2j * np.pi * np.outer(range(width // 2 + 1), range(width)) / width)
        return rows @ picture @ columns.T / math.sqrt(height * width)

    def distance(one, two):
        return np.mean([np.abs(transform(a) - transform(b)).mean() for a, b in zip(one, two, strict=True)])

    expected = of_each_frame(student, teacher, distance)
    assert frequency_distance(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def sampled(picture, y, x):
    """Bilinear, of (C, H, W) with a one appended to each pixel, and zeros without end around them."""
    margin = 8
    ones = np.ones((1, *picture.shape[1:]))
    padded = np.pad(np.concatenate([picture, ones]), ((0, 0), (margin, margin), (margin, margin)))
    top, left = math.floor(y) + margin, math.floor(x) + margin
    down, right = y % 1, x % 1
    square = padded[:, top : top + 2, left : left + 2]
    return np.array([1 - down, down]) @ square @ np.array([1 - right, right])


def test_temporal_is_the_difference_of_the_warped_differences():
    student, teacher = torch.rand(2, B, N, 3, H, W).unbind()
    reference = 0.5 + 0.2 * torch.rand(B, N, 3, H, W)
    flow = 3 * torch.rand(B, N - 1, 2, H, W) - 1.5
    ours, theirs, best, moves = (each.double().numpy() for each in (student, teacher, reference, flow))
    total = weights = outside = 0.0
    for b, t, y, x in np.ndindex(B, N - 1, H, W):
        at = y + moves[b, t, 1, y, x], x + moves[b, t, 0, y, x]
        before = [sampled(clip[b, t], *at) for clip in (ours, theirs, best)]
        inside = before[0][3]
        now = [clip[b, t + 1, :, y, x] for clip in (ours, theirs, best)]
        visible = inside * math.exp(-50 * np.sum((now[2] - before[2][:3]) ** 2))
        total += visible * np.abs((now[0] - before[0][:3]) - (now[1] - before[1][:3])).mean()
        weights += visible
        outside += inside < 1
    assert outside > 5
    assert weights > 10
    assert temporal_distance(student, teacher, reference, flow).item() == pytest.approx(total / weights, rel=1e-4)


@pytest.fixture(scope="module")
def footage():
    """(1, 4, 3, 96, 96) that moves, [0, 1]."""
    clip = next(clip for clip in find_clips(sample_clips("held_out")) if clip.name == "road")
    frames = torch.stack([torch.from_numpy(frame) for frame in clip.frames(0, 4)])
    return frames.permute(0, 3, 1, 2)[None, ..., 40:136, 100:196].float() / 255


def test_backward_flow_is_that_of_small_frames_in_pixels_of_large_ones(footage):
    flow = backward_flow(footage, 4)
    assert flow.shape == (1, 3, 2, 96, 96)
    small = footage[0].reshape(4, 3, 24, 4, 24, 4).mean((3, 5))
    expected = estimate_flow(small[2:3], small[1:2])[0]
    centres = flow[0, 1].reshape(2, 24, 4, 24, 4).mean((2, 4))  # the mean of an enlargement is nearly what was enlarged
    torch.testing.assert_close(centres / 4, expected, atol=0.1, rtol=0.1)
    following = (footage[0, 1:] - warp(footage[0, :-1], flow[0], padding="border")).abs().mean()
    assert following < 0.8 * footage[0].diff(dim=0).abs().mean(), "frames do not follow the flow"


def test_temporal_feels_flicker_but_not_a_constant_error(footage):
    """An error that rests is no flicker; the same amount of error that comes and goes is."""
    flow = backward_flow(footage, 4)
    constant = temporal_distance(footage + 0.1, footage, footage, flow)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 4, 1, 1, 1)
    flickering = temporal_distance(footage + 0.1 * signs, footage, footage, flow)
    assert constant < 0.01
    assert 0.18 < flickering < 0.2001


def test_a_single_frame_has_no_temporal_difference():
    frame = torch.rand(1, 1, 3, 16, 16)
    assert temporal_distance(frame, 1 - frame, frame, backward_flow(frame, 4)) == 0


def seen_by(channels=(C, C), side=16):
    """What a step shows to a term, of a student that makes x4."""
    ours, theirs = (torch.randn(1, 3, count, side, side) for count in channels)
    restored, taught, truth = torch.rand(3, 1, 3, 3, side, side).unbind()
    return Seen(
        low=torch.rand(1, 3, 3, side // 4, side // 4),
        restored=restored.requires_grad_(True),
        truth=truth,
        step=0,
        student=VSRNet(),
        taught=taught,
        ours=ours.requires_grad_(True),
        theirs=theirs,
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_the_term_compares(name):
    term = TERMS[name](Surroundings(C, C))
    seen = seen_by()
    value = term(seen)
    value.backward()
    assert value > 0
    learns = seen.restored if term.compares is None else seen.ours
    left_alone = seen.ours if term.compares is None else seen.restored
    assert torch.isfinite(learns.grad).all()
    assert learns.grad.abs().sum() > 0
    assert left_alone.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_equal_networks_lose_nothing_and_have_a_finite_gradient(name):
    seen = seen_by()
    seen = replace(seen, taught=seen.restored.detach().clone(), theirs=seen.ours.detach().clone())
    value = TERMS[name](Surroundings(C, C))(seen)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    gradient = seen.ours.grad if seen.restored.grad is None else seen.restored.grad
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_float32_where_convolutions_are_bfloat16(name):
    term = TERMS[name](Surroundings(2 * C, C))
    seen = seen_by((2 * C, C))
    plain = term(seen)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = term(seen)
        mixed.backward()
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain)


@pytest.mark.parametrize("name", [name for name in NAMES if TERMS[name].compares is not None])
def test_unequal_channels_compare(name):
    term = TERMS[name](Surroundings(2 * C, C))
    seen = seen_by((2 * C, C))
    term(seen).backward()
    assert seen.ours.grad.abs().sum() > 0
    assert [parameter.shape for parameter in term.parameters()] == ([(C, 2 * C, 1, 1)] if name == "fitnet" else [])
    assert all(parameter.grad.abs().sum() > 0 for parameter in term.parameters())


def test_temporal_follows_the_teacher_where_there_is_no_truth(footage):
    term = TERMS["temporal"](Surroundings())
    restored = (footage + 0.1 * torch.randn_like(footage)).requires_grad_(True)
    seen = Seen(low=footage[..., ::4, ::4], restored=restored, truth=None, step=0, student=VSRNet(), taught=footage)
    expected = temporal_distance(restored, footage, footage, backward_flow(footage, 4))
    torch.testing.assert_close(term(seen), expected)
    torch.testing.assert_close(term(replace(seen, truth=footage)), expected)
