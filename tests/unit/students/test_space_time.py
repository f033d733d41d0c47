"""Space-time students: shapes, order, the same frames by every path, gradients, files; and STVUN as such a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from distill.errors import ConfigError
from distill.interfaces import ClipNetwork, Step, Upsampled, WindowNetwork, repeat_edges, windows
from distill.networks import checkpoint, registry
from distill.networks.checkpoint import Described
from distill.networks.costs import multiply_accumulates
from students.space_time import SpaceTime
from teachers.stvun import STVUN, SpaceTimeSTVUN
from tests.stand_ins.networks import randomise, randomise_with_statistics

THIN = {
    "fastdvdnet": {"channels": 16, "blocks": 1, "widths": (8, 8, 8), "frame_channels": 4},
    "fastdvdnet-half": {"channels": 8, "blocks": 1, "widths": (8, 8, 8), "frame_channels": 4},
    "fastdvdnet-quarter": {"channels": 4, "blocks": 1, "widths": (8, 8, 8), "frame_channels": 4},
    "fastdvdnet-mobile": {"widths": (16, 16, 16)},
    "vespcn": {"widths": (8, 8), "motion_width": 4},
    "vespcn-loseall": {"channels": 8, "blocks": 1, "motion_width": 4},
    "vespcn-std": {"channels": 8, "depth": 1, "motion_width": 4},
    "vespcn-mobile": {"widths": (16, 16, 16), "channels": (16, 16)},
    "vdsr": {"hidden_convs": 1, "channels": 8},
    "vdsr-rgb": {"hidden_convs": 1, "channels": 8},
    "vsrnet": {"widths": (8, 8), "kernels": (3, 3, 3)},
    "vsrnet-std": {"hidden_convs": 1, "channels": 8},
    "d3dnet": {"channels": 8, "align_blocks": 1, "reconstruct_blocks": 1},
    "sofvsr": {"channels": 16, "flow_blocks": 1, "blocks": 1},
}
ODD = (10, 13)


def student(name: str) -> SpaceTime:
    network = registry.find(name).build(time_scale=2, **THIN[name])
    assert isinstance(network, SpaceTime)
    return network


def trained(name: str) -> SpaceTime:
    """Weights and statistics as after a training; nothing is silent."""
    network = randomise_with_statistics(student(name))
    assert isinstance(network, SpaceTime)
    return network


def test_every_student_that_upscales_is_here() -> None:
    upscaling = {entry.name for entry in registry.entries() if entry.role == "student" and not entry.elsewhere}
    assert upscaling - {"fastdvdnet-denoiser"} == THIN.keys()


@pytest.mark.parametrize("name", THIN)
def test_frames_and_features_come_in_order_and_the_given_ones_stay(name: str) -> None:
    network = trained(name)
    clip = torch.rand(2, 3, 3, *ODD)
    with torch.no_grad():
        restored, alone = network(clip), network.spatial(clip)
        middle, single = network(clip[:, 1:2]), network.spatial(clip[:, 1:2])
    for field, given, channels, side in (
        (restored.frames, alone.frames, 3, 4),
        (restored.hr_features, alone.hr_features, network.hr_channels, 4),
        (restored.lr_features, alone.lr_features, network.lr_channels, 1),
    ):
        if channels is None:
            assert field is None
            continue
        assert field.shape == (2, 5, channels, side * ODD[0], side * ODD[1])
        limit = 1e-5 * max(1.0, given.abs().max().item())
        torch.testing.assert_close(field[:, ::2], given, rtol=0, atol=limit)
        assert (field[:, 1::2] - (given[:, 1:] + given[:, :-1]) / 2).abs().max() > 1e-3, "nothing but means"
    assert middle.frames.shape == single.frames.shape == (2, 1, 3, 40, 52)


def runs(network: SpaceTime, clip: Tensor) -> Tensor:
    """By windows of frames, as a windowed file computes."""
    made = [network.run(frames[None]) for frames in windows(clip[None], network.window, 1)[0]]
    return torch.cat([picture for pictures in made for picture in pictures])[1:]


def steps(network: SpaceTime, clip: Tensor) -> Tensor:
    """Frame by frame with memories, as a streaming file computes."""
    step: Step = network.step()
    memories, made = step.start(clip[:1]), []
    for frame in repeat_edges(clip, network.window // 2):
        between, restored, *rest = step(frame[None], *memories)
        assert [tuple(each.shape) for each in rest] == [each.shape(*clip.shape[-2:]) for each in step.memories]
        memories = tuple(rest)
        made += [between, restored]
    return torch.cat(made)[4 * (network.window // 2) + 1 :]


@pytest.mark.parametrize("name", THIN)
def test_every_path_gives_the_same_frames(name: str) -> None:
    network = trained(name)
    for length in (1, 4):
        clip = torch.rand(length, 3, *ODD)
        with torch.no_grad():
            whole = network(clip[None]).frames[0]
            streamed = torch.stack(list(network.stream(iter(clip))))
            others = runs(network, clip), steps(network, clip)
        limit = 1e-5 * max(1.0, whole.abs().max().item())
        for frames in (streamed, *others):
            torch.testing.assert_close(frames, whole, rtol=0, atol=limit)


def test_a_stream_is_read_no_further_than_it_must_be() -> None:
    network = trained("vespcn-mobile")
    read = 0

    def source():
        nonlocal read
        for _ in range(9):
            read += 1
            yield torch.rand(3, 8, 8)

    with torch.no_grad():
        seen = [read for _ in network.stream(source())]
    assert seen == [2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 9, 9]
    assert list(network.stream(iter([]))) == []


@pytest.mark.parametrize("name", ["fastdvdnet", "vespcn-mobile", "vdsr-rgb"])
def test_a_fresh_head_gives_the_enlarged_mean_and_learns_at_once(name: str) -> None:
    network = student(name)
    clip = torch.rand(1, 3, 3, *ODD)
    restored = network(clip)
    mean = (clip[0, 1:] + clip[0, :-1]) / 2
    enlarged = functional.interpolate(mean, scale_factor=4, mode="bicubic", align_corners=False)
    torch.testing.assert_close(restored.frames[0, 1::2], enlarged, rtol=0, atol=1e-6)
    if restored.lr_features is not None:
        given = restored.lr_features[:, ::2]
        mean = (given[:, 1:] + given[:, :-1]) / 2
        change = restored.lr_features[:, 1::2] - mean
        assert 0 < change.square().mean() < 0.2 * mean.square().mean()
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    last = network.head.tail.conv if network.hr_channels is None else network.head.tail.last
    for learns in (last.weight, network.head.motion.leave.weight):  # the first step, and with it the second
        optimiser.zero_grad()
        network(clip).frames[:, 1::2].sub(0.5).square().mean().backward()
        assert learns.grad.abs().max() > 0
        optimiser.step()


@pytest.mark.parametrize("name", ["fastdvdnet", "vespcn-mobile", "vsrnet"])
def test_gradients_of_frames_in_between_reach_all_of_the_head_and_the_student(name: str) -> None:
    network = trained(name)
    network(torch.rand(1, 2, 3, *ODD)).frames[:, 1].square().mean().backward()
    for part, parameter in network.named_parameters():
        if part.startswith("head."):
            assert parameter.grad is not None, part
            assert parameter.grad.abs().max() > 0, part
    assert any(each.grad is not None and each.grad.abs().max() > 0 for each in network.spatial.parameters())


def test_gradients_of_given_frames_leave_the_head_alone() -> None:
    network = trained("vespcn-mobile")
    network(torch.rand(1, 2, 3, *ODD)).frames[:, ::2].square().mean().backward()
    assert all(each.grad is None or not each.grad.any() for each in network.head.parameters())


def macs(module: Step) -> int:
    frame = torch.empty(1, 3, 120, 180, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(frame, *module.start(frame))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", ["fastdvdnet-mobile", "vespcn-mobile"])
def test_a_phone_can_afford_the_frames_in_between(name: str) -> None:
    with torch.device("meta"):
        network = registry.find(name).build(time_scale=2).eval()
        assert isinstance(network, SpaceTime)
        spatial = macs(network.spatial.step())
        assert macs(network.step()) - spatial < 0.5 * spatial


def test_training_in_half_precision() -> None:
    network = student("fastdvdnet")
    clip = torch.rand(1, 2, 3, 8, 8)
    expected = network(clip).frames
    with torch.autocast("cpu", torch.bfloat16):
        restored = network(clip)
    torch.testing.assert_close(restored.frames.float(), expected, rtol=0, atol=1e-6)


def test_files_reopen(tmp_path: Path) -> None:
    network = trained("vespcn-mobile")
    keywords = {**THIN["vespcn-mobile"], "time_scale": 2}
    checkpoint.save(tmp_path / "student.safetensors", network, Described("vespcn-mobile", keywords))
    again = checkpoint.read(tmp_path / "student.safetensors")
    assert isinstance(again.network, SpaceTime)
    assert again.described.keywords["time_scale"] == 2
    clip = torch.rand(1, 2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.network(clip).frames, network(clip).frames)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("edvr-s", {"time_scale": 2}, "edvr-s is a teacher, and time_scale=2 is for students"),
        ("basicvsr-bi", {"time_scale": 2}, "basicvsr-bi is a teacher"),
        ("fastdvdnet-denoiser", {"time_scale": 2}, "fastdvdnet-denoiser keeps the size of its frames"),
        ("tests.unit.students.test_space_time:Whole", {"time_scale": 2}, "Whole sees no window of frames"),
        ("vdsr", {"time_scale": 3}, "time_scale is 3; a network keeps the frame rate with 1 or doubles it with 2"),
        ("vdsr", {"time_scale": "2"}, "time_scale is '2'"),
        ("vdsr", {"time_scale": 2, "chanels": 3}, "Did you mean 'channels'"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(name: str, keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        registry.find(name).build(**keywords)
    assert str(caught.value).count("\n") == 0


class Whole(ClipNetwork):
    """From elsewhere, without windows."""

    hr_channels, lr_channels = 3, 3

    def forward(self, clip: Tensor) -> Upsampled:
        return Upsampled(clip, clip, clip)


class OwnKeyword(Whole):
    """Takes the keyword itself."""

    def __init__(self, time_scale: int = 1) -> None:
        super().__init__()
        self.time_scale = time_scale


def test_a_class_that_takes_the_keyword_itself_gets_it() -> None:
    network = registry.find("tests.unit.students.test_space_time:OwnKeyword").build(time_scale=2)
    assert network.time_scale == 2
    assert not isinstance(network, SpaceTime)


def test_time_scale_1_is_the_student_itself() -> None:
    assert isinstance(registry.find("vdsr").build(time_scale=1, **THIN["vdsr"]), WindowNetwork)


# --- STVUN ---


@pytest.fixture(scope="module")
def both() -> tuple[STVUN, SpaceTimeSTVUN]:
    """The network of windows and the one that doubles the frame rate, of the same weights."""
    plain, doubling = STVUN(channels=4, window=3), SpaceTimeSTVUN(channels=4, window=3)
    doubling.load_state_dict(randomise(plain, gain=0.7).state_dict())
    return plain, doubling.eval()


def test_stvun_gives_what_its_between_gives(both: tuple[STVUN, SpaceTimeSTVUN]) -> None:
    plain, doubling = both
    clip = torch.rand(1, 3, 3, 6, 9)
    with torch.no_grad():
        restored, alone = doubling(clip), plain(clip)
        halfway = torch.cat([plain.between(window[None], [0.5])[0] for window in windows(clip, 3)[0, :-1]])
        single = doubling(clip[:, :1])
    torch.testing.assert_close(restored.frames[:, ::2], alone.frames)
    torch.testing.assert_close(restored.lr_features[:, ::2], alone.lr_features)
    torch.testing.assert_close(restored.frames[0, 1::2], halfway)
    assert restored.lr_features.shape == (1, 5, 4, 6, 9)
    assert single.frames.shape == (1, 1, 3, 24, 36)


def test_stvun_streams_what_the_whole_clip_gives(both: tuple[STVUN, SpaceTimeSTVUN]) -> None:
    _, doubling = both
    clip = torch.rand(1, 8, 3, 4, 4)
    with torch.no_grad():
        whole = doubling(clip).frames[0]
        doubling.chunk = 6
        streamed = torch.stack(list(doubling.stream(iter(clip[0]))))
    torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-4)


def test_stvun_can_be_named() -> None:
    with torch.device("meta"):
        for name, channels in (("stvun-s-2x", 14), ("stvun-l-2x", 64)):
            network = registry.find(name, "teacher").build()
            assert (network.time_scale, network.lr_channels) == (2, channels)


def test_costs_are_of_two_windows_and_a_head() -> None:
    with torch.device("meta"):
        network = registry.find("vespcn-mobile").build(time_scale=2).eval()
        assert isinstance(network, SpaceTime)
        window = multiply_accumulates(network.spatial)
        assert 2 * window < multiply_accumulates(network) < 2.5 * window
