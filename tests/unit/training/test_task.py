from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.data import Batch
from distill.errors import ConfigError
from distill.losses.attention import space_distance
from distill.losses.charbonnier import charbonnier
from distill.losses.mean_map import mean_map_distance
from distill.losses.memory import Time
from distill.losses.methods import METHODS, resolve
from distill.losses.term import channel_adapter
from distill.training.task import Distillation, Lesson, Teacher
from students.fastdvdnet import FastDVDnet
from teachers.edvr import EDVR

SETTINGS = {"weights": {"space": 1, "time": 100}, "warm_up": 2}
SMALL = {"window": 3, "channels": 8, "offset_groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1}


@pytest.fixture
def networks():
    student = FastDVDnet(channels=16, blocks=1, widths=(8, 8, 8), frame_channels=4)
    teacher = EDVR(**SMALL)
    for network in (student, teacher):
        torch.nn.init.normal_(network.tail.conv_last.weight, std=0.05)
    return student, teacher


@pytest.fixture
def batch():
    return Batch(torch.rand(1, 3, 3, 8, 8), torch.rand(1, 3, 3, 32, 32))


def distillation(student, teachers, method="std", weights=None, truth=None, features=None, **numbers) -> Distillation:
    """The task of a method with a recipe's changes, of one teacher or several."""
    teachers = [Teacher(teachers)] if isinstance(teachers, nn.Module) else teachers
    chosen = resolve(method, weights or {}, truth=truth, features=features)
    return Distillation(student, teachers, chosen.weights, truth=chosen.truth, features=chosen.features, **numbers)


def lesson(task: Distillation) -> Lesson:
    """What the only teacher teaches."""
    (only,) = task.lessons
    return only


def memory(task: Distillation) -> Time:
    return lesson(task).terms["time"]


def test_warm_up_is_reconstruction_alone_then_the_weighted_sum(networks, batch):
    task = distillation(*networks, **SETTINGS).train()
    assert set(task(batch, 1)) == {"loss", "reconstruction"}
    parts = task(batch, 2)
    total = parts["reconstruction"] + 1 * parts["space"] + 100 * parts["time"]
    torch.testing.assert_close(parts["loss"], total)
    assert parts["space"] > 0
    assert parts["time"] > 0


def test_the_student_and_the_memory_learn_and_the_teacher_does_not(networks, batch):
    student, teacher = networks
    task = distillation(student, teacher, **SETTINGS).train()
    assert student.training
    assert not teacher.training
    task(batch, 5)["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert memory(task).memory.conv.weight.grad.abs().sum() > 0


TAUGHT = ["output", "std", "std-lr", "space", "time", "attention-sum", "attention-max", "output+std", "fitnet"]
TAUGHT += ["fitnet-lr", "mean", "attention-transfer", "affinity", "frequency", "temporal"]


@pytest.mark.parametrize("method", TAUGHT)
def test_every_method_teaches_the_student_and_no_teacher(networks, batch, method):
    student, teacher = networks
    settings = {"method": method, "warm_up": 0, "truth": 0, "memory_crop": 8}
    task = distillation(student, teacher, **settings).train()
    parts = task(batch, 0)
    assert set(parts) == {"loss", "reconstruction", *METHODS[method].weights}
    total = sum(weight * parts[name] for name, weight in METHODS[method].weights.items())
    torch.testing.assert_close(parts["loss"], total)
    parts["loss"].backward()
    assert sum(p.grad.abs().sum() for p in student.parameters() if p.grad is not None) > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_students_own_tensors_are_all_that_it_has(networks):
    before = set(networks[0].state_dict())
    distillation(*networks, **SETTINGS)
    assert set(networks[0].state_dict()) == before


def test_the_memory_freezes_once_its_term_is_under_1e_8(networks):
    task = distillation(*networks, **SETTINGS)
    weight = memory(task).memory.conv.weight
    task.after_step({"time": 1.1e-8})
    assert weight.requires_grad
    task.after_step({"time": 0.9e-8})
    assert not weight.requires_grad
    task.after_step({"time": 1.0})
    assert not weight.requires_grad, "it thawed"


def test_each_teachers_memory_freezes_by_its_own_term(networks):
    task = distillation(networks[0], [Teacher(networks[1], name) for name in ("one", "two")], **SETTINGS)
    task.after_step({"time one": 1.0, "time two": 1e-9})
    assert [each.terms["time"].frozen for each in task.lessons] == [False, True]


def test_a_frozen_memory_stays_frozen_when_resumed(networks):
    task = distillation(*networks, **SETTINGS)
    memory(task).freeze()
    resumed = distillation(*networks, **SETTINGS)
    resumed.load_trained_state(task.trained_state())
    assert not memory(resumed).memory.conv.weight.requires_grad
    torch.testing.assert_close(memory(resumed).memory.conv.weight, memory(task).memory.conv.weight)


def test_lr_features_are_compared_where_asked(networks, batch):
    space_only = {"method": "space", "warm_up": 0, "features": "lr", "match_scale": False, "weights": {"space": 1}}
    parts = distillation(*networks, **space_only)(batch, 0)
    assert "time" not in parts
    expected = space_distance(*(network(batch.lr).lr_features for network in networks))
    torch.testing.assert_close(parts["space"], expected)
    by_method = {"method": "std-lr", "warm_up": 0, "match_scale": False}
    torch.testing.assert_close(distillation(*networks, **by_method)(batch, 0)["space"], expected)
    changed = {"method": "std-lr", "warm_up": 0, "match_scale": False, "features": "hr"}
    expected = space_distance(*(network(batch.lr).hr_features for network in networks))
    torch.testing.assert_close(distillation(*networks, **changed)(batch, 0)["space"], expected)


def test_terms_of_both_kinds_of_features_go_together(networks, batch):
    settings = {"method": "space", "warm_up": 0, "weights": {"mean": 1}, "match_scale": False}
    parts = distillation(*networks, **settings)(batch, 0)
    ours, theirs = (network(batch.lr) for network in networks)
    torch.testing.assert_close(parts["space"], space_distance(ours.hr_features, theirs.hr_features))
    torch.testing.assert_close(parts["mean"], mean_map_distance(ours.lr_features, theirs.lr_features))


def test_unequal_channels_meet_in_a_training_only_convolution(networks, batch):
    settings = {"warm_up": 0, "features": "lr"}
    task = distillation(*networks, **settings).train()
    before = set(networks[0].state_dict())
    parts = task(batch, 0)
    parts["time"].backward()
    adapter = memory(task).adapter
    assert adapter.weight.shape == (8, 16, 1, 1)
    assert adapter.weight.grad.abs().sum() > 0
    assert set(networks[0].state_dict()) == before, "the adapter went into the student"
    resumed = distillation(*networks, **settings)
    resumed.load_trained_state(task.trained_state())
    assert torch.equal(memory(resumed).adapter.weight, adapter.weight)
    equal = memory(distillation(*networks, **SETTINGS)).adapter
    assert not list(equal.parameters()), "equal channels need none"


@pytest.mark.parametrize(("ours", "theirs"), [(64, 16), (16, 64), (8, 8)])
def test_the_adapter_keeps_the_sum_of_squares(ours, theirs):
    given = torch.randn(2, ours, 32, 32)
    adapted = channel_adapter(ours, theirs)(given)
    assert adapted.shape == (2, theirs, 32, 32)
    torch.testing.assert_close(adapted.square().sum(), given.square().sum(), rtol=0.05, atol=0)


def test_attention_is_matched_whatever_the_channels(networks, batch):
    task = distillation(*networks, warm_up=0, features="lr")
    task(batch, 0)
    with torch.no_grad():
        ours, theirs = (network(batch.lr).lr_features.square().sum(2).mean() for network in networks)
    torch.testing.assert_close(ours * lesson(task).gains["lr"] ** 2, theirs, rtol=1e-4, atol=0)


def test_a_teacher_of_any_scale_is_brought_to_the_usual_one(networks, batch):
    task = distillation(*networks, warm_up=0)
    task.measure_teachers([batch.lr])
    gain = lesson(task).teacher_gains["hr"]
    with torch.no_grad():
        attention = networks[1](batch.lr).hr_features.square().sum(2).mean()
    torch.testing.assert_close(attention * gain**2, torch.tensor(0.045))
    resumed = distillation(*networks, warm_up=0)
    resumed.load_trained_state(task.trained_state())
    assert lesson(resumed).teacher_gains == {"hr": gain}
    literal = distillation(*networks, match_scale=False)
    literal.measure_teachers([batch.lr])
    assert lesson(literal).teacher_gains == {"hr": 1}


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
    task = distillation(low_only, networks[1], warm_up=0)
    assert lesson(task).kinds == ["lr"]
    assert task(batch, 0)["loss"].isfinite()
    with pytest.raises(ConfigError, match="the student's OneFeature"):
        distillation(low_only, networks[1], features="hr")
    high_only = OneFeature("lr")
    assert lesson(distillation(high_only, networks[1])).kinds == ["hr"]
    task = distillation(high_only, networks[1], warm_up=0, features="lr")
    assert memory(task).adapter.weight.shape == (8, 64 * 16, 1, 1)
    parts = task(batch, 0)
    with torch.no_grad():  # laying pixels into channels keeps the sum of squares over each low-resolution pixel
        ours = high_only(batch.lr).hr_features * lesson(task).gains["lr"]
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
    doubling = Doubling(**SMALL)
    doubling.load_state_dict(networks[1].state_dict())
    settings = {"method": "space", "warm_up": 0, "weights": {"output": 1}, "match_scale": False}
    plain = distillation(*networks, **settings)(batch, 0)
    dropped = distillation(networks[0], doubling, **settings)(batch, 0)
    torch.testing.assert_close(plain, dropped)
    with pytest.raises(ConfigError, match="the teacher must make every"):
        distillation(doubling, networks[1], **settings)


def test_a_network_that_doubles_the_rate_is_given_every_second_frame():
    network = Doubling(**SMALL)
    batch = Batch(torch.rand(1, 5, 3, 8, 8), torch.rand(1, 5, 3, 32, 32))
    expected = (network(batch.lr[:, ::2]).frames - batch.hr).abs().mean()
    torch.testing.assert_close(distillation(network, [], **SETTINGS)(batch, 0)["loss"], expected)


def test_the_memory_crop_is_a_square_that_moves(networks, batch):
    task = distillation(*networks, warm_up=0, memory_crop=8)
    seen = []
    memory(task).memory.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    task(batch, 0)
    task(batch, 1)
    assert seen[0].shape[-2:] == (8, 8)
    assert not torch.equal(seen[1], seen[3])


def test_matched_scale_is_set_once_and_kept(networks, batch):
    task = distillation(*networks, **SETTINGS)
    task(batch, 0)
    assert lesson(task).gains == {}, "set during warm-up"
    task(batch, 2)
    first = lesson(task).gains["hr"]
    assert first > 0
    task(Batch(batch.lr / 2, batch.hr), 3)
    assert lesson(task).gains["hr"] == first
    fresh = distillation(*networks, **SETTINGS)
    fresh.student.eval()
    fresh(batch, 2)
    with torch.no_grad():
        ours, theirs = (network(batch.lr).hr_features for network in networks)
    torch.testing.assert_close((ours * lesson(fresh).gains["hr"]).square().mean(), theirs.square().mean())
    resumed = distillation(*networks, **SETTINGS)
    resumed.load_trained_state(task.trained_state())
    assert lesson(resumed).gains["hr"] == first
    literal = distillation(*networks, match_scale=False)
    assert lesson(literal).gains["hr"] == 1


def test_no_teacher_is_reconstruction_alone(networks, batch):
    parts = distillation(networks[0], [], **SETTINGS)(batch, 100)
    assert set(parts) == {"loss", "reconstruction"}


def test_several_teachers_are_a_weighted_sum(networks, batch):
    student, first = networks
    second = EDVR(**SMALL)
    torch.nn.init.normal_(second.tail.conv_last.weight, std=0.05)
    settings = {"method": "output", "warm_up": 0, "weights": {"output": 2}}
    task = distillation(student, [Teacher(first, "one", 0.7), Teacher(second, "two", 0.3)], **settings).train()
    parts = task(batch, 0)
    assert set(parts) == {"loss", "reconstruction", "output one", "output two"}
    alone = [distillation(student, teacher, **settings)(batch, 0)["output"] for teacher in (first, second)]
    torch.testing.assert_close([parts["output one"], parts["output two"]], alone)
    total = parts["reconstruction"] + 2 * (0.7 * alone[0] + 0.3 * alone[1])
    torch.testing.assert_close(parts["loss"], total)
    parts["loss"].backward()
    assert all(parameter.grad is None for teacher in (first, second) for parameter in teacher.parameters())
    resumed = distillation(student, [Teacher(first, "one", 0.7), Teacher(second, "two", 0.3)], **settings)
    resumed.load_trained_state(task.trained_state())
    torch.testing.assert_close(resumed.train()(batch, 0)["loss"], parts["loss"])


def test_the_teachers_frames_are_mixed_with_the_truth(networks, batch):
    settings = {"method": "output", "weights": {"output": 0.5}, "truth": 0.25, "warm_up": 1}
    task = distillation(*networks, **settings)
    warm = task(batch, 0)
    torch.testing.assert_close(warm["loss"], warm["reconstruction"])
    parts = task(batch, 1)
    restored, taught = (network(batch.lr).frames for network in networks)
    expected = 0.25 * charbonnier(restored, batch.hr) + 0.5 * charbonnier(restored, taught)
    torch.testing.assert_close(parts["loss"], expected)
    torch.testing.assert_close(parts["reconstruction"], charbonnier(restored, batch.hr), msg="parts are unweighted")


def test_none_and_the_warm_up_ask_the_teacher_nothing(networks, batch):
    asked = []
    networks[1].register_forward_hook(lambda *_: asked.append(1))
    parts = distillation(*networks, method="none", warm_up=0)(batch, 5)
    assert set(parts) == {"loss", "reconstruction"}
    distillation(*networks, **SETTINGS)(batch, 1)
    assert not asked
    distillation(*networks, **SETTINGS)(batch, 2)
    assert asked == [1], "the teacher restores a clip once for all terms"


def test_a_method_none_with_a_weight_is_that_term(networks, batch):
    settings = {"method": "none", "weights": {"output": 1}, "warm_up": 0}
    assert set(distillation(*networks, **settings)(batch, 0)) == {"loss", "reconstruction", "output"}


def test_footage_without_truth_is_supervised_by_the_teacher(networks, batch):
    unlabelled = Batch(batch.lr, None)
    task = distillation(*networks, method="output+std", warm_up=0, memory_crop=None)
    parts = task(unlabelled, 0)
    assert set(parts) == {"loss", "output", "space", "time"}
    labelled = task(batch, 0)
    torch.testing.assert_close(
        {name: labelled[name] for name in ("output", "space", "time")},
        {n: parts[n] for n in ("output", "space", "time")},
    )
    torch.testing.assert_close(parts["loss"], labelled["loss"] - labelled["reconstruction"])
    parts["loss"].backward()
    assert networks[0].tail.conv_last.weight.grad.abs().sum() > 0


def test_middle_only_is_the_windows_middle_frame(networks):
    _, network = networks
    task = distillation(network.requires_grad_(True), [], **SETTINGS, middle_only=True)
    lr, hr = torch.rand(1, 3, 3, 8, 8), torch.rand(1, 3, 3, 32, 32)
    expected = (network(lr).frames[:, 1] - hr[:, 1]).abs().mean()
    torch.testing.assert_close(task(Batch(lr, hr), 0)["loss"], expected, rtol=1e-4, atol=1e-5)
