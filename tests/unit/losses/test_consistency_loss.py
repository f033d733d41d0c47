from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from distill.layers import warp
from distill.losses.charbonnier import charbonnier
from distill.losses.consistency import Consistency, half_way_flows, interpolated
from distill.losses.term import Seen, Surroundings
from distill.networks.optical_flow import estimate_flow
from students.fastdvdnet import FastDVDnet
from students.space_time import SpaceTime

HEIGHT, WIDTH = 16, 20


@pytest.fixture
def consistency():
    return Consistency(Surroundings())


@pytest.fixture
def student(consistency):
    network = FastDVDnet(channels=8, blocks=1, widths=(8, 8, 8), frame_channels=4)
    torch.nn.init.normal_(network.tail.conv_last.weight, std=0.05)
    return network


@pytest.fixture
def doubling(student):
    network = SpaceTime(student)
    for parameter in network.head.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return network


def moving(frames, speed=1.0, height=HEIGHT, width=WIDTH):
    coarse = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=torch.Generator().manual_seed(3))
    picture = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    flows = torch.zeros(frames, 2, height, width)
    flows[:, 0] = speed * torch.arange(frames)[:, None, None]
    return warp(picture.expand(frames, -1, -1, -1), flows, padding="border").unsqueeze(0)


def seen(low, student, restored=None, truth=None):
    restored = student(low).frames.float() if restored is None else restored
    return Seen(low, restored, truth, 0, student)


def sampled(picture, flow):
    """Bilinear, edges repeated, by numpy: picture (3, H, W) at p + flow(p)."""
    _, height, width = picture.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = np.clip(x + flow[0], 0, width - 1), np.clip(y + flow[1], 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = x - left, y - top
    upper = picture[:, top, left] * (1 - x) + picture[:, top, right] * x
    lower = picture[:, below, left] * (1 - x) + picture[:, below, right] * x
    return upper * (1 - y) + lower * y


def half_way(before, after, low_before, low_after):
    """f_T of single frames (3, H, W), by numpy; flows are those of the low-resolution frames."""
    scale = before.shape[-1] // low_before.shape[-1]
    moved = []
    for picture, pair in ((before, (low_after, low_before)), (after, (low_before, low_after))):
        flow = estimate_flow(pair[0][None], pair[1][None]) / 2
        if scale > 1:
            flow = scale * functional.interpolate(flow, scale_factor=scale, mode="bilinear", align_corners=False)
        moved.append(sampled(picture.double().numpy(), flow[0].numpy()))
    return torch.from_numpy((moved[0] + moved[1]) / 2)


@pytest.mark.parametrize("length", [3, 6, 7])
def test_the_two_streams_of_a_student_that_keeps_the_rate(consistency, student, length):
    low = moving(length, speed=0.7)
    with torch.no_grad():
        restored = student(low).frames
        places = range(1, length - 1, 2)
        without = low.clone()
        for t in places:
            without[0, t] = half_way(low[0, t - 1], low[0, t + 1], low[0, t - 1], low[0, t + 1])
        time_then_space = student(without).frames
        distances = []
        for t in places:
            space_then_time = half_way(restored[0, t - 1], restored[0, t + 1], low[0, t - 1], low[0, t + 1])
            distances.append(charbonnier(time_then_space[0, t].double(), space_then_time))
        found = consistency(seen(low, student))
    assert found.item() == pytest.approx(torch.stack(distances).mean().item(), rel=1e-3)
    assert found > 1e-3


def test_the_two_streams_of_a_student_that_doubles_the_rate(consistency, doubling):
    low = moving(4, speed=1.4)
    with torch.no_grad():
        restored = doubling(low).frames
        distances = []
        for t in range(3):
            space_then_time = half_way(restored[0, 2 * t], restored[0, 2 * t + 2], low[0, t], low[0, t + 1])
            distances.append(charbonnier(restored[0, 2 * t + 1].double(), space_then_time))
        found = consistency(seen(low, doubling))
    assert found.item() == pytest.approx(torch.stack(distances).mean().item(), rel=1e-3)


def test_what_is_interpolated_is_nearer_to_the_frame_between_than_the_mean_is():
    clip = moving(3, speed=1.5, height=32, width=48)
    between = interpolated(clip[:, ::2], half_way_flows(clip[:, ::2]))[:, 0]
    inside = (..., slice(8, -8), slice(8, -8))
    mean = (clip[:, 0] + clip[:, 2]) / 2
    assert (between - clip[:, 1])[inside].abs().mean() < 0.2 * (mean - clip[:, 1])[inside].abs().mean()


def test_both_streams_teach_the_student(consistency, student):
    low = moving(5)
    weights = list(student.parameters())

    def gradient(restored):
        found = torch.autograd.grad(consistency(seen(low, student, restored)), weights, allow_unused=True)
        return torch.cat([each.flatten() for each in found if each is not None])

    frames = student(low).frames
    time_then_space = gradient(frames.detach())
    both = gradient(frames)
    assert time_then_space.abs().sum() > 0
    assert (both - time_then_space).abs().sum() > 0
    assert both.isfinite().all()


def test_restored_frames_get_a_gradient_where_they_are_interpolated(consistency, student):
    low = moving(5)
    restored = student(low).frames.detach().requires_grad_()
    truth = torch.rand_like(restored).requires_grad_()
    consistency(seen(low, student, restored, truth)).backward()
    assert truth.grad is None
    told = restored.grad.abs().sum((0, 2, 3, 4)) > 0
    assert told.tolist() == [True, False, True, False, True]


def test_flows_have_no_gradient(consistency):
    low = moving(3).requires_grad_()
    assert not half_way_flows(low).requires_grad


def test_frames_that_are_interpolated_are_not_seen(consistency, student):
    """What stands in the clip at those places must not leak into the stream that does without."""
    low = moving(5)
    restored = student(low).frames.detach()
    other = low.clone()
    other[:, 1::2] = torch.rand_like(other[:, 1::2])
    with torch.no_grad():
        torch.testing.assert_close(
            consistency(seen(low, student, restored)), consistency(seen(other, student, restored)), rtol=0, atol=0
        )


def test_a_still_clip_is_consistent(consistency, student):
    low = moving(1).expand(-1, 5, -1, -1, -1)
    with torch.no_grad():
        assert consistency(seen(low, student)) < 1e-5


@pytest.mark.parametrize("frames", [1, 2])
def test_a_clip_without_a_frame_between_two_costs_nothing(consistency, student, frames):
    assert consistency(seen(moving(frames), student)) == 0


def test_mixed_precision_leaves_the_distance_in_full(consistency, student):
    low = moving(5)
    with torch.no_grad():
        plain = consistency(seen(low, student))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = consistency(seen(low, student))
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=0.2)
