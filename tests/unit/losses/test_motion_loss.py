from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from distill.layers import warp
from distill.losses.motion import Motion, absolute_distance, differentiable_flow, relative_distance
from distill.losses.term import Seen, Surroundings


@pytest.fixture
def motion():
    return Motion(Surroundings())


def texture(height=48, width=64, channels=1, seed=0):
    coarse = torch.rand(1, channels, height // 6 + 2, width // 6 + 2, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def moving(speed, frames=3, size=(48, 64)):
    """Frames (1, N, 3, H, W) of a texture that moves `speed` pixels a frame to the left: flow -speed."""
    picture = texture(*size, channels=3)
    shifts = torch.as_tensor(speed) * torch.arange(frames)
    flows = torch.stack((shifts, torch.zeros(frames)), 1)[:, :, None, None].expand(-1, -1, *size)
    return warp(picture.expand(frames, -1, -1, -1), flows, padding="border").unsqueeze(0)


def seen(restored, truth):
    return Seen(torch.zeros(1, 3, 3, 1, 1), restored, truth, 0, nn.Identity())


def inside(field, margin=12):
    return field[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.0), (1.3, -0.7), (3.0, 2.0), (-6.0, 4.0)])
def test_the_flow_recovers_known_shifts(shift):
    second = texture()
    flow = torch.tensor(shift)[None, :, None, None].expand(1, 2, *second.shape[-2:])
    first = warp(second, flow, padding="border")
    found = differentiable_flow(first, second)
    assert found.shape == flow.shape
    assert (inside(found) - inside(flow)).abs().mean() < 0.02


def test_the_flow_follows_two_things_that_move_apart():
    second = texture(64, 96)
    flow = torch.zeros(1, 2, 64, 96)
    flow[:, 0, :, :48], flow[:, 0, :, 48:] = 2.0, -2.0
    found = differentiable_flow(warp(second, flow, padding="border"), second)
    assert (found[0, 0, 16:-16, 12:32] - 2).abs().mean() < 0.2
    assert (found[0, 0, 16:-16, 64:-12] + 2).abs().mean() < 0.2


def test_absolute_and_relative_are_equations_2_and_3():
    draws = (np.random.default_rng(k).normal(size=(2, n, 2, 3, 4)) for k, n in enumerate((4, 3, 4)))
    next_one, after_next, true = draws
    absolute, relative = [], []
    for index in np.ndindex(next_one.shape):
        absolute.append((next_one[index] - true[index]) ** 2)
    for index in np.ndindex(after_next.shape):
        near, far = next_one[index], after_next[index]
        relative.append(max(math.copysign(1, near) * (near - far), 0))
    near, far, reference = (torch.from_numpy(each) for each in (next_one, after_next, true))
    assert absolute_distance(near, reference).item() == pytest.approx(np.mean(absolute))
    assert relative_distance(near, far).item() == pytest.approx(np.mean(relative))


def test_motion_that_goes_on_costs_nothing_and_motion_that_turns_back_does():
    steady = torch.full((1, 2, 2, 2, 2), -1.5)
    assert relative_distance(steady, 2 * steady[:, :1]) == 0
    assert relative_distance(steady, 0.5 * steady[:, :1]).item() == pytest.approx(0.75)
    assert relative_distance(steady, -steady[:, :1]).item() == pytest.approx(3.0)


def test_it_compares_each_frame_with_the_next_and_the_one_after(motion):
    restored, truth = torch.rand(2, 5, 3, 32, 40), torch.rand(2, 5, 3, 32, 40)
    grey = torch.tensor((0.299, 0.587, 0.114))[:, None, None]

    def flow(clip, start, end):
        one, two = ((clip[:, place] * grey).sum(1, keepdim=True) for place in (start, end))
        return differentiable_flow(functional.avg_pool2d(one, 2), functional.avg_pool2d(two, 2))

    pairs = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (1, 3), (2, 4)]
    absolute = torch.stack([(flow(restored, *pair) - flow(truth, *pair)).square() for pair in pairs]).mean()
    excess = []
    for start in range(3):
        near, far = flow(restored, start, start + 1), flow(restored, start, start + 2)
        excess.append(torch.clamp(torch.sign(near) * (near - far), min=0))
    expected = absolute + torch.stack(excess).mean()
    torch.testing.assert_close(motion(seen(restored, truth)), expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_reaches_every_restored_frame_and_no_true_one(motion):
    """The published code estimates flows by OpenCV on detached frames: its loss has no gradient at all."""
    restored = moving(0.5, frames=4).add(0.05 * torch.rand(1, 4, 3, 48, 64)).requires_grad_()
    truth = moving(1.0, frames=4).requires_grad_()
    motion(seen(restored, truth)).backward()
    assert truth.grad is None
    assert restored.grad.isfinite().all()
    assert (restored.grad.abs().amax((0, 2, 3, 4)) > 0).all()


def test_the_gradient_of_the_flow_is_that_of_the_shift():
    shift = torch.tensor(0.6, requires_grad=True)
    second = texture()
    flow = torch.stack((shift, torch.zeros(()))).view(1, 2, 1, 1).expand(1, 2, *second.shape[-2:])
    found = inside(differentiable_flow(warp(second, flow, padding="border"), second))[:, 0]
    (gradient,) = torch.autograd.grad(found.mean(), shift)
    assert 0.5 < gradient < 1.1  # flat windows follow less than wholly


def test_a_clip_that_moves_too_slowly_learns_the_true_speed(motion):
    speed = torch.tensor(0.4, requires_grad=True)
    truth = moving(1.5)
    optimiser = torch.optim.Adam([speed], lr=0.1)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = motion(seen(moving(speed), truth))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert speed.item() == pytest.approx(1.5, abs=0.1)
    assert losses[-1] < 0.1 * losses[0]


def test_pixels_of_a_frozen_frame_learn_to_move(motion):
    truth = moving(1.0)
    frames = truth[:, [0, 0, 2]].clone().requires_grad_()  # the frame in between is a copy of the first
    optimiser = torch.optim.Adam([frames], lr=0.01)
    before = motion(seen(frames, truth)).item()
    for _ in range(25):
        optimiser.zero_grad()
        motion(seen(frames, truth)).backward()
        optimiser.step()
    assert motion(seen(frames, truth)).item() < 0.3 * before


def test_equal_clips_have_no_absolute_part_and_footage_without_truth_has_the_relative_alone(motion):
    frames = torch.rand(1, 4, 3, 32, 32)
    torch.testing.assert_close(motion(seen(frames, frames)), motion(seen(frames, None)))
    assert motion(seen(frames, None)) > 0
    assert motion(seen(moving(1.0), moving(1.0))) < 0.03  # what leaves the picture


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_and_flat_ones_are_no_trouble(motion, frames):
    flat = torch.full((1, frames, 3, 32, 32), 0.5, requires_grad=True)
    loss = motion(seen(flat, torch.full_like(flat, 0.25))) + 0 * flat.sum()
    loss.backward()
    assert loss == 0
    assert flat.grad.isfinite().all()


def test_mixed_precision_changes_nothing(motion):
    restored, truth = moving(0.5), moving(1.0)
    plain = motion(seen(restored, truth))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = motion(seen(restored, truth))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain)
