"""Each term against the paper's equation, computed another way: numpy, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distill.losses.attention import attention_map, space_distance
from distill.losses.charbonnier import charbonnier
from distill.losses.memory import ConvLSTM, time_distance

B, N, C, H, W = 2, 3, 4, 5, 6


def test_charbonnier_is_equation_8_pixel_by_pixel():
    restored, truth = torch.rand(B, N, 3, H, W), torch.rand(B, N, 3, H, W)
    expected = np.mean(
        [
            math.sqrt((a - b) ** 2 + 1e-12)
            for a, b in zip(restored.ravel().tolist(), truth.ravel().tolist(), strict=True)
        ]
    )
    assert charbonnier(restored, truth).item() == pytest.approx(expected, rel=1e-5)


def test_charbonnier_of_equal_pictures_is_epsilon_and_has_a_gradient():
    picture = torch.rand(2, 3, H, W, requires_grad=True)
    loss = charbonnier(picture, picture.detach())
    loss.backward()
    assert loss.item() == pytest.approx(1e-6)
    assert torch.isfinite(picture.grad).all()


@pytest.mark.parametrize(
    ("mapping", "of_pixel"),
    [
        ("sum_squared", lambda f: sum(v**2 for v in f)),
        ("sum_absolute", lambda f: sum(abs(v) for v in f)),
        ("max_squared", lambda f: max(abs(v) ** 2 for v in f)),
    ],
)
def test_space_distance_is_equations_1_to_5(mapping, of_pixel):
    student, teacher = torch.randn(B, N, C, H, W), torch.randn(B, N, C + 2, H, W)
    per_clip = []
    for b in range(B):
        per_frame = []
        for t in range(N):
            squares = []
            for y in range(H):
                for x in range(W):
                    ours = of_pixel(student[b, t, :, y, x].tolist())
                    theirs = of_pixel(teacher[b, t, :, y, x].tolist())
                    squares.append((ours - theirs) ** 2)
            per_frame.append(np.mean(squares))
        per_clip.append(sum(per_frame) / N)
    expected = np.mean(per_clip)
    assert space_distance(student, teacher, mapping).item() == pytest.approx(expected, rel=1e-4)


def test_attention_map_forgets_signs_and_channels():
    features = torch.randn(B, N, C, H, W)
    for mapping in ("sum_squared", "sum_absolute", "max_squared"):
        mapped = attention_map(features, mapping)
        assert mapped.shape == (B, N, H, W)
        assert (mapped >= 0).all()
        torch.testing.assert_close(mapped, attention_map(-features[:, :, [2, 0, 3, 1]], mapping))


def numpy_cell_state(memory: ConvLSTM, sequence: np.ndarray) -> np.ndarray:
    """The last cell state of one clip (N, C, H, W), by the textbook, with explicit sums for the convolution."""
    weight, bias = memory.conv.weight.detach().numpy(), memory.conv.bias.detach().numpy()
    hidden_channels = bias.size // 4
    _, _, height, width = sequence.shape
    hidden = np.zeros((hidden_channels, height, width))
    cell = np.zeros_like(hidden)
    for features in sequence:
        stacked = np.pad(np.concatenate([features, hidden]), ((0, 0), (1, 1), (1, 1)))
        gates = np.zeros((4 * hidden_channels, height, width))
        for y in range(height):
            for x in range(width):
                gates[:, y, x] = np.tensordot(weight, stacked[:, y : y + 3, x : x + 3], 3) + bias
        i, f, o, g = np.split(gates, 4)
        cell = 1 / (1 + np.exp(-f)) * cell + 1 / (1 + np.exp(-i)) * np.tanh(g)
        hidden = 1 / (1 + np.exp(-o)) * np.tanh(cell)
    return cell


def test_time_distance_is_equations_6_and_7():
    memory = ConvLSTM(C, C)
    student, teacher = torch.randn(B, N, C, H, W), torch.randn(B, N, C, H, W)
    cells = [np.stack([numpy_cell_state(memory, clip.numpy()) for clip in clips]) for clips in (student, teacher)]
    expected = np.mean((cells[0] - cells[1]) ** 2)
    assert time_distance(memory, student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_the_memory_depends_on_the_order_of_frames():
    memory, student = ConvLSTM(C, C), torch.randn(B, N, C, H, W)
    assert time_distance(memory, student, student.flip(1)).item() > 1e-6


def test_both_networks_train_the_one_memory():
    memory = ConvLSTM(C, C)
    student = torch.randn(B, N, C, H, W, requires_grad=True)
    teacher = torch.randn(B, N, C, H, W)
    time_distance(memory, student, teacher).backward()
    both = memory.conv.weight.grad.clone()
    memory.zero_grad()
    with torch.no_grad():
        theirs = memory(teacher)[1]
    torch.nn.functional.mse_loss(memory(student)[1], theirs).backward()
    assert student.grad.abs().sum() > 0
    assert not torch.allclose(both, memory.conv.weight.grad)
