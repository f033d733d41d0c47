from __future__ import annotations

import torch
from torch import nn

from distill.interfaces import ClipNetwork, Upsampled
from distill.training.batch_norm import freeze_statistics, measure_statistics


class Normalising(ClipNetwork):
    """Normalises each frame and nothing more."""

    hr_channels = lr_channels = None

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, clip):
        return Upsampled(self.norm(clip.flatten(0, 1)).unflatten(0, clip.shape[:2]), None, None)


def test_statistics_are_a_plain_average_over_the_clips_and_measured_once():
    network = Normalising().eval()
    momentum = network.norm.momentum
    clips = [torch.rand(1, 2, 3, 8, 8) * scale for scale in (1, 2, 6)]
    measure_statistics(network, clips)
    means = torch.stack([clip.mean((0, 1, 3, 4)) for clip in clips])
    torch.testing.assert_close(network.norm.running_mean, means.mean(0))
    assert network.norm.momentum == momentum
    unread = iter(clips)
    measure_statistics(network, unread)
    assert len(list(unread)) == len(clips), "what is measured was measured again"


def test_a_network_that_doubles_the_frame_rate_is_given_every_second_frame():
    network = Normalising()
    network.time_scale = 2
    clip = torch.rand(1, 5, 3, 8, 8)
    measure_statistics(network, [clip])
    torch.testing.assert_close(network.norm.running_mean, clip[:, ::2].mean((0, 1, 3, 4)))


def test_frozen_statistics_stay_while_the_rest_trains():
    network = Normalising().train()
    freeze_statistics(network)
    before = network.norm.running_mean.clone()
    network(torch.rand(1, 2, 3, 8, 8)).frames.sum().backward()
    assert torch.equal(network.norm.running_mean, before)
    assert network.training
    assert network.norm.weight.grad is not None
