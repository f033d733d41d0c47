from __future__ import annotations

import pytest
import torch

from distill.config import DistillationConfig
from distill.data import Batch
from distill.errors import ConfigError
from distill.losses.attention import space_distance
from distill.task import SpaceTimeDistillation
from students.fastdvdnet import FastDVDnet
from teachers.edvr import EDVR

SETTINGS = DistillationConfig(space=1, time=100, warm_up=2, memory_crop=None)


@pytest.fixture
def networks():
    student = FastDVDnet(channels=16, blocks=1, widths=(8, 8, 8), frame_channels=4)
    teacher = EDVR(window=3, channels=8, offset_groups=2, extract_blocks=1, reconstruct_blocks=1)
    for network in (student, teacher):
        torch.nn.init.normal_(network.tail.conv_last.weight, std=0.05)
    return student, teacher


@pytest.fixture
def batch():
    return Batch(torch.rand(1, 3, 3, 8, 8), torch.rand(1, 3, 3, 32, 32))


def test_warm_up_is_reconstruction_alone_then_the_weighted_sum(networks, batch):
    task = SpaceTimeDistillation(*networks, SETTINGS).train()
    assert set(task(batch, 1)) == {"loss", "reconstruction"}
    parts = task(batch, 2)
    total = parts["reconstruction"] + 1 * parts["space"] + 100 * parts["time"]
    torch.testing.assert_close(parts["loss"], total)
    assert parts["space"] > 0
    assert parts["time"] > 0


