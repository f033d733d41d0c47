from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import yaml
from torch import Tensor, nn

import students
from distill.errors import CheckFailed, ConfigError, InputError
from distill.interfaces import Upsampled, WindowNetwork
from distill.networks import checkpoint, registry
from distill.networks.opening import named
from export.graphs.graph import traced, windowed_graph
from export.graphs.workload import MANY_AXES, workload
from export.plan.device import Device, Figure, Spread, read_device
from export.plan.estimate import Estimate, badly_run, estimate
from export.plan.plan import _Family, _verdict, _widest, parse_budget, plan_student
from export.plan.variants import variants
from tests.stand_ins.checks import workload_of
from tests.stand_ins.networks import Skip

SIZE = (24, 40)


def figure(value: float) -> Figure:
    return Figure(value, True, "2026-01-31", "a test")


def device(**changes: object) -> Device:
    plain = {"compute": {"fp32": figure(1), "fp16": figure(2)}, "bandwidth": figure(2)}
    return Device("toy", "Toy", "abacus", True, **{**plain, **changes})


class Sampling(WindowNetwork):
    """Has an operator that phones run badly, and a tensor of five axes that no slicing takes apart."""

    window, hr_channels, lr_channels = 3, 3, None

    def reconstruct(self, window: Tensor) -> Upsampled:
        grid = window[:, 0, :2].permute(0, 2, 3, 1)
        moved = nn.functional.grid_sample(window[:, 1], grid, align_corners=False)
        mixed = (window * 2).sum(1) + moved
        return Upsampled(nn.functional.interpolate(mixed, scale_factor=4), mixed, None)


# budgets


@pytest.mark.parametrize(
    ("text", "ms"),
    [("16ms", 16), ("16 ms", 16), (" 0.016s", 16), (".5s", 500), ("60fps", 1000 / 60), ("25 FPS", 40), ("7.5MS", 7.5)],
)
def test_a_budget_is_a_time_or_a_rate(text, ms):
    assert parse_budget(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["16", "ms", "0ms", "-3ms", "16m", "1e3ms", "16ms 60fps", ""])
def test_what_is_no_budget_is_refused_with_examples(text):
    with pytest.raises(ConfigError, match=r"expected a time or a rate for one frame: 16ms, 0.016s or 60fps"):
        parse_budget(text)


# milliseconds


def test_an_estimate_is_a_roofline_over_the_operators():
    work = workload_of(nn.Conv2d(3, 5, 3, padding=1), (1, 3, 10, 10))
    macs, moved = 3 * 5 * 9 * 100, 4 * (300 + 500 + 3 * 5 * 9 + 5)
    by_compute = estimate(work, device(), "fp32")
    assert by_compute.ms == pytest.approx(1e3 * macs / 1e9)
    assert (by_compute.low_ms, by_compute.high_ms) == (by_compute.ms / 2, by_compute.ms * 2)  # assumed: none was given
    by_memory = estimate(work, device(bandwidth=figure(1e-3)), "fp32")
    assert by_memory.ms == pytest.approx(1e3 * moved / 1e6) == by_memory.memory
    assert estimate(work, device(bandwidth=figure(1e-3)), "fp16").ms == pytest.approx(by_memory.ms / 2)
    lanes = estimate(work, device(lanes=figure(4), utilisation=figure(0.5)), "fp32")
    assert lanes.ms == pytest.approx(2 * by_compute.ms * 8 / 5)  # 5 channels fill two groups of 4
    stored = estimate(work, device(bandwidth=figure(1e-3), stored_lanes=figure(8)), "fp32")
    assert stored.ms == pytest.approx(by_memory.ms + 1e3 * 4 * (5 + 3) * 100 / 1e6)
    onchip = estimate(work, device(bandwidth=figure(1e-3), onchip=figure(1.5e-3)), "fp32")  # 1200 bytes in, 2000 out
    assert onchip.ms == pytest.approx(by_memory.ms - 1e3 * 1200 / 1e6)
    started = estimate(work, device(launch=figure(3), run=figure(40), spread=Spread(1, 3, True, "", "")), "fp32")
    assert started.ms == pytest.approx(by_compute.ms + 0.043)
    assert started.high_ms == pytest.approx(3 * started.ms)


def test_the_parts_of_an_estimate_add_up():
    work = workload(traced(windowed_graph(registry.find("vespcn-mobile").build(), SIZE)))
    time = estimate(work, read_device("host"), "fp32")
    assert time.compute + time.memory + time.overhead == pytest.approx(time.ms)
    assert sum(each.ms for each in time.kinds) == pytest.approx(time.ms)
    assert sum(each.macs for each in time.kinds) == work.macs


def test_operators_that_run_badly_are_found_and_counted():
    work = workload(traced(windowed_graph(Sampling(), SIZE)))
    found = {each.operator.kind: each.count for each in badly_run(work, read_device("iphone-15-pro"))}
    assert found["GridSample"] == 1
    assert found[MANY_AXES] >= 1
    assert not badly_run(workload_of(Skip(), (1, 2, 4, 8)), read_device("iphone-15-pro"))


# plans


def test_a_plan_tells_both_modes_and_says_that_nothing_was_measured():
    found = plan_student("fastdvdnet-mobile", SIZE, 16, "snapdragon-8-gen3")
    assert [(row.mode, row.precision) for row in found.candidates] == [
        ("windowed", "fp16"),
        ("windowed", "int8"),
        ("streaming", "fp16"),
        ("streaming", "int8"),
    ]
    document = json.loads(json.dumps(found.document()))
    assert (document["measured"], document["complete"], document["device"]["measured"]) == (False, True, False)
    assert document["estimates"][0]["estimate"]["ms"] == found.candidates[0].estimate.ms
    text = found.text()
    assert "frames of 40x24" in text
    assert "ESTIMATES" in text
    assert "NOT measured" in text
    for each in found.device.figures().values():
        assert each.source in text


