from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distill.data import bicubic_upsample, degrade
from distill.metrics.evaluate import evaluate
from students.fastdvdnet import FastDVDnet
from tests.unit.training.conftest import TINY


def test_panels_are_bicubic_the_networks_and_the_truth_of_the_middle_frame(validation):
    network = FastDVDnet(**TINY)
    bicubic, restored, truth = validation.panels([network])
    (clip,) = validation.clips
    frames = torch.from_numpy(np.stack(list(clip.frames()))).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(truth, frames[1]), "the second of the two frames that are judged"
    assert torch.equal(bicubic, bicubic_upsample(degrade(frames[1], "bi", 4), 4))
    assert restored.shape == truth.shape
    assert not torch.equal(restored, bicubic)
    assert not network.training
    whole = dataclasses.replace(validation, frames=None)
    assert torch.equal(whole.panels([])[-1], frames[4])


def test_figures_are_those_of_evaluate_and_a_network_stays_in_training(validation):
    network = FastDVDnet(**TINY).train()
    frames = []
    found = validation.evaluate(network, lambda: frames.append(1))
    expected = evaluate(network, validation.clips, degradation="bi", frames=2, time_scale=1)
    assert found.to_json() == expected.to_json()
    assert len(frames) == 2
    assert network.training
    assert validation.evaluate(None, lambda: None).psnr > 10


def test_a_judgement_can_be_stopped_at_a_frame(validation):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validation.evaluate(None, stop)
