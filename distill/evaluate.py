"""Measuring a network on clips of known truth, frame by frame, every figure with its convention."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.data import Clip, bicubic_upsample, degrade
from distill.errors import ConfigError, DataError
from distill.interfaces import VideoNetwork
from distill.metrics import luma, psnr, ssim, to_8_bit

__all__ = ["PSNR_LIMIT", "Evaluation", "Score", "evaluate"]

PSNR_LIMIT = 100.0
"""A frame's PSNR counts as so many dB at most: that of equal pictures is infinite, of no use in a mean or in JSON."""


@dataclass(frozen=True)
class Score:
    """The quality of one clip.

    Attributes:
        psnr: mean over the frames, in dB.
        ssim: mean over the frames, at most 1.
        frames: how many were measured.
    """

    psnr: float
    ssim: float
    frames: int


@dataclass(frozen=True)
class Evaluation:
    """The quality of several clips.

    Attributes:
        clips: what each clip scored, by its name, in the order given.
        convention: what the figures depend on: channel ("y" or "rgb"), crop (pixels at every edge), degradation,
            scale, frames ("all", or how many from the start).
    """

    clips: dict[str, Score]
    convention: dict[str, str | int]

    @property
    def psnr(self) -> float:
        """Mean of the clips' PSNR in dB, every clip counting alike, as the field's tables have it."""
        return fmean(score.psnr for score in self.clips.values())

    @property
    def ssim(self) -> float:
        """Mean of the clips' SSIM, every clip counting alike."""
        return fmean(score.ssim for score in self.clips.values())

    def to_json(self) -> dict[str, Any]:
        """What json.dumps can write: the clips, their average, and the convention of both."""
        return {
            "clips": {
                name: {"psnr": score.psnr, "ssim": score.ssim, "frames": score.frames}
                for name, score in self.clips.items()
            },
            "average": {"psnr": self.psnr, "ssim": self.ssim},
            "convention": dict(self.convention),
        }

    def table(self) -> str:
        """Lines for people, a clip each, then the average, and in the last line the convention."""
        wide = max(len("average"), *(len(name) for name in self.clips))
        lines = [f"{'clip':<{wide}}  frames  PSNR dB    SSIM"]
        for name, score in self.clips.items():
            lines.append(f"{name:<{wide}}  {score.frames:>6}  {score.psnr:>7.3f}  {score.ssim:>6.4f}")
        lines.append(f"{'average':<{wide}}  {'':>6}  {self.psnr:>7.3f}  {self.ssim:>6.4f}")
        convention = self.convention
        channel = "Y (BT.601, rounded to 8 bit)" if convention["channel"] == "y" else "RGB (8 bit)"
        crop = f"{convention['crop']} pixels cropped at every edge" if convention["crop"] else "no border cropped"
        frames = "all frames" if convention["frames"] == "all" else f"the first {convention['frames']} frames at most"
        lines.append(f"{channel}, {crop}, {frames}, degradation {convention['degradation']} x{convention['scale']}")
        return "\n".join(lines)


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
) -> Evaluation:
    """Degrade every clip, restore it, and compare it in 8 bit with what it was, one frame at a time.

    Frames whose sides are no multiples of `scale` lose their last rows and columns. Only as many frames wait in
    memory as the network looks ahead. Frames that a network inserts between the given ones are left out. The network
    is moved to `device` and measured in evaluation mode; afterwards each of its modules trains or not as before.

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

    Returns:
        The scores with their convention. A clip's PSNR is the mean over its frames of each frame's PSNR, which
        counts as `PSNR_LIMIT` at most.

    Raises:
        ConfigError: the network's scale differs.
        DataError: there are no clips or no frames, names repeat, frames are too small, or the degradation is unknown.
    """
    _check(network, clips, scale)
    if network is not None:
        network.to(device)
    scores: dict[str, Score] = {}
    with _evaluating(network), torch.inference_mode():
        for clip in clips:
            quality: list[tuple[float, float]] = []
            for restored, truth in _pairs(network, clip, degradation, scale, torch.device(device), frames):
                compared = (luma(restored), luma(truth)) if channel == "y" else (restored, truth)
                quality.append((min(psnr(*compared, crop), PSNR_LIMIT), ssim(*compared, crop)))
                if progress is not None:
                    progress(1)
            if not quality:
                raise DataError(f"The clip {clip.name} has no frames to measure; remove it or give a longer one.")
            scores[clip.name] = Score(fmean(p for p, _ in quality), fmean(s for _, s in quality), len(quality))
    counted = "all" if frames is None else frames
    return Evaluation(
        scores, {"channel": channel, "crop": crop, "degradation": degradation, "scale": scale, "frames": counted}
    )


def _check(network: VideoNetwork | None, clips: Sequence[Clip], scale: int) -> None:
    if network is not None and network.scale != scale:
        raise ConfigError(
            f"The network upscales by {network.scale} but an evaluation at scale {scale} was asked for; "
            f"ask for scale {network.scale}."
        )
    if not clips:
        raise DataError("There are no clips to evaluate; give at least one.")
    names = [clip.name for clip in clips]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"Several clips are named {', '.join(repeated)}; rename them, since scores go by name.")


def _pairs(
    network: VideoNetwork | None, clip: Clip, degradation: str, scale: int, device: torch.device, frames: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each frame restored and as it was, both (3, H, W) uint8."""
    # Degradation and metrics count in double precision, which Apple's GPUs lack.
    exact = device if device.type == "cuda" else torch.device("cpu")
    waiting: deque[Tensor] = deque()

    def low_resolution() -> Iterator[Tensor]:
        for frame in clip.frames(0, frames):
            height, width = (side - side % scale for side in frame.shape[:2])
            if not height or not width:
                raise DataError(
                    f"The frames of {clip.name} are {frame.shape[1]}x{frame.shape[0]}, too small to shrink by {scale}; "
                    "give larger ones."
                )
            truth = torch.from_numpy(frame[:height, :width]).to(exact).permute(2, 0, 1)
            low = degrade(truth.float() / 255, degradation, scale)
            waiting.append(truth)
            yield low.to(device)

    frames_restored: Iterator[Tensor]
    if network is None:
        frames_restored = (bicubic_upsample(low.to(exact), scale) for low in low_resolution())
    else:
        frames_restored = islice(network.stream(low_resolution()), 0, None, network.time_scale)
    for restored in frames_restored:
        yield to_8_bit(restored).to(exact), waiting.popleft()
    if waiting:
        raise ValueError(f"{type(network).__name__}.stream restored {len(waiting)} frames fewer than it was given")


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