def test_what_leaves_the_unit_makes_estimates_lower_bounds():
    found = plan_student(f"{__name__}:Sampling", SIZE, 1000, "iphone-15-pro")
    assert not found.complete
    assert {row.verdict for row in found.candidates} == {"unknown"}
    assert found.widest == ()
    text = found.text()
    assert "leaves the unit: Core ML runs it on the CPU" in text
    assert "lower bounds" in text
    assert plan_student(f"{__name__}:Sampling", SIZE, 1e-9, "iphone-15-pro").candidates[0].verdict == "no"


def test_verdicts_follow_the_interval():
    time = Estimate(10, 5, 20, 10, 0, 0, ())
    budgets = {20: "yes", 19.9: "likely", 10: "likely", 9.9: "unlikely", 5: "unlikely", 4.9: "no"}
    assert {budget: _verdict(time, budget) for budget in budgets} == budgets


def test_the_widest_variant_grows_with_the_budget_and_stays_in_it():
    family, host = _Family(named("vespcn-mobile"), (8, 12)), read_device("host")
    found = [_widest(family, "windowed", "fp32", host, budget) for budget in (0.01, 0.4, 0.8, 1.5, 6, 1000)]
    factors = [each.variant.factor if each.fits else 0 for each in found]
    assert factors == sorted(factors)
    assert len(set(factors)) >= 4
    for each, budget in zip(found, (0.01, 0.4, 0.8, 1.5, 6, 1000), strict=True):
        assert each.fits == (each.estimate.ms <= budget)
    assert not found[0].fits
    assert found[0].variant == family.variants[0]  # what the least that there is would need
    assert found[-1].last
    key, _, value = found[-1].setting.partition("=")  # as `distill train --set` reads it
    assert key == "student_options"
    network = registry.find("vespcn-mobile").build(**yaml.safe_load(value))
    assert workload(traced(windowed_graph(network, (8, 12)))).macs == found[-1].macs


def test_a_file_of_weights_keeps_its_keywords(tmp_path):
    keywords = {"hidden_convs": 1, "channels": 32, "colour": "rgb"}
    path = tmp_path / "student.safetensors"
    checkpoint.save(path, registry.find("vdsr").build(**keywords), checkpoint.Described("vdsr", keywords))
    found = plan_student(str(path), (8, 8), 1000, "host")
    assert found.name == "vdsr"
    assert found.candidates[0].macs == plan_of_same(keywords)
    assert found.widest[0].variant.options == {"hidden_convs": 1, "channels": 128, "colour": "rgb"}
    assert {row.mode for row in found.candidates} == {"windowed"}  # it sees single frames
    setting = f"--set '{found.widest[0].setting}'"
    assert f"windowed fp32: {setting}, " in found.text()
    nothing = replace(found, widest=(replace(found.widest[0], fits=False),))
    assert f"windowed fp32: none; the narrowest, {setting}, needs" in nothing.text()


def plan_of_same(keywords: dict[str, object]) -> int:
    return workload(traced(windowed_graph(registry.find("vdsr").build(**keywords), (8, 8)))).macs


@pytest.mark.parametrize("name", [name for name, (network, _) in students.NETWORKS.items() if network.width_multiples])
def test_every_variant_of_every_family_can_be_built_and_is_wider(name):
    student = named(name)
    parameters = []
    for variant in variants(student):
        with torch.device("meta"):
            network = student.build(**variant.options)
        parameters.append(sum(weight.numel() for weight in network.parameters()))
    assert parameters == sorted(set(parameters))
    assert len(parameters) >= 5
    assert [variant.options for variant in variants(student) if variant.factor == 1] == [{}]


@pytest.mark.parametrize("name", ["fastdvdnet-mobile", "vespcn-mobile"])
def test_mobile_variants_keep_to_multiples_of_16(name):
    for variant in variants(named(name)):
        widths = [
            each for value in variant.options.values() for each in (value if isinstance(value, tuple) else [value])
        ]
        assert all(width % 16 == 0 for width in widths)


# wrong input


class Refusing(WindowNetwork):
    window, hr_channels, lr_channels = 1, 3, None

    def reconstruct(self, window: Tensor) -> Upsampled:
        raise RuntimeError("no tracing here")


@pytest.mark.parametrize(
    ("student", "size", "budget", "error", "complaint"),
    [
        ("fastdvdnet-mobil", SIZE, 16, ConfigError, r"Did you mean 'fastdvdnet-mobile'\?"),
        ("fastdvdnet-mobile", (0, 40), 16, ConfigError, "The size is 40x0, but width and height must be at least 1"),
        ("fastdvdnet-mobile", SIZE, 0, ConfigError, "The budget is 0 ms, expected more than 0"),
        ("fastdvdnet-mobile", SIZE, float("nan"), ConfigError, "The budget is nan ms"),
        ("basicvsr", SIZE, 16, InputError, "basicvsr-bi is not a network of fixed windows"),
        ("runs/nothing.safetensors", SIZE, 16, InputError, "nothing.safetensors"),
        (f"{__name__}:Refusing", SIZE, 16, CheckFailed, "Refusing cannot be traced: no tracing here"),
    ],
)
def test_wrong_input_is_answered_with_one_sentence(student, size, budget, error, complaint):
    with pytest.raises(error, match=complaint):
        plan_student(student, size, budget, "host")
