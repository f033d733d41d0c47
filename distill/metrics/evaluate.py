"""Measuring a network on clips of known truth, frame by frame, every figure with its convention."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from distill.data import Clip, bicubic_upsample, degrade
from distill.errors import ConfigError, DataError
from distill.interfaces import VideoNetwork
from distill.layers import channels_last
from distill.metrics.perceptual_distance import CONVENTION as PERCEPTUAL_CONVENTION
from distill.metrics.perceptual_distance import LPIPS
from distill.metrics.psnr_ssim import luma, psnr, ssim, to_8_bit
from distill.metrics.scores import Evaluation, FrameScores, Score
from distill.metrics.temporal import CONVENTION as TEMPORAL_CONVENTION
from distill.metrics.temporal import TemporalConsistency

__all__ = ["PSNR_LIMIT", "ClipJudge", "Evaluation", "FrameScores", "Score", "evaluate"]

PSNR_LIMIT = 100.0
"""A frame's PSNR counts as so many dB at most: that of equal pictures is infinite, of no use in a mean or in JSON."""


def evaluate(
    network: VideoNetwork | None,
    clips: Sequence[Clip],
    *,
    degradation: str,
    scale: int = 4,
    channel: Literal["y", "rgb"] = "y",
    crop: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    frames: int | None = None,
    time_scale: int | None = None,
    temporal: bool = False,
    lpips: bool = False,
) -> Evaluation:
    """Degrade every clip, restore it, and compare it in 8 bit with what it was, one frame at a time.

    Frames whose sides are no multiples of `scale` lose their last rows and columns. Only as many frames wait in
    memory as the network looks ahead. The network is moved to `device` and measured in evaluation mode; afterwards
    each of its modules trains or not as before.

    With a `time_scale` of 2 the network is given frames 0, 2, 4, ... and every frame up to the last given one is
    measured; given ones and those between them are also scored apart. Bicubic, and a network that keeps the frame
    rate, then have the mean of two restored neighbours, clamped to [0, 1], for the frame between them. With a
    `time_scale` of 1 every frame is given, and what a network inserts is left out.

    Args:
        network: what restores the frames; None is the bicubic baseline (MATLAB's kernel, rounded to 8 bit).
        clips: high-resolution clips with names of their own.
        degradation: a name that `distill.data.degrade` knows.
        scale: how many times smaller the low resolution is.
        channel: "y" compares `luma`, "rgb" all three channels.
        crop: pixels left out of the measurement along every edge.
        device: where the network runs.
        progress: called with 1 after every frame.
        frames: measure only so many from each clip's start; None measures all.
        time_scale: 1 or 2; None is the network's own, 1 for bicubic.
        temporal: also measure `TemporalConsistency`, over all measured frames in order.
        lpips: also measure `LPIPS`, always of RGB.

    Returns:
        The scores with their convention. A clip's PSNR is the mean over its frames of each frame's PSNR, which
        counts as `PSNR_LIMIT` at most.

    Raises:
        ConfigError: the scale differs, `time_scale` is neither 1 nor 2, or LPIPS's weights are not installed.
        DataError: there are no clips or no frames, names repeat, frames are too small, or the degradation is unknown.
    """
    rate = time_scale if time_scale is not None else 1 if network is None else network.time_scale
    settings = _Settings(degradation, scale, channel, crop, torch.device(device), frames, rate, temporal, lpips)
    _check(network, clips, settings)
    if network is not None:
        channels_last(network.to(settings.device))  # outside of inference mode, whose tensors cannot be trained
    with _evaluating(network), torch.inference_mode():
        scores = _scores(network, clips, settings, progress or (lambda _: None))
    return Evaluation(scores, settings.convention(network))


