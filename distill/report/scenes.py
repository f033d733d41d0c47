"""What the pictures show: a few frames of a moving part of a judge clip, restored by every network alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from distill.data import Clip, bicubic_upsample, degrade
from distill.errors import DataError
from distill.interfaces import Upsampled, VideoNetwork, WindowNetwork
from distill.losses.attention import attention_map
from distill.metrics.psnr_ssim import luma, to_8_bit

__all__ = ["MARGIN", "Restored", "Scene", "bicubic", "busiest", "find_scene", "restore"]

Picture = NDArray[np.uint8]

_FRAMES = 13  # odd, so that every second one of them makes them all again
_REGION = 192, 320  # high-resolution pixels
MARGIN = 8
"""Low-resolution pixels around the region that the networks see as well, so that no edge shows."""


@dataclass(frozen=True)
class Scene:
    """A region of some consecutive frames.

    Attributes:
        clip: its name.
        first: number of the first frame, from 0.
        whole: the middle frame, (H, W, 3).
        top: of the region in it.
        left: of the region in it.
        row: of the region, the one with most motion.
        truth: the region, (T, 3, h, w) uint8.
        low: the low resolution of the region and a margin, (T, 3, h', w').
        inside: where the region lies in what is restored of `low`: rows, columns.
    """

    clip: str
    first: int
    whole: Picture
    top: int
    left: int
    row: int
    truth: Tensor
    low: Tensor
    inside: tuple[slice, slice]

    @property
    def middle(self) -> int:
        """Place of the middle frame."""
        return self.truth.shape[0] // 2

    @property
    def frame(self) -> int:
        """Number of the middle frame in the clip, from 0."""
        return self.first + self.middle


@dataclass(frozen=True)
class Restored:
    """What a network made of a scene.

    Attributes:
        frames: the region, (T, 3, h, w) uint8.
        attention: M of the middle frame (Eq. 2), (h, w), each low-resolution pixel repeated where `features` is "F^LR";
            None for bicubic.
        features: that M is of, "F^SR" or "F^LR".
    """

    frames: Tensor
    attention: NDArray[np.float32] | None = None
    features: str = ""

    def luma(self) -> NDArray[np.float64]:
        """Of all frames, (T, h, w), levels."""
        return luma(self.frames).numpy()


def find_scene(clip: Clip, degradation: str, scale: int, limit: int | None = None) -> Scene:
    """The part of a clip's middle that moves most, as the truth alone has it.

    Args:
        clip: of high resolution.
        degradation: that makes the low resolution.
        scale: how many times smaller that is.
        limit: so many frames from the clip's start are judged; None is all.

    Raises:
        DataError: the clip cannot be read.
    """
    length = clip.length if limit is None else min(clip.length, limit)
    count = min(_FRAMES, length - (length % 2 == 0))
    first = max(length - count, 0) // 2
    frames = list(islice(clip.frames(first), count))
    if not frames:
        raise DataError(f"The clip {clip.name} has no frames to show.")
    height, width = (side - side % scale for side in frames[0].shape[:2])
    truth = torch.stack([torch.from_numpy(frame[:height, :width]).permute(2, 0, 1) for frame in frames])
    motion = _motion(truth)
    tall, wide = (min(most, side) for most, side in zip(_REGION, (height, width), strict=True))
    top, left = busiest(motion, (tall, wide), scale)
    inside = slice(top, top + tall), slice(left, left + wide)
    row = int(motion[inside].mean(1).argmax())
    low = torch.stack([degrade(frame.float() / 255, degradation, scale) for frame in truth])
    edges = [
        (max(part.start // scale - MARGIN, 0), min(part.stop // scale + MARGIN, side // scale))
        for part, side in zip(inside, (height, width), strict=True)
    ]
    seen = low[..., slice(*edges[0]), slice(*edges[1])]
    rows, columns = (
        slice(part.start - start * scale, part.stop - start * scale)
        for part, (start, _) in zip(inside, edges, strict=True)
    )
    whole = frames[len(frames) // 2]
    return Scene(clip.name, first, whole, top, left, row, truth[..., inside[0], inside[1]], seen, (rows, columns))


def restore(network: VideoNetwork, scene: Scene, time_scale: int, device: torch.device) -> Restored:
    """What a network makes of a scene.

    Args:
        network: with its weights.
        scene: to restore.
        time_scale: the student's; every so-many-th frame is given, and all are made again.
        device: where the network runs.
    """
    network.to(device).eval()
    given = scene.low[::time_scale].to(device)
    every = max(network.time_scale // time_scale, 1)
    middle = network.time_scale * (given.shape[0] - 1) // 2
    frames = []
    with torch.inference_mode():
        for place, made in enumerate(_one_by_one(network, given)):
            if place % every == 0:
                frames.append(to_8_bit(made.frames[0][(..., *scene.inside)]).cpu())
            if place == middle:
                features = made.hr_features if made.hr_features is not None else made.lr_features
                assert features is not None
                attention = attention_map(features.float())[None]
                attention = functional.interpolate(attention, made.frames.shape[-2:])[0, 0][scene.inside].cpu()
                kind = "F^SR" if made.hr_features is not None else "F^LR"
    return Restored(torch.stack(frames), attention.numpy(), kind)


def _one_by_one(network: VideoNetwork, given: Tensor) -> Iterator[Upsampled]:
    """Each restored frame with its features, (1, ...); a window network's are made one at a time, to spare memory."""
    if isinstance(network, WindowNetwork):
        yield from network.stream_features(iter(given))
        return
    made = network(given.unsqueeze(0))
    for place in range(made.frames.shape[1]):

        def at(field: Tensor, place: int = place) -> Tensor:
            return field[:, place]

        yield made.map(at)


def bicubic(scene: Scene, scale: int, time_scale: int) -> Restored:
    """The baseline; a frame that was not given is the mean of its neighbours."""
    given = bicubic_upsample(scene.low[::time_scale], scale)[(..., *scene.inside)]
    if time_scale == 1:
        return Restored(to_8_bit(given))
    frames = torch.empty(scene.truth.shape)
    frames[::2], frames[1::2] = given, (given[1:] + given[:-1]) / 2
    return Restored(to_8_bit(frames))


def busiest(field: NDArray[np.float64], size: tuple[int, int], step: int) -> tuple[int, int]:
    """Top and left, multiples of `step`, of the rectangle of that size whose sum is largest."""
    sums = np.pad(field, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    tall, wide = size
    totals = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    totals = totals[::step, ::step]
    top, left = np.unravel_index(int(totals.argmax()), totals.shape)
    return int(top) * step, int(left) * step


def _motion(truth: Tensor) -> NDArray[np.float64]:
    """Mean absolute change of luma from frame to frame, (H, W)."""
    if truth.shape[0] < 2:
        return np.zeros(truth.shape[-2:])
    total = torch.zeros(truth.shape[-2:], dtype=torch.float64)
    before = luma(truth[0])
    for frame in truth[1:]:
        now = luma(frame)
        total += (now - before).abs()
        before = now
    return (total / (truth.shape[0] - 1)).numpy()
