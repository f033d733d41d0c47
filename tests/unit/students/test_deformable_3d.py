from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional

from students.deformable_3d import DeformableConv3d, deform_conv3d


def by_hand(features, offset, weight, bias):
    """Straight from the definition: every tap of every pixel of one frame after the other."""
    _, channels, length, height, width = features.shape
    result = bias[:, None, None, None].repeat(1, length, height, width)
    for t, y, x in itertools.product(range(length), range(height), range(width)):
        for k, (dt, dy, dx) in enumerate(itertools.product((-1, 0, 1), repeat=3)):
            frame = t + dt
            row, column = y + dy + offset[0, 2 * k, t, y, x].item(), x + dx + offset[0, 2 * k + 1, t, y, x].item()
            sample = torch.zeros(channels, dtype=features.dtype)
            for r, c in itertools.product(
                (math.floor(row), math.floor(row) + 1), (math.floor(column), math.floor(column) + 1)
            ):
                if 0 <= frame < length and 0 <= r < height and 0 <= c < width:
                    sample += features[0, :, frame, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
            result[:, t, y, x] += weight[:, :, dt + 1, dy + 1, dx + 1] @ sample
    return result[None]


@pytest.mark.parametrize("size", [(2, 3, 4), (3, 4, 1), (1, 1, 5)])
def test_it_is_what_its_definition_says(size):
    features = torch.randn(1, 2, *size, dtype=torch.float64)
    offset = torch.randn(1, 54, *size, dtype=torch.float64) * 1.5
    weight, bias = torch.randn(3, 2, 3, 3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = by_hand(features, offset, weight, bias)
    torch.testing.assert_close(deform_conv3d(features, offset, weight, bias), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 5)])
def test_zero_offsets_make_an_ordinary_convolution(kernel):
    features, weight, bias = torch.randn(2, 4, 5, 6, 7), torch.randn(3, 4, *kernel), torch.randn(3)
    still = torch.zeros(2, 2 * math.prod(kernel), 5, 6, 7)
    plain = functional.conv3d(features, weight, bias, padding=tuple(side // 2 for side in kernel))
    torch.testing.assert_close(deform_conv3d(features, still, weight, bias), plain, rtol=1e-5, atol=1e-4)


def test_every_gradient():
    features = torch.randn(1, 2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(1, 54, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(deform_conv3d, (features, offset, weight, bias), fast_mode=True)


def test_offsets_keep_float32_under_mixed_precision():
    layer = DeformableConv3d(4)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    features = torch.rand(1, 4, 3, 6, 6)
    seen = []
    layer.conv_offset.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        layer(features)
        with torch.autocast("cpu", torch.bfloat16):
            layer(features.bfloat16().float())
            layer(features)
    assert seen[1].dtype == torch.float32
    assert torch.equal(seen[0], seen[2])