def test_the_student_and_the_memory_learn_and_the_teacher_does_not(networks, batch):
    student, teacher = networks
    task = SpaceTimeDistillation(student, teacher, SETTINGS).train()
    assert student.training
    assert not teacher.training
    task(batch, 5)["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert task.memory.conv.weight.grad.abs().sum() > 0


def test_the_students_own_tensors_are_all_that_it_has(networks):
    before = set(networks[0].state_dict())
    SpaceTimeDistillation(*networks, SETTINGS)
    assert set(networks[0].state_dict()) == before


def test_the_memory_freezes_once_its_term_is_under_1e_8(networks):
    task = SpaceTimeDistillation(*networks, SETTINGS)
    task.after_step({"time": torch.tensor(1.1e-8)})
    assert task.memory.conv.weight.requires_grad
    task.after_step({"time": torch.tensor(0.9e-8)})
    assert not task.memory.conv.weight.requires_grad
    task.after_step({"time": torch.tensor(1.0)})
    assert not task.memory.conv.weight.requires_grad, "it thawed"


def test_a_frozen_memory_stays_frozen_when_resumed(networks):
    task = SpaceTimeDistillation(*networks, SETTINGS)
    task.freeze_memory()
    resumed = SpaceTimeDistillation(*networks, SETTINGS)
    resumed.load_trained_state(task.trained_state())
    assert not resumed.memory.conv.weight.requires_grad
    torch.testing.assert_close(resumed.memory.conv.weight, task.memory.conv.weight)


def test_lr_features_are_compared_where_asked(networks, batch):
    space_only = DistillationConfig(warm_up=0, time=0, features="lr")
    parts = SpaceTimeDistillation(*networks, space_only)(batch, 0)
    assert "time" not in parts
    expected = space_distance(*(network(batch.lr).lr_features for network in networks))
    literal = DistillationConfig(warm_up=0, time=0, features="lr", match_scale=False)
    torch.testing.assert_close(SpaceTimeDistillation(*networks, literal)(batch, 0)["space"], expected)


def test_unequal_channels_meet_in_a_training_only_convolution(networks, batch):
    task = SpaceTimeDistillation(*networks, DistillationConfig(warm_up=0, features="lr")).train()
    before = {name: tensor.clone() for name, tensor in networks[0].state_dict().items()}
    parts = task(batch, 0)
    parts["time"].backward()
    assert task.adapter.weight.shape == (8, 16, 1, 1)
    assert task.adapter.weight.grad.abs().sum() > 0
    assert set(networks[0].state_dict()) == set(before), "the adapter went into the student"
    resumed = SpaceTimeDistillation(*networks, DistillationConfig(warm_up=0, features="lr"))
    resumed.load_trained_state(task.trained_state())
    assert torch.equal(resumed.adapter.weight, task.adapter.weight)
    assert SpaceTimeDistillation(*networks, SETTINGS).adapter is None, "equal channels need none"


@pytest.mark.parametrize(("ours", "theirs"), [(64, 16), (16, 64), (8, 8)])
def test_the_adapter_keeps_the_sum_of_squares(networks, ours, theirs):
    student, teacher = networks
    student.lr_channels, teacher.lr_channels = ours, theirs
    adapter = SpaceTimeDistillation(student, teacher, DistillationConfig(features="lr")).adapter
    if adapter is None:
        assert ours == theirs
        return
    given = torch.randn(2, ours, 32, 32)
    torch.testing.assert_close(adapter(given).square().sum(), given.square().sum(), rtol=0.05, atol=0)


def test_attention_is_matched_whatever_the_channels(networks, batch):
    task = SpaceTimeDistillation(*networks, DistillationConfig(warm_up=0, features="lr"))
    task(batch, 0)
    with torch.no_grad():
        ours, theirs = (network(batch.lr).lr_features.square().sum(2).mean() for network in networks)
    torch.testing.assert_close(ours * task.gain**2, theirs, rtol=1e-4, atol=0)


def test_a_teacher_of_any_scale_is_brought_to_the_usual_one(networks, batch):
    task = SpaceTimeDistillation(*networks, DistillationConfig(warm_up=0))
    task.measure_teacher([batch.lr])
    with torch.no_grad():
        attention = networks[1](batch.lr).hr_features.square().sum(2).mean()
    torch.testing.assert_close(attention * task.teacher_gain**2, torch.tensor(0.045))
    resumed = SpaceTimeDistillation(*networks, DistillationConfig(warm_up=0))
    resumed.load_trained_state(task.trained_state())
    assert resumed.teacher_gain == task.teacher_gain
    literal = SpaceTimeDistillation(*networks, DistillationConfig(match_scale=False))
    literal.measure_teacher([batch.lr])
    assert literal.teacher_gain == 1


class OneFeature(FastDVDnet):
    """The student without its low-resolution or without its high-resolution feature."""

    def __init__(self, lacking: str):
        super().__init__(channels=16, blocks=1, widths=(8, 8, 8), frame_channels=4)
        self.lacking = lacking
        setattr(self, f"{lacking}_channels", None)

    def forward(self, clip):
        return super().forward(clip)._replace(**{f"{self.lacking}_features": None})


def test_a_missing_feature_is_gone_around(networks, batch):
    low_only = OneFeature("hr")
    task = SpaceTimeDistillation(low_only, networks[1], DistillationConfig(warm_up=0))
    assert task.features == "lr"
    assert task(batch, 0)["loss"].isfinite()
    with pytest.raises(ConfigError, match="the student's OneFeature"):
        SpaceTimeDistillation(low_only, networks[1], DistillationConfig(features="hr"))
    high_only = OneFeature("lr")
    assert SpaceTimeDistillation(high_only, networks[1], DistillationConfig()).features == "hr"
    task = SpaceTimeDistillation(high_only, networks[1], DistillationConfig(warm_up=0, features="lr"))
    assert task.adapter.weight.shape == (8, 64 * 16, 1, 1)
    parts = task(batch, 0)
    with torch.no_grad():  # laying pixels into channels keeps the sum of squares over each low-resolution pixel
        ours = high_only(batch.lr).hr_features * task.gain
        pooled = torch.nn.functional.avg_pool3d(ours.square().sum(2), (1, 4, 4)) * 16
        theirs = networks[1](batch.lr).lr_features.square().sum(2)
    torch.testing.assert_close(parts["space"], (pooled - theirs).square().mean())


class Doubling(EDVR):
    """A teacher that inserts a wrong frame after each."""

    time_scale = 2

    def forward(self, clip):
        def insert(field):
            return torch.stack((field, field + 100), 2).flatten(1, 2)[:, :-1]

        return super().forward(clip).map(insert)


def test_in_between_frames_of_the_teacher_are_dropped(networks, batch):
    keywords = {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1}
    doubling = Doubling(**keywords)
    doubling.load_state_dict(networks[1].state_dict())
    settings = DistillationConfig(warm_up=0, time=0, match_scale=False)
    plain = SpaceTimeDistillation(*networks, settings)(batch, 0)
    dropped = SpaceTimeDistillation(networks[0], doubling, settings)(batch, 0)
    torch.testing.assert_close(plain, dropped)
    with pytest.raises(ConfigError, match="the teacher must make every"):
        SpaceTimeDistillation(doubling, networks[1], settings)


def test_a_network_that_doubles_the_rate_is_given_every_second_frame():
    network = Doubling(window=3, channels=8, offset_groups=2, extract_blocks=1, reconstruct_blocks=1)
    batch = Batch(torch.rand(1, 5, 3, 8, 8), torch.rand(1, 5, 3, 32, 32))
    expected = (network(batch.lr[:, ::2]).frames - batch.hr).abs().mean()
    torch.testing.assert_close(SpaceTimeDistillation(network, None, SETTINGS)(batch, 0)["loss"], expected)


def test_the_memory_crop_is_a_square_that_moves(networks, batch):
    task = SpaceTimeDistillation(*networks, DistillationConfig(warm_up=0, memory_crop=8))
    seen = []
    task.memory.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    task(batch, 0)
    task(batch, 1)
    assert seen[0].shape[-2:] == (8, 8)
    assert not torch.equal(seen[1], seen[3])


def test_matched_scale_is_set_once_and_kept(networks, batch):
    task = SpaceTimeDistillation(*networks, SETTINGS)
    assert task(batch, 0)
    assert task.gain is None, "set during warm-up"
    task(batch, 2)
    with torch.no_grad():
        ours, theirs = (network(batch.lr).hr_features for network in networks)
    assert task.gain > 0
    first = task.gain
    task(Batch(batch.lr / 2, batch.hr), 3)
    assert task.gain == first
    networks[0].eval()
    fresh = SpaceTimeDistillation(*networks, SETTINGS)
    fresh.student.eval()
    fresh(batch, 2)
    with torch.no_grad():
        ours = networks[0](batch.lr).hr_features
    torch.testing.assert_close((ours * fresh.gain).square().mean(), theirs.square().mean())
    resumed = SpaceTimeDistillation(*networks, SETTINGS)
    resumed.load_trained_state(task.trained_state())
    assert resumed.gain == first
    literal = SpaceTimeDistillation(*networks, DistillationConfig(match_scale=False))
    assert literal.gain == 1


def test_no_teacher_is_reconstruction_alone(networks, batch):
    parts = SpaceTimeDistillation(networks[0], None, SETTINGS)(batch, 100)
    assert set(parts) == {"loss", "reconstruction"}


def test_middle_only_is_the_windows_middle_frame(networks):
    _, network = networks
    task = SpaceTimeDistillation(network.requires_grad_(True), None, SETTINGS, middle_only=True)
    lr, hr = torch.rand(1, 3, 3, 8, 8), torch.rand(1, 3, 3, 32, 32)
    expected = (network(lr).frames[:, 1] - hr[:, 1]).abs().mean()
    torch.testing.assert_close(task(Batch(lr, hr), 0)["loss"], expected, rtol=1e-4, atol=1e-5)
