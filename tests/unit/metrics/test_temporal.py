"""tOF and the warping error: on motion that is known, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from distill.metrics.temporal import TemporalConsistency, flow_distance, unoccluded, warping_error
from distill.networks import optical_flow as flow_module
from distill.networks.optical_flow import clear_flow_cache


@pytest.fixture(autouse=True)
def nothing_kept():
    clear_flow_cache()
    yield
    clear_flow_cache()


def texture(right: float, down: float = 0.0, height: int = 64, width: int = 80, seed: int = 0) -> Tensor:
    """A picture (3, H, W) uint8 of slow waves, moved by so many pixels."""
    generator = torch.Generator().manual_seed(seed)
    angle, phase = (2 * math.pi * torch.rand(3, 12, 1, 1, generator=generator) for _ in range(2))
    rate = 0.1 + 0.25 * torch.rand(3, 12, 1, 1, generator=generator)
    x, y = torch.arange(width) - right, torch.arange(height)[:, None] - down
    waves = torch.sin(rate * (angle.cos() * x + angle.sin() * y) + phase).mean(1)
    return (0.5 + 0.5 * waves).mul(255).round().to(torch.uint8)


def measured(restored: list[Tensor], truth: list[Tensor], crop: int = 0):
    consistency = TemporalConsistency(crop)
    for pair in zip(restored, truth, strict=True):
        consistency.add(*pair)
    found = consistency.result()
    assert found is not None
    return found


def test_equal_clips_have_no_difference_of_flow_and_the_truths_own_warping_error() -> None:
    clip = [texture(3 * t, -t) for t in range(3)]
    found = measured(clip, clip)
    assert found.tof == 0
    assert found.warping == found.truth_warping


def test_motion_that_is_a_pixel_too_fast_counts_as_one_pixel() -> None:
    truth, faster = [texture(2 * t) for t in range(3)], [texture(3 * t) for t in range(3)]
    diagonal = [texture(2 * t + 3 * t, 4 * t) for t in range(3)]
    assert measured(faster, truth, crop=8).tof == pytest.approx(1, abs=0.1)
    assert measured(diagonal, truth, crop=8).tof == pytest.approx(5, abs=0.4)


def test_flow_distance_is_the_mean_length_of_the_difference() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, 1, 2, 7, 9))
    lengths = [
        math.hypot(one[0, 0, y, x] - two[0, 0, y, x], one[0, 1, y, x] - two[0, 1, y, x])
        for y in range(2, 5)
        for x in range(2, 7)
    ]
    found = flow_distance(torch.from_numpy(one), torch.from_numpy(two), crop=2)
    assert found == pytest.approx(sum(lengths) / len(lengths), abs=1e-12)


def test_warping_error_equals_the_definition() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random((2, 2, 3, 6, 8)).astype(np.float32)
    flow = np.zeros((2, 2, 6, 8), np.float32)
    flow[:, 0], flow[:, 1] = 2, -1
    visible = rng.random((1, 6, 8)) < 0.6
    visible[:, 0], visible[..., -2:] = False, False  # they would point outside
    expected = []
    for one, two in zip(before, after, strict=True):
        squares = [
            (one[c, y, x] - two[c, y - 1, x + 2]) ** 2
            for c in range(3)
            for y in range(6)
            for x in range(8)
            if visible[0, y, x]
        ]
        expected.append(sum(squares) / len(squares))
    tensors = [torch.from_numpy(array) for array in (before, after, flow, visible)]
    assert warping_error(*tensors).tolist() == pytest.approx(expected, rel=1e-5)


def test_unoccluded_equals_the_definition() -> None:
    rng = np.random.default_rng(3)
    height, width = 9, 11
    # slow changes of flow, in pixels of frames twice that size
    forward = 2 * np.stack([np.sin(np.arange(width) / 3 + y / 5) for y in range(height)])[None].repeat(2, 0)
    backward = -forward + rng.normal(0, 0.3, forward.shape)

    def sampled(x: float, y: float) -> np.ndarray:
        left, top = min(int(x), width - 2), min(int(y), height - 2)
        right, down = x - left, y - top
        above = backward[:, top, left] * (1 - right) + backward[:, top, left + 1] * right
        below = backward[:, top + 1, left] * (1 - right) + backward[:, top + 1, left + 1] * right
        return above * (1 - down) + below * down

    expected = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            there = forward[:, y, x]
            at = x + there[0] / 2, y + there[1] / 2
            if 0 <= at[0] <= width - 1 and 0 <= at[1] <= height - 1:
                back = sampled(*at)
                tolerated = 0.01 * ((there**2).sum() + (back**2).sum()) + 0.5
                expected[y, x] = ((there + back) ** 2).sum() <= tolerated
    assert 0.2 < expected.mean() < 0.8
    flows = [torch.from_numpy(flow).float()[None] for flow in (forward, backward)]
    assert (unoccluded(*flows)[0].numpy() == expected).all()


def test_a_static_clip_is_steady_and_flicker_shows_in_full() -> None:
    still = [texture(0)] * 4
    found = measured(still, still)
    assert found.tof == 0
    assert found.warping == pytest.approx(0, abs=1e-9)
    flickering = [(frame.float() * 0.5 + 40 * (t % 2)).round().to(torch.uint8) for t, frame in enumerate(still)]
    assert measured(flickering, still).warping == pytest.approx((40 / 255) ** 2, rel=1e-4)


def test_flicker_shows_in_a_moving_clip() -> None:
    truth = [texture(3 * t) for t in range(4)]
    steady = measured(truth, truth)
    assert steady.truth_warping is not None
    assert steady.truth_warping < 1e-4
    flickering = [(frame.float() * 0.8 + 30 * (t % 2)).round().to(torch.uint8) for t, frame in enumerate(truth)]
    found = measured(flickering, truth)
    assert found.warping == pytest.approx((30 / 255) ** 2, rel=0.1)
    assert found.truth_warping == steady.truth_warping


def test_what_is_covered_in_the_next_frame_does_not_count() -> None:
    """A square of 24 pixels moves by 8 to the right: columns 56 to 63 beside it are covered."""

    def frame(left: int) -> Tensor:
        picture = texture(0, seed=1)
        picture[:, 20:44, left : left + 24] = texture(left, seed=2)[:, 20:44, left : left + 24]
        return picture

    def spoiled(left: int) -> float:
        """The warping error after something is wrong in the first frame alone."""
        first = truth[0].clone()
        first[:, 24:40, left : left + 4] += 128  # modulo 256, so every level is 128 off
        found = measured([first, truth[1]], truth)
        assert found.warping is not None
        return found.warping

    truth = [frame(32), frame(40)]
    own = measured(truth, truth).truth_warping
    assert own is not None
    assert spoiled(58) == pytest.approx(own, rel=0.05)  # covered
    assert spoiled(8) > 5 * own  # background that stays
    assert spoiled(40) > 5 * own  # the square itself


def test_what_leaves_the_frame_does_not_count() -> None:
    flow = torch.zeros(1, 2, 8, 10)
    flow[:, 0] = 6  # 3 pixels of the half size
    seen = unoccluded(flow, -flow)[0]
    assert seen[:, :7].all()
    assert not seen[:, 7:].any()


def test_crop_leaves_the_border_out() -> None:
    still = [texture(0)] * 2
    framed = [frame.clone() for frame in still]
    framed[1][:, :6], framed[1][..., -6:] = 0, 255
    assert measured(framed, still).warping > 0.01
    assert measured(framed, still, crop=6).warping == pytest.approx(0, abs=1e-9)


def test_a_blurred_clip_falls_below_the_truth() -> None:
    generator = torch.Generator().manual_seed(4)
    grain = [frame.float() + 20 * torch.randn(frame.shape, generator=generator) for frame in (texture(0), texture(2))]
    truth = [frame.clamp(0, 255).to(torch.uint8) for frame in grain]
    blurred = [functional.avg_pool2d(frame.float(), 5, 1, 2).to(torch.uint8) for frame in truth]
    found = measured(blurred, truth, crop=4)
    assert found.warping < found.truth_warping / 4


@pytest.mark.parametrize(("height", "width"), [(24, 40), (31, 33)])
def test_odd_sides_lose_their_last_row_and_column(height: int, width: int) -> None:
    truth = [texture(t, height=height, width=width) for t in range(2)]
    restored = [(frame.float() * 0.9).to(torch.uint8) for frame in truth]
    even = [[frame[:, : height - height % 2, : width - width % 2] for frame in clip] for clip in (restored, truth)]
    assert measured(restored, truth) == measured(*even)


def test_fewer_than_two_frames_have_no_figure() -> None:
    consistency = TemporalConsistency()
    assert consistency.result() is None
    consistency.add(texture(0), texture(0))
    assert consistency.result() is None


def test_the_figures_are_means_over_the_pairs() -> None:
    truth = [texture(2 * t) for t in range(4)]
    restored = [texture((2, 3, 1, 4)[t] * t) for t in range(4)]
    alone = [measured(restored[t : t + 2], truth[t : t + 2]) for t in range(3)]
    found = measured(restored, truth)
    assert found == pytest.approx(np.mean(alone, 0))


def test_the_truths_flows_are_estimated_once_for_several_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    estimator = flow_module._variational

    def counted(first: Tensor, second: Tensor) -> Tensor:
        calls.append(len(first))
        return estimator(first, second)

    monkeypatch.setattr(flow_module, "_variational", counted)
    truth = [texture(2 * t, height=24, width=40) for t in range(3)]
    for factor in (0.9, 0.8):
        measured([(frame * factor).to(torch.uint8) for frame in truth], truth)
    assert calls == [1, 2, 1, 2, 1, 1]  # the output, then the truth there and back; later the output alone
