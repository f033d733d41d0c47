from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.data import Clip, bicubic_upsample, degrade
from distill.errors import ConfigError, DataError
from distill.evaluate import PSNR_LIMIT, evaluate
from distill.interfaces import Upsampled, WindowNetwork
from distill.metrics import luma, psnr, ssim, to_8_bit


class MemoryClip(Clip):
    """Frames in memory; counts how many were handed out."""

    def __init__(self, name: str, pictures: list[np.ndarray]) -> None:
        self.name, self.pictures, self.given = name, pictures, 0

    @property
    def size(self) -> tuple[int, int]:
        return self.pictures[0].shape[:2]

    @property
    def frame_rate(self) -> Fraction | None:
        return None

    @property
    def length(self) -> int:
        return len(self.pictures)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        for picture in self.pictures[start:stop]:
            self.given += 1
            yield picture


def noise_clip(name: str, length: int, height: int = 48, width: int = 64) -> MemoryClip:
    rng = np.random.default_rng(sum(name.encode()))
    frames = []
    for _ in range(length):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        frames.append(coarse.repeat(8, 0).repeat(8, 1)[:height, :width].copy())
    return MemoryClip(name, frames)


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
        "convention": {"channel": "y", "crop": 0, "degradation": "bi", "scale": 4, "frames": "all"},
    }


def test_table_ends_with_the_convention() -> None:
    lines = evaluate(None, [noise_clip("a-long-name", 2)], degradation="bd", channel="rgb", crop=4).table().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["clip", "a-long-name", "average"]
    assert lines[-1] == "RGB (8 bit), 4 pixels cropped at every edge, all frames, degradation bd x4"


def test_another_scale_is_refused_before_a_frame_is_read() -> None:
    clip = noise_clip("scale", 1)
    with pytest.raises(ConfigError, match="upscales by 4 but an evaluation at scale 2"):
        evaluate(Bicubic(), [clip], degradation="bi", scale=2)
    assert clip.given == 0
    assert evaluate(None, [clip], degradation="bi", scale=2).convention["scale"] == 2


def test_inserted_frames_are_left_out() -> None:
    class Doubled(Bicubic):
        time_scale = 2

        def stream(self, frames):
            last = None
            for restored in super().stream(frames):
                if last is not None:
                    yield torch.zeros_like(restored)
                yield restored
                last = restored

    plain = evaluate(Bicubic(), [noise_clip("time", 3)], degradation="bi")
    assert evaluate(Doubled(), [noise_clip("time", 3)], degradation="bi") == plain


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
