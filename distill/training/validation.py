"""Judging networks on clips that no training sees, in figures and in a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from distill.data import Clip, bicubic_upsample, degrade
from distill.interfaces import VideoNetwork
from distill.metrics.evaluate import Evaluation, evaluate

__all__ = ["Validation"]

_REACH = 3  # frames on each side of the pictured one


@dataclass(frozen=True)
class Validation:
    """What networks are judged on, and how.

    Attributes:
        clips: of high resolution.
        degradation: that makes the low resolution.
        scale: how many times smaller that is.
        time_scale: every so many frames are given, and all of them are judged.
        device: where the networks run.
        frames: of each clip at most this many, from its start; None is all.
    """

    clips: Sequence[Clip]
    degradation: str
    scale: int
    time_scale: int
    device: torch.device
    frames: int | None = None

    def evaluate(self, network: VideoNetwork | None, after_frame: Callable[[], None]) -> Evaluation:
        """Any network, or bicubic, on the clips; `after_frame` is called again and again, and may raise to stop."""
        return evaluate(
            network,
            self.clips,
            degradation=self.degradation,
            scale=self.scale,
            device=self.device,
            frames=self.frames,
            time_scale=self.time_scale,
            progress=lambda _: after_frame(),
        )

    def panels(self, networks: Sequence[VideoNetwork]) -> list[Tensor]:
        """Bicubic | the networks | truth, of the first clip's middle: (3, H, W), nominally in [0, 1].

        Args:
            networks: put into evaluation mode and left there.
        """
        clip = self.clips[0]
        middle = min(clip.length, self.frames or clip.length) // 2
        start = max(middle - _REACH, 0)
        frames = [torch.from_numpy(frame).permute(2, 0, 1) for frame in clip.frames(start, middle + _REACH + 1)]
        height, width = (side // self.scale * self.scale for side in frames[0].shape[-2:])
        truth = torch.stack(frames)[..., :height, :width].float() / 255
        low = degrade(truth, self.degradation, self.scale)
        centre = middle - start
        panels = [bicubic_upsample(low[centre], self.scale)]
        with torch.inference_mode():
            for network in networks:
                streamed = network.eval().stream(iter(low.to(self.device)))
                panels.append(next(islice(streamed, centre * network.time_scale, None)))
        return [*panels, truth[centre]]