@dataclass(frozen=True)
class _Settings:
    degradation: str
    scale: int
    channel: Literal["y", "rgb"]
    crop: int
    device: torch.device
    frames: int | None
    time_scale: int
    temporal: bool
    lpips: bool

    @property
    def exact(self) -> torch.device:
        """Where degradation and metrics are computed: in double precision, which Apple's GPUs lack."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def convention(self, network: VideoNetwork | None) -> dict[str, str | int]:
        facts: dict[str, str | int] = {
            name: getattr(self, name) for name in ("channel", "crop", "degradation", "scale")
        }
        facts |= {"frames": "all" if self.frames is None else self.frames, "time_scale": self.time_scale}
        if self.time_scale > 1:
            own_rate = 1 if network is None else network.time_scale
            facts["between"] = "network" if own_rate >= self.time_scale else "mean of neighbours"
        return facts | (PERCEPTUAL_CONVENTION if self.lpips else {}) | (TEMPORAL_CONVENTION if self.temporal else {})


def _check(network: VideoNetwork | None, clips: Sequence[Clip], settings: _Settings) -> None:
    if network is not None and network.scale != settings.scale:
        raise ConfigError(
            f"The network upscales by {network.scale} but an evaluation at scale {settings.scale} was asked for; "
            f"ask for scale {network.scale}."
        )
    if settings.time_scale not in (1, 2):
        raise ConfigError(f"An evaluation at time_scale {settings.time_scale} was asked for; ask for 1 or 2.")
    if not clips:
        raise DataError("There are no clips to evaluate; give at least one.")
    names = [clip.name for clip in clips]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"Several clips are named {', '.join(repeated)}; rename them, since scores go by name.")


def _scores(
    network: VideoNetwork | None, clips: Sequence[Clip], settings: _Settings, progress: Callable[[int], None]
) -> dict[str, Score]:
    perceptual = LPIPS.published().to(settings.exact) if settings.lpips else None
    scores: dict[str, Score] = {}
    for clip in clips:
        source, judge = _Source(clip, settings), _judge(settings, perceptual)
        for restored in _restored(network, source):
            judge.add(to_8_bit(restored).to(settings.exact), source.waiting.popleft())
            progress(1)
        if missing := len(source.waiting):
            raise ValueError(f"{type(network).__name__}.stream restored {missing} frames fewer than it was given")
        scores[clip.name] = judge.score(clip.name)
    return scores


class _Source:
    """The low-resolution frames that are given; the true frames to measure with wait in `waiting`, (3, H, W) uint8."""

    def __init__(self, clip: Clip, settings: _Settings) -> None:
        self.clip, self.settings = clip, settings
        self.waiting: deque[Tensor] = deque()

    def __iter__(self) -> Iterator[Tensor]:
        settings = self.settings
        skipped: list[Tensor] = []  # true frames since the last given one: measured if another given one follows
        for place, frame in enumerate(self.clip.frames(0, settings.frames)):
            height, width = (side - side % settings.scale for side in frame.shape[:2])
            if not height or not width:
                raise DataError(
                    f"The frames of {self.clip.name} are {frame.shape[1]}x{frame.shape[0]}, too small to shrink by "
                    f"{settings.scale}; give larger ones."
                )
            truth = torch.from_numpy(frame[:height, :width]).to(settings.exact).permute(2, 0, 1)
            if place % settings.time_scale:
                skipped.append(truth)
                continue
            low = degrade(truth.float() / 255, settings.degradation, settings.scale)
            self.waiting.extend([*skipped, truth])
            skipped.clear()
            yield low


def _restored(network: VideoNetwork | None, source: _Source) -> Iterator[Tensor]:
    """As many frames as the source makes wait, (3, H, W), nominally in [0, 1]."""
    settings = source.settings
    frames: Iterator[Tensor]
    if network is None:
        frames, own_rate = (bicubic_upsample(low, settings.scale) for low in source), 1
    else:
        frames, own_rate = network.stream(low.to(settings.device) for low in source), network.time_scale
    if own_rate < settings.time_scale:
        return _with_means(frames)
    return islice(frames, 0, None, own_rate // settings.time_scale)


def _with_means(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames, clamped to [0, 1], with the mean of each two neighbours between them."""
    before = None
    for frame in (frame.clamp(0, 1) for frame in frames):
        if before is not None:
            yield (before + frame) / 2
        yield frame
        before = frame


class _Frame(NamedTuple):
    psnr: float
    ssim: float
    lpips: float | None


def _judge(settings: _Settings, perceptual: LPIPS | None) -> ClipJudge:
    return ClipJudge(
        settings.channel,
        settings.crop,
        time_scale=settings.time_scale,
        temporal=settings.temporal,
        perceptual=perceptual,
    )


class ClipJudge:
    """Measures one clip frame by frame.

    Args:
        channel: "y" compares `luma`, "rgb" all three channels.
        crop: pixels left out along every edge.
        time_scale: 2 also scores every second frame and those between them apart.
        temporal: also measure `TemporalConsistency`.
        perceptual: measures LPIPS where given.
    """

    def __init__(
        self,
        channel: Literal["y", "rgb"] = "y",
        crop: int = 0,
        *,
        time_scale: int = 1,
        temporal: bool = False,
        perceptual: LPIPS | None = None,
    ) -> None:
        self.channel, self.crop, self.time_scale, self.perceptual = channel, crop, time_scale, perceptual
        self.temporal = TemporalConsistency(crop) if temporal else None
        self.frames: list[_Frame] = []

    def add(self, restored: Tensor, truth: Tensor) -> None:
        """The next frame, both (3, H, W) uint8."""
        crop = self.crop
        compared = (luma(restored), luma(truth)) if self.channel == "y" else (restored, truth)
        distance = None if self.perceptual is None else self.perceptual.of_levels(restored, truth, crop)
        self.frames.append(_Frame(min(psnr(*compared, crop), PSNR_LIMIT), ssim(*compared, crop), distance))
        if self.temporal is not None:
            self.temporal.add(restored, truth)

    def score(self, name: str) -> Score:
        """Of the clip, which messages call `name`.

        Raises:
            DataError: no frame was added.
        """
        if not self.frames:
            raise DataError(f"The clip {name} has no frames to measure; remove it or give a longer one.")
        time_scale = self.time_scale
        between = [frame for place, frame in enumerate(self.frames) if place % time_scale]
        steadiness = None if self.temporal is None else self.temporal.result()
        tof, warping, truth_warping = steadiness or (None, None, None)
        return Score(
            *_means(self.frames),
            tof=tof,
            warping=warping,
            truth_warping=truth_warping,
            given=FrameScores(*_means(self.frames[::time_scale])) if time_scale > 1 else None,
            between=FrameScores(*_means(between)) if between else None,
        )


def _means(frames: Sequence[_Frame]) -> tuple[float, float, int, float | None]:
    """What `FrameScores` is made of."""
    distances = [frame.lpips for frame in frames if frame.lpips is not None]
    return (
        fmean(frame.psnr for frame in frames),
        fmean(frame.ssim for frame in frames),
        len(frames),
        fmean(distances) if distances else None,
    )


@contextmanager
def _evaluating(network: nn.Module | None) -> Iterator[None]:
    """Evaluation mode; afterwards every module is as it was, also one that stood frozen in a training network."""
    before = [] if network is None else [(module, module.training) for module in network.modules()]
    if network is not None:
        network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
