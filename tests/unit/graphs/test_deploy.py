from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distill.interfaces import Upsampled, WindowNetwork
from export.graphs.deploy import deployed
from students.fastdvdnet import FastDVDnet
from tests.stand_ins.networks import randomised


class Odd(WindowNetwork):
    """Pairs that fold, and layers that must not: alone, before, apart, shared, without statistics or scale."""

    window, lr_channels, hr_channels = 1, 4, 3

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="reflect")
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.ReLU(inplace=True), shared)
        self.second = nn.Sequential(shared, nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1, bias=False)))
        self.lonely = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Identity())
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)

    def reconstruct(self, window: Tensor) -> Upsampled:
        features = self.second(self.first(window[:, 0]))
        picture = nn.functional.interpolate(self.lonely(features), scale_factor=4)
        return Upsampled(picture, picture, features)


@pytest.mark.parametrize("build", [lambda: randomised(FastDVDnet(channels=16, blocks=2)), Odd])
def test_a_deployed_copy_is_equal_and_without_batch_norm(build):
    torch.manual_seed(0)
    network = build().eval()
    copy = deployed(network)
    window = torch.rand(2, network.window, 3, 18, 22)
    with torch.inference_mode():
        for expected, folded in zip(network.reconstruct(window), copy.reconstruct(window), strict=True):
            assert (folded - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    assert not [module for module in copy.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not copy.training


def test_the_original_is_untouched():
    network = randomised(FastDVDnet(channels=16, blocks=2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copy = deployed(network)
    for parameter in copy.parameters():
        parameter.data.zero_()
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert network.training


def test_other_layers_keep_their_names():
    network = FastDVDnet(channels=16, blocks=2)
    folded = {name for name in deployed(network).state_dict() if name.startswith("backbone")}
    assert folded == {name for name in network.state_dict() if name.startswith("backbone")}


def test_normalisation_without_running_statistics_stays():
    network = Odd()
    network.second[1] = nn.BatchNorm2d(4, track_running_stats=False)
    kept = [module for module in deployed(network).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(kept) == 1


class Grouped(WindowNetwork):
    """Groups of every kind: few, as many as channels, and with more outputs than inputs."""

    window, lr_channels, hr_channels = 1, 6, 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, groups=3),
            nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=3),
            nn.Conv2d(12, 6, (1, 3), padding=(0, 1), groups=2, bias=False),
            nn.Conv2d(6, 3, 1),
        )

    def reconstruct(self, window: Tensor) -> Upsampled:
        features = self.layers(window[:, 0])
        picture = nn.functional.interpolate(features, scale_factor=4)
        return Upsampled(picture, picture, features)


def test_a_few_groups_become_none_and_depthwise_convolutions_stay():
    torch.manual_seed(0)
    network = Grouped().eval()
    copy = deployed(network)
    assert [conv.groups for conv in network.layers] == [3, 3, 2, 1]
    assert [conv.groups for conv in copy.layers] == [3, 1, 1, 1]
    assert [tuple(conv.weight.shape) for conv in copy.layers[1:3]] == [(12, 6, 3, 3), (6, 12, 1, 3)]
    window = torch.rand(2, 1, 3, 9, 11)
    with torch.inference_mode():
        difference = copy.reconstruct(window).frames - network.reconstruct(window).frames
    assert difference.abs().max() <= 1e-6
