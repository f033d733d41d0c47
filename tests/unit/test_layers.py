from __future__ import annotations

import pytest
import torch

from distill.layers import LumaChroma, warp
from distill.metrics.psnr_ssim import luma


def test_luma_is_the_one_that_is_measured_before_rounding():
    rgb = torch.rand(2, 3, 5, 7)
    ycbcr = LumaChroma()(rgb)
    torch.testing.assert_close((ycbcr[:, 0] * 255 + 0.5).floor().double(), luma(rgb), rtol=0, atol=1)
    assert (ycbcr[:, 0] * 255 - luma(rgb)).abs().max() <= 0.5001


@pytest.mark.parametrize(
    ("rgb", "ycbcr"),
    [((1, 1, 1), (235, 128, 128)), ((0, 0, 0), (16, 128, 128)), ((1, 0, 0), (81.481, 90.203, 240))],
)
def test_known_colours(rgb, ycbcr):
    colours = LumaChroma()
    given = torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)
    expected = torch.tensor(ycbcr).view(1, 3, 1, 1) / 255
    torch.testing.assert_close(colours(given), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(colours.rgb(expected), given, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warp_looks_where_the_flow_points(padding):
    features = torch.rand(2, 3, 6, 8)
    flow = torch.zeros(2, 2, 6, 8)
    flow[:, 0], flow[:, 1] = 2, -1  # two to the right, one up
    warped = warp(features, flow, padding)
    torch.testing.assert_close(warped[:, :, 1:, :-2], features[:, :, :-1, 2:])
    outside = warped[:, :, 0, :-2]
    expected = torch.zeros_like(outside) if padding == "zeros" else features[:, :, 0, 2:]
    torch.testing.assert_close(outside, expected)


def test_warp_interpolates_and_passes_gradients():
    features = torch.rand(1, 1, 4, 5, requires_grad=True)
    flow = torch.full((1, 2, 4, 5), 0.0)
    flow[:, 0] = 0.25
    flow.requires_grad_()
    warped = warp(features, flow, "border")
    torch.testing.assert_close(warped[..., :-1], 0.75 * features[..., :-1] + 0.25 * features[..., 1:])
    warped.sum().backward()
    assert features.grad.abs().sum() > 0
    assert flow.grad.abs().sum() > 0
