from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.training.divergence import sign_of_divergence
from distill.training.optimisation import Schedule, adam, mixed_precision
from teachers.edvr import EDVR


def test_the_rate_rises_in_a_line_then_falls_as_a_cosine():
    rates = [Schedule(1.0, warm_up=4).learning_rate(step, 100) for step in range(100)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1], rel=0.01)
    assert rates[50] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_the_rate_halves_every_so_many_steps():
    schedule = Schedule(1.0, halve_every=2)
    assert [schedule.learning_rate(step, 6) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_convolutions_that_predict_offsets_have_a_factor_and_frozen_weights_none():
    network = EDVR(window=3, channels=8, offset_groups=2, extract_blocks=1, reconstruct_blocks=1)
    network.tail.requires_grad_(False)
    other, slow = adam(network, 1e-3, 0.25).param_groups
    assert (other["factor"], slow["factor"]) == (1.0, 0.25)
    offsets = {id(each) for name, each in network.named_parameters() if ".conv_offset." in name}
    assert {id(each) for each in slow["params"]} == offsets
    trained = {id(each) for each in network.parameters() if each.requires_grad}
    assert {id(each) for each in other["params"]} == trained - offsets


def test_precisions_by_name():
    cpu = torch.device("cpu")
    assert (mixed_precision("fp32", cpu), mixed_precision("bf16", cpu)) == (False, True)


def test_what_left_its_range_is_named():
    network, norm = nn.Linear(1, 1), torch.tensor(1.0)
    assert sign_of_divergence({"loss": 1.0}, norm, network) is None
    assert sign_of_divergence({"loss": 1.0, "time": float("nan")}, norm, network) == "time is nan"
    assert sign_of_divergence({"loss": 1.0}, norm * torch.inf, network) == "the gradient's norm is inf"
    network.mean_offset = torch.tensor(51.0)
    assert "offsets are 51 pixels" in sign_of_divergence({"loss": 1.0}, norm, network)
