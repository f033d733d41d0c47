from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.data import bicubic_upsample, degrade
from distill.errors import ConfigError, DataError
from distill.interfaces import ClipNetwork, Upsampled, VideoNetwork, WindowNetwork
from distill.metrics.evaluate import PSNR_LIMIT, evaluate
from distill.metrics.psnr_ssim import luma, psnr, ssim, to_8_bit
from distill.metrics.scores import convention_sentence
from distill.metrics.temporal import TemporalConsistency
from students.fastdvdnet import FastDVDnet
from tests.stand_ins.clips import MemoryClip, noise_clip


class Bicubic(WindowNetwork):
    """The baseline as a network of three modules, to see what happens to their modes."""

    window, hr_channels, lr_channels = 5, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(3)
        self.modes: list[bool] = []

    def reconstruct(self, window: Tensor) -> Upsampled:
        self.modes.append(self.training or self.frozen.training)
        middle = window[:, self.window // 2]
        up = bicubic_upsample(middle, self.scale)
        return Upsampled(up, up, middle)


class Oracle(Bicubic):
    """Knows the truth of every low-resolution frame; what it never saw it leaves grey."""

    def __init__(self, clip: MemoryClip, degradation: str) -> None:
        super().__init__()
        self.known = {}
        for picture in clip.pictures:
            truth = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
            self.known[degrade(truth, degradation).numpy().tobytes()] = truth

    def reconstruct(self, window: Tensor) -> Upsampled:
        middle = window[0, self.window // 2]
        up = self.known[middle.numpy().tobytes()].unsqueeze(0)
        return Upsampled(up, up, middle.unsqueeze(0))


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_baseline_is_the_mean_over_frames_of_a_direct_computation(channel: str) -> None:
    clip = noise_clip("noise", 4)
    expected = []
    for picture in clip.pictures:
        truth = torch.from_numpy(picture).permute(2, 0, 1)
        restored = to_8_bit(bicubic_upsample(degrade(truth.float() / 255, "bd")))
        pair = (luma(restored), luma(truth)) if channel == "y" else (restored, truth)
        expected.append((psnr(*pair, crop=2), ssim(*pair, crop=2)))
    score = evaluate(None, [clip], degradation="bd", channel=channel, crop=2).clips["noise"]  # type: ignore[arg-type]
    assert (score.psnr, score.ssim) == pytest.approx(tuple(np.mean(expected, 0)), abs=1e-9)
    assert score.frames == 4


def test_a_network_that_equals_the_baseline_scores_the_same() -> None:
    clips = [noise_clip("a", 3), noise_clip("b", 1)]  # both shorter than the window
    assert evaluate(Bicubic(), clips, degradation="bi").to_json() == evaluate(None, clips, degradation="bi").to_json()


def test_every_frame_meets_its_own_truth() -> None:
    clip = noise_clip("truth", 9)
    counted: list[int] = []
    result = evaluate(Oracle(clip, "bi"), [clip], degradation="bi", progress=counted.append)
    assert result.clips["truth"].psnr == PSNR_LIMIT
    assert result.clips["truth"].ssim == pytest.approx(1, abs=1e-12)
    assert counted == [1] * 9


def test_a_single_wrong_frame_at_the_edge_shows() -> None:
    clip = noise_clip("edge", 6)
    for wrong in (0, 5):
        oracle = Oracle(clip, "bi")
        key = list(oracle.known)[wrong]
        oracle.known[key] = 1 - oracle.known[key]
        assert evaluate(oracle, [clip], degradation="bi").clips["edge"].psnr < PSNR_LIMIT * 0.9


def test_only_as_many_frames_wait_as_the_network_looks_ahead() -> None:
    clip = noise_clip("long", 12)
    ahead: list[int] = []
    evaluate(Bicubic(), [clip], degradation="bi", progress=lambda _: ahead.append(clip.given - len(ahead)))
    assert max(ahead) == Bicubic.window // 2 + 1


def test_first_frames_only() -> None:
    clip = noise_clip("quick", 12)
    result = evaluate(Bicubic(), [clip], degradation="bi", frames=4)
    assert result.clips["quick"].frames == clip.given == 4
    assert result.convention["frames"] == 4
    assert result.table().splitlines()[-1].count("the first 4 frames at most") == 1


def test_sides_are_cut_at_the_bottom_and_the_right_to_multiples_of_the_scale() -> None:
    whole = noise_clip("odd", 2, 50, 67)
    cut = MemoryClip("odd", [picture[:48, :64] for picture in whole.pictures])
    assert evaluate(None, [whole], degradation="bi") == evaluate(None, [cut], degradation="bi")


def test_the_three_degradations_score_apart() -> None:
    clip = noise_clip("which", 2)
    scores = {name: evaluate(None, [clip], degradation=name).psnr for name in ("bi", "bd", "bd-centred")}
    assert scores["bi"] > scores["bd-centred"] > scores["bd"] + 1


def test_modes_are_evaluation_within_and_as_before_afterwards() -> None:
    network = Bicubic().train()
    network.frozen.eval()
    evaluate(network, [noise_clip("modes", 2)], degradation="bi")
    assert network.modes == [False, False]
    assert network.training
    assert not network.frozen.training
    with pytest.raises(DataError):
        evaluate(network, [noise_clip("small", 2, 8, 8)], degradation="bi")
    assert network.training


def test_average_counts_clips_alike() -> None:
    result = evaluate(None, [noise_clip("one", 1), noise_clip("five", 5)], degradation="bi")
    one, five = result.clips["one"], result.clips["five"]
    assert one.psnr != five.psnr
    assert result.psnr == pytest.approx((one.psnr + five.psnr) / 2)
    assert result.ssim == pytest.approx((one.ssim + five.ssim) / 2)


def test_json_has_the_promised_form_and_no_infinity() -> None:
    clip = noise_clip("same", 2)
    written = json.loads(json.dumps(evaluate(Oracle(clip, "bi"), [clip], degradation="bi").to_json(), allow_nan=False))
    assert written == {
        "clips": {"same": {"psnr": 100.0, "ssim": pytest.approx(1), "frames": 2}},
        "average": {"psnr": 100.0, "ssim": pytest.approx(1)},
        "convention": {"channel": "y", "crop": 0, "degradation": "bi", "scale": 4, "frames": "all", "time_scale": 1},
    }


def test_table_ends_with_the_convention() -> None:
    lines = evaluate(None, [noise_clip("a-long-name", 2)], degradation="bd", channel="rgb", crop=4).table().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["clip", "a-long-name", "average"]
    assert lines[-1] == "RGB (8 bit), 4 pixels cropped at every edge, all frames, degradation bd x4"


def test_the_convention_of_an_evaluation_is_that_of_its_json() -> None:
    result = evaluate(None, [noise_clip("noise", 2)], degradation="bi", frames=1)
    assert result.convention_sentence == result.table().splitlines()[-1]
    assert convention_sentence(result.to_json()["convention"]) == result.convention_sentence
    counted = convention_sentence(
        {"channel": "y", "crop": 0, "degradation": "bi", "scale": 4, "frames": "all"}, clips=3
    )
    assert counted == "Y (BT.601, rounded to 8 bit), no border cropped, 3 clips, all frames, degradation bi x4"


def test_another_scale_is_refused_before_a_frame_is_read() -> None:
    clip = noise_clip("scale", 1)
    with pytest.raises(ConfigError, match="upscales by 4 but an evaluation at scale 2"):
        evaluate(Bicubic(), [clip], degradation="bi", scale=2)
    assert clip.given == 0
    assert evaluate(None, [clip], degradation="bi", scale=2).convention["scale"] == 2


class Doubling(ClipNetwork):
    """Twice the frame rate, as STINet: what it makes between two frames is three quarters the later one."""

    time_scale, chunk, overlap, hr_channels, lr_channels = 2, 3, 1, 3, 3

    def forward(self, clip: Tensor) -> Upsampled:
        ups = [bicubic_upsample(frame, self.scale) for frame in clip.unbind(1)]
        frames = ups[:1]
        for before, after in pairwise(ups):
            frames += [before / 4 + after * 3 / 4, after]
        return Upsampled(torch.stack(frames, 1), None, clip)


def direct(restored: list[Tensor], truth: list[np.ndarray]) -> tuple[float, float]:
    """Mean PSNR and SSIM on Y of frames (3, H, W) in [0, 1]."""
    pairs = [
        (luma(to_8_bit(one)), luma(torch.from_numpy(two).permute(2, 0, 1)))
        for one, two in zip(restored, truth, strict=True)
    ]
    return tuple(np.mean([(psnr(*pair), ssim(*pair)) for pair in pairs], 0))


@pytest.mark.parametrize("length", [6, 7])
@pytest.mark.parametrize(
    ("network", "share", "maker"),
    [(None, 1 / 2, "mean of neighbours"), (Bicubic, 1 / 2, "mean of neighbours"), (Doubling, 3 / 4, "network")],
)
def test_every_second_frame_is_given_and_those_between_are_scored_apart(
    network: type[VideoNetwork] | None, share: float, maker: str, length: int
) -> None:
    clip = noise_clip("double", length)
    restored = [
        bicubic_upsample(degrade(torch.from_numpy(picture).permute(2, 0, 1).float() / 255, "bd"))
        for picture in clip.pictures[::2]
    ]
    if share == 1 / 2:
        restored = [frame.clamp(0, 1) for frame in restored]
    between = [before * (1 - share) + after * share for before, after in pairwise(restored)]
    result = evaluate(network and network(), [clip], degradation="bd", time_scale=2)
    score = result.clips["double"]
    assert score.given is not None
    assert score.between is not None
    assert (score.given.psnr, score.given.ssim) == pytest.approx(direct(restored, clip.pictures[::2]), abs=1e-9)
    stop = 2 * len(between)  # the last frame of an even clip has no given one after it
    expected = direct(between, clip.pictures[1:stop:2])
    assert (score.between.psnr, score.between.ssim) == pytest.approx(expected, abs=2e-3)
    counts = len(restored), len(between)
    assert (score.given.frames, score.between.frames, score.frames) == (*counts, sum(counts))
    together = (score.given.psnr * counts[0] + score.between.psnr * counts[1]) / sum(counts)
    assert score.psnr == pytest.approx(together)
    assert result.convention["between"] == maker


def test_the_networks_own_time_scale_is_usual() -> None:
    clip = noise_clip("usual", 5)
    assert evaluate(Doubling(), [clip], degradation="bi") == evaluate(
        Doubling(), [clip], degradation="bi", time_scale=2
    )
    assert evaluate(Bicubic(), [clip], degradation="bi").convention["time_scale"] == 1


def test_inserted_frames_are_left_out_beside_a_spatial_network() -> None:
    plain = evaluate(Bicubic(), [noise_clip("time", 5)], degradation="bi")
    assert evaluate(Doubling(), [noise_clip("time", 5)], degradation="bi", time_scale=1) == plain


def test_another_time_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="time_scale 3 was asked for; ask for 1 or 2"):
        evaluate(None, [noise_clip("clip", 3)], degradation="bi", time_scale=3)


def test_temporal_figures_are_of_all_measured_frames_in_order() -> None:
    clip = noise_clip("steady", 5, 24, 40)
    low = [degrade(torch.from_numpy(clip.pictures[t]).permute(2, 0, 1).float() / 255, "bi") for t in (0, 2, 4)]
    frames = Doubling()(torch.stack(low)[None]).frames[0]
    consistency = TemporalConsistency(2)
    for restored, picture in zip(frames, clip.pictures, strict=True):
        consistency.add(to_8_bit(restored), torch.from_numpy(picture).permute(2, 0, 1))
    score = evaluate(Doubling(), [clip], degradation="bi", crop=2, temporal=True).clips["steady"]
    assert (score.tof, score.warping, score.truth_warping) == consistency.result()
    assert score.tof is not None
    assert score.tof > 0


def test_json_of_all_figures() -> None:
    clips = [noise_clip("two", 2, 24, 40), noise_clip("five", 5, 24, 40)]  # of two frames, one is given
    found = evaluate(Doubling(), clips, degradation="bi", temporal=True).to_json()
    part = {"psnr", "ssim", "frames"}
    temporal = {"tof", "warping", "truth_warping"}
    assert set(found["clips"]["five"]) == part | temporal | {"given", "between"}
    assert set(found["clips"]["five"]["between"]) == part
    assert set(found["clips"]["two"]) == part | {"given"}
    assert set(found["average"]) == {"psnr", "ssim", "given", "between"} | temporal
    assert found["average"]["between"] == {name: found["clips"]["five"]["between"][name] for name in ("psnr", "ssim")}
    given = [found["clips"][name]["given"]["psnr"] for name in ("two", "five")]
    assert found["average"]["given"]["psnr"] == pytest.approx(sum(given) / 2)
    assert set(found["convention"]) > {"tof", "warping", "time_scale", "between"}
    json.dumps(found, allow_nan=False)


def test_table_of_all_figures() -> None:
    clips = [noise_clip("two", 2, 24, 40), noise_clip("five", 5, 24, 40)]
    result = evaluate(None, clips, degradation="bi", temporal=True, time_scale=2)
    lines = result.table().splitlines()
    titles = ["clip", "frames", "PSNR", "SSIM", "given", "SSIM", "between", "SSIM", "tOF", "warping", "truth"]
    assert [title for title in lines[0].split() if title not in ("dB", "px")] == titles
    assert len({len(line) for line in lines[:4]}) == 1
    assert f"{result.clips['five'].tof:.3f}" in lines[2]
    assert len(lines[1].split()) == 6  # one frame has no neighbours
    assert [line.split(":")[0] for line in lines[4:6]] == ["tOF", "warping"]
    assert "every second one given and those between the means of their neighbours" in lines[-1]


@pytest.mark.parametrize("time_scale", [1, 2])
def test_no_clip_is_held(time_scale: int) -> None:
    """Frames made on the fly, of which only a few live at a time."""
    alive: set[int] = set()
    most = 0

    class Endless(MemoryClip):
        def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
            nonlocal most
            rng = np.random.default_rng(5)
            for place in range(24):
                picture = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
                alive.add(place)
                weakref.finalize(picture, alive.discard, place)
                most = max(most, len(alive))
                yield picture

    evaluate(Doubling(), [Endless("endless", [])], degradation="bi", temporal=True, time_scale=time_scale)
    assert not alive
    # a chunk of three given frames, those between, and the ones in hand
    assert most <= 3 * time_scale + 3


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "no clips"),
        ([MemoryClip("empty", [])], "empty has no frames"),
        ([noise_clip("twin", 1), noise_clip("twin", 1)], "Several clips are named twin"),
        ([noise_clip("tiny", 1, 3, 40)], "tiny are 40x3, too small to shrink by 4"),
        ([noise_clip("small", 1, 8, 40)], "at least 11x11"),
    ],
)
def test_clips_that_cannot_be_measured_are_named(clips: list[MemoryClip], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(None, clips, degradation="bi")


def test_unknown_degradation() -> None:
    with pytest.raises(DataError, match="'blur'"):
        evaluate(None, [noise_clip("clip", 1)], degradation="blur")


def test_a_network_that_loses_frames_is_caught() -> None:
    class Lossy(Bicubic):
        def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
            for index, frame in enumerate(super().stream(frames)):
                if index != 3:
                    yield frame

    with pytest.raises(ValueError, match="1 frames fewer"):
        evaluate(Lossy(), [noise_clip("lossy", 5)], degradation="bi")


def test_a_network_can_be_trained_after_it_was_judged() -> None:
    network = FastDVDnet(channels=8, blocks=1, widths=(8, 8, 8), frame_channels=4)
    evaluate(network, [noise_clip("a", 2)], degradation="bi")
    network.train()
    network(torch.rand(1, 3, 3, 8, 8)).frames.mean().backward()
    assert network.tail.conv_last.weight.grad is not None
