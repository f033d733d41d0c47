"""Optical flow: signs and order on motion that is known, small frames, what is kept, OpenCV's estimator."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cachetools import LRUCache

from distill.errors import ConfigError
from distill.layers import warp
from distill.networks import optical_flow as module
from distill.networks.optical_flow import clear_flow_cache, estimate_flow


def cache_of(size):
    return LRUCache(size, getsizeof=module._flows.getsizeof)


@pytest.fixture(autouse=True)
def nothing_kept():
    clear_flow_cache()
    yield
    clear_flow_cache()


@pytest.fixture
def estimated(monkeypatch):
    """The number of pairs of each call of the inner estimator, as the calls come."""
    calls = []
    estimator = module._variational

    def counted(first, second):
        calls.append(len(first))
        return estimator(first, second)

    monkeypatch.setattr(module, "_variational", counted)
    return calls


def scene(x, y, seed=0):
    """A texture (3, ...) of waves that is known between the pixels too."""
    generator = torch.Generator().manual_seed(seed)
    angle, phase = (2 * torch.pi * torch.rand(3, 12, generator=generator) for _ in range(2))
    rate = 0.15 + 0.6 * torch.rand(3, 12, generator=generator)
    across, down = ((rate * turned(angle))[..., None, None] for turned in (torch.cos, torch.sin))
    return 0.5 + 0.5 * torch.sin(across * x + down * y + phase[..., None, None]).mean(1)


def grid(height=48, width=64):
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return x, y


def pair(u, v, height=48, width=64):
    """Two frames of a scene that moves by u to the right and v down."""
    x, y = grid(height, width)
    return scene(x, y)[None], scene(x - u, y - v)[None]


def mean_error(flow, true, border=0):
    height, width = flow.shape[-2:]
    error = (flow - true).square().sum(-3).sqrt()
    return error[..., border : height - border, border : width - border].mean().item()


SHIFTS = [(3, 0), (-2, 1), (0, -4), (0, 2), (0.4, -0.7), (-1.5, -2.25), (0.1, 0.05), (9, 5)]


@pytest.mark.parametrize(("u", "v"), SHIFTS)
def test_a_shift_is_found_right_and_down(u, v):
    first, second = pair(u, v)
    true = torch.tensor([u, v]).float()[:, None, None]
    flow = estimate_flow(first, second)
    assert flow.shape == (1, 2, 48, 64)
    assert flow.dtype == torch.float32
    assert mean_error(flow, true, border=10) < 0.02
    assert mean_error(flow, true) < 0.1
    assert mean_error(estimate_flow(second, first), -true) < 0.1


def test_rotation_and_zoom_are_found():
    x, y = grid()
    across, down = x - 32, y - 24
    matrix = torch.tensor([[1.04, -0.06], [0.06, 1.04]])
    back = torch.linalg.inv(matrix)
    first = scene(across, down)[None]
    second = scene(back[0, 0] * across + back[0, 1] * down, back[1, 0] * across + back[1, 1] * down)[None]
    true = torch.stack((0.04 * across - 0.06 * down, 0.06 * across + 0.04 * down))
    assert true.norm(dim=0).max() > 2.5
    flow = estimate_flow(first, second)
    assert mean_error(flow, true, border=10) < 0.03
    assert mean_error(flow, true) < 0.1
    left, still = ((frame - first)[..., 10:-10, 10:-10].abs().mean() for frame in (warp(second, flow), second))
    assert left < 0.2 * still


def test_what_moves_is_told_from_what_rests():
    x, y = grid()
    rest = scene(x, y)
    first, second = rest.clone(), rest.clone()
    first[:, 16:32, 20:40] = scene(x, y, seed=1)[:, 16:32, 20:40]
    second[:, 16:32, 22:42] = scene(x - 2, y, seed=1)[:, 16:32, 22:42]
    flow = estimate_flow(first[None], second[None])[0]
    thing = flow[:, 18:30, 22:38]
    assert (thing - torch.tensor([2.0, 0.0])[:, None, None]).abs().mean() < 0.05
    flow[:, 14:34, 18:44] = 0
    assert flow.abs().mean() < 0.01


@pytest.mark.parametrize("method", ["torch", "farneback"])
def test_identical_frames_need_no_estimate(monkeypatch, method):
    for name in ("_variational", "_farneback"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("an estimate"))
    frames = torch.rand(2, 3, 9, 7)
    assert torch.equal(estimate_flow(frames, frames.clone(), method), torch.zeros(2, 2, 9, 7))


def test_the_estimator_itself_finds_no_motion_in_identical_frames():
    frame = pair(0, 0)[0]
    assert module._variational(frame, frame).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(4, 4), (4, 5), (5, 40), (33, 4), (7, 17)])
def test_small_frames_work(size):
    first, second = torch.rand(2, 2, 3, *size)
    flow = estimate_flow(first, second)
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()
    assert flow.abs().max() > 0


def test_a_pair_does_not_depend_on_its_batch(monkeypatch):
    monkeypatch.setattr(module, "_flows", cache_of(0))
    first, second = (torch.cat(frames) for frames in zip(*(pair(u, v) for u, v in SHIFTS), strict=True))
    together = estimate_flow(first, second)
    for index in range(len(SHIFTS)):
        alone = estimate_flow(first[index : index + 1], second[index : index + 1])
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-5)
    pieces = []
    estimator = module._coarse_to_fine
    monkeypatch.setattr(module, "_coarse_to_fine", lambda *frames: pieces.append(len(frames[0])) or estimator(*frames))
    monkeypatch.setattr(module, "PIECE", 3 * 48 * 64)
    torch.testing.assert_close(estimate_flow(first, second), together, rtol=0, atol=1e-5)
    assert pieces == [3, 3, 2]


def test_no_gradient_and_none_of_the_callers_modes():
    first, second = pair(1, 0)
    with torch.inference_mode():
        flow = estimate_flow(first, second)
    layer = torch.nn.Conv2d(2, 1, 3)
    kept = estimate_flow(first.requires_grad_(), second)
    assert not kept.requires_grad
    layer(kept).sum().backward()  # torch refuses this of a tensor made in inference mode
    clear_flow_cache()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = estimate_flow(first, second)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, flow)


@pytest.mark.parametrize("method", ["torch", "farneback"])
def test_meta_frames_give_zeros_on_meta(method):
    frames = torch.empty(2, 3, 8, 12, device="meta", dtype=torch.bfloat16)
    flow = estimate_flow(frames, frames, method)
    assert (flow.device.type, flow.dtype, flow.shape) == ("meta", torch.float32, (2, 2, 8, 12))


def test_nothing_is_estimated_twice(estimated):
    frames = torch.cat([pair(u, 0)[1] for u in range(4)])
    flows = estimate_flow(frames[:-1], frames[1:])
    assert estimated == [3]
    last = frames.contiguous(memory_format=torch.channels_last)  # as decoded frames lie
    with torch.device("meta"):
        again = estimate_flow(last[:-1], last[1:])
    assert estimated == [3]
    assert torch.equal(again, flows)
    backward = estimate_flow(frames[[1, 2, 1, 0, 1, 2]], frames[[0, 1, 0, 1, 0, 2]])
    assert estimated == [3, 2]  # 1 to 0 once and 2 to 1; 0 to 1 is known, 2 to 2 is 0
    assert torch.equal(backward[0], backward[2])
    assert torch.equal(backward[0], backward[4])
    assert torch.equal(backward[3], flows[0])
    assert backward[5].abs().max() == 0
    clear_flow_cache()
    assert torch.equal(estimate_flow(frames[:-1], frames[1:]), flows)
    assert estimated == [3, 2, 3]


def test_what_is_kept_is_the_callers_to_change(estimated):
    first, second = pair(1, 0)
    flow = estimate_flow(first, second)
    original = flow.clone()
    flow.zero_()
    assert torch.equal(estimate_flow(first, second), original)
    assert estimated == [1]


def held():
    return sum(flow.untyped_storage().nbytes() for flow in module._flows.values())


def test_no_more_is_kept_than_allowed_and_the_longest_unused_goes(monkeypatch, estimated):
    pairs = [pair(u, 0, 8, 8) for u in range(1, 4)]
    monkeypatch.setattr(module, "_flows", cache_of(2 * 2 * 8 * 8 * 4))
    flows = [estimate_flow(*frames) for frames in pairs[:2]]
    estimate_flow(*pairs[0])
    estimate_flow(*pairs[2])
    assert len(estimated) == 3
    assert torch.equal(estimate_flow(*pairs[0]), flows[0])
    assert len(estimated) == 3
    assert torch.equal(estimate_flow(*pairs[1]), flows[1])
    assert len(estimated) == 4
    clear_flow_cache()
    estimate_flow(*(torch.cat(frames) for frames in zip(*pairs, strict=True)))
    assert held() == module._flows.maxsize


def test_size_and_method_tell_flows_of_the_same_bytes_apart(monkeypatch, estimated):
    monkeypatch.setattr(module, "_farneback", lambda first, _: torch.full_like(first[:, :2], 7))
    first, second = torch.rand(2, 1, 3, 8, 12)
    assert estimate_flow(first, second).shape == (1, 2, 8, 12)
    assert estimate_flow(first.reshape(1, 3, 12, 8), second.reshape(1, 3, 12, 8)).shape == (1, 2, 12, 8)
    assert estimate_flow(first, second, "farneback").eq(7).all()
    assert estimated == [1, 1]


def test_threads_share_what_is_kept(monkeypatch):
    monkeypatch.setattr(module, "_variational", lambda first, second: second[:, :2] - first[:, :2])
    monkeypatch.setattr(module, "_flows", cache_of(10 * 2 * 4 * 4 * 4))
    frames = torch.rand(30, 3, 4, 4)

    def ask(index):
        first, second = frames[index % 30][None], frames[(index * 7 + 1) % 30][None]
        return torch.equal(estimate_flow(first, second), second[:, :2] - first[:, :2])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(600)))
    assert 0 < held() <= module._flows.maxsize


def test_wrong_calls_are_told():
    frames = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="'pyflow'"):
        estimate_flow(frames, frames, "pyflow")
    for other in (frames[..., :7], frames[0], frames.repeat(2, 1, 1, 1)):
        with pytest.raises(ValueError, match="of one shape"):
            estimate_flow(frames, other)
    with pytest.raises(ValueError, match="of one shape"):
        estimate_flow(frames[:, :1], frames[:, :1])


def test_farneback_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r'pip install "distill-vsr\[flow\]"'):
        estimate_flow(*pair(1, 0), "farneback")


def frames_of(reference):
    return (reference[name].permute(2, 0, 1)[None] / 255 for name in ("im1", "im2"))


def test_farneback_is_the_one_stinet_was_trained_with(golden):
    reference = golden("optical_flow_pair")
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    flow = estimate_flow(*frames_of(reference), "farneback")[0]
    torch.testing.assert_close(flow, reference["farneback"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (5, 40)])
def test_farneback_takes_small_frames(size):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    first, second = torch.rand(2, 2, 3, *size)
    flow = estimate_flow(first, second, "farneback")
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()


def test_nearer_the_truth_than_the_estimators_the_teachers_were_trained_with(golden):
    reference = golden("optical_flow_pair")
    true = reference["true_flow"]
    flow = estimate_flow(*frames_of(reference))[0]
    for border in (0, 8):
        error = mean_error(flow, true, border)
        assert error < 0.065
        assert error < mean_error(reference["farneback"], true, border)
        assert error < mean_error(reference["pyflow"], true, border)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_flow(estimated):
    first, second = pair(2, -1)
    there = estimate_flow(first.cuda(), second.cuda())
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), estimate_flow(first, second), rtol=0, atol=1e-3)
    estimate_flow(first.cuda(), second.cuda())
    assert estimated == [1, 1]
