"""An exported file as a network, so that whatever takes a network - eval, upscale, parity - takes the file too."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.errors import InputError
from distill.interfaces import Memory, Upsampled, VideoNetwork, repeat_edges
from distill.layers import crop_to, pad_to_multiple
from export.graphs.graph import PICTURES
from export.program import Array, Program

__all__ = ["ALLOWED_LOSS_DB", "ExportedNetwork"]

ALLOWED_LOSS_DB = 0.1
"""A file that loses more PSNR than this against its PyTorch network is marked."""


class ExportedNetwork(VideoNetwork):
    """What an exported file computes, windowed or streaming; it has no features.

    Args:
        program: the file, loaded.
        path: the file, for messages.

    Attributes:
        time_scale: 2 where it doubles the frame rate.
        window: frames that one restored frame depends on.
        streaming: whether the file takes one frame at a time and remembers.
        sizes: (height, width) that the file takes; empty where it takes any.
    """

    hr_channels = lr_channels = None

    def __init__(self, program: Program, path: Path) -> None:
        super().__init__()
        self.path, self.program = path, program
        try:
            self._read(self.program.metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} does not describe itself as it should ({error!r}): export it again.") from error

    def _read(self, facts: Mapping[str, str]) -> None:
        self.scale, self.window, self.streaming = (
            int(facts["scale"]),
            int(facts["window"]),
            facts["mode"] == "streaming",
        )
        self.time_scale = int(facts.get("time_scale", 1))
        self.sizes = [tuple(map(int, size.split("x"))) for size in facts.get("sizes", "").split()]
        self._multiple = int(facts.get("size_multiple", 1))
        outside = facts["memories_inside"] == "no"
        self._memories = [Memory(*each) for each in json.loads(facts["memories"])] if outside else []
        self._memory_type = np.dtype(facts["memory_type"])

    def forward(self, clip: Tensor) -> Upsampled:
        frames = torch.stack([torch.stack(list(self.stream(each))) for each in clip])
        return Upsampled(frames, None, None)

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        return self._stream_frame_by_frame(frames) if self.streaming else self._stream_windows(frames)

    def inputs_of(self, frames: Iterable[Tensor]) -> Iterator[dict[str, Array]]:
        """What each run takes for these frames, in order; a streaming file is run for it, a windowed one is not."""
        return (inputs for inputs, *_ in (self._steps(frames) if self.streaming else self._windows(frames)))

    def run(self, frames: Tensor) -> tuple[Tensor, ...]:
        """One run of a windowed file, see `SlidingNetwork.run`: (taken, 3, h, w) -> each (3, scale*h, scale*w)."""
        inputs = {f"frame_{place}": self._fitted(frame) for place, frame in enumerate(frames)}
        return self._pictures(self.program.run(inputs), frames[0])

    def _windows(self, frames: Iterable[Tensor]) -> Iterator[tuple[dict[str, Array], Tensor]]:
        """The inputs of each run, and one of the frames."""
        taken = self.window + self.time_scale - 1
        ring: deque[Array] = deque(maxlen=taken)
        for frame in repeat_edges(frames, self.window // 2, self.time_scale - 1):
            ring.append(self._fitted(frame))
            if len(ring) == taken:
                yield {f"frame_{place}": array for place, array in enumerate(ring)}, frame

    def _stream_windows(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        pictures = (self._pictures(self.program.run(inputs), frame) for inputs, frame in self._windows(frames))
        return self._in_order(pictures)

    def _stream_frame_by_frame(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        known = islice(self._steps(frames), 2 * (self.window // 2), None)
        return self._in_order(self._pictures(outputs, frame) for _, outputs, frame in known)

    def _in_order(self, pictures: Iterable[tuple[Tensor, ...]]) -> Iterator[Tensor]:
        """Those of run after run, without what the first one puts before the first frame."""
        return islice(chain.from_iterable(pictures), self.time_scale - 1, None)

    def _steps(self, frames: Iterable[Tensor]) -> Iterator[tuple[dict[str, Array], Mapping[str, Array], Tensor]]:
        memories: dict[str, Array] | None = None
        self.program.forget()
        for frame in repeat_edges(frames, self.window // 2):
            array = self._fitted(frame)
            if memories is None:
                sides = array.shape[-2:]
                memories = {each.name: np.zeros(each.shape(*sides), self._memory_type) for each in self._memories}
            inputs = {"frame": array, **memories}
            outputs = self.program.run(inputs)
            memories = {each.name: outputs[f"next_{each.name}"] for each in self._memories}
            yield inputs, outputs, frame

    def _fitted(self, frame: Tensor) -> Array:
        """(3, h, w) as the file takes it, (1, 3, H, W): padded by repeating the last row and column where it must be.

        Raises:
            InputError: the file does not take this size.
        """
        height, width = frame.shape[-2:]
        if self.sizes and (height, width) not in self.sizes:
            taken = " or ".join(f"{wide}x{high}" for high, wide in self.sizes)
            raise InputError(
                f"{self.path} takes frames of {taken}, not {width}x{height}: export it again with "
                f"--size {width}x{height}, or give other frames."
            )
        return pad_to_multiple(frame.detach().cpu().float().unsqueeze(0), self._multiple).contiguous().numpy()

    def _pictures(self, outputs: Mapping[str, Array], frame: Tensor) -> tuple[Tensor, ...]:
        """What a run gave, cropped to the size of a frame (3, h, w)."""
        height, width = (self.scale * side for side in frame.shape[-2:])
        arrays = (np.asarray(outputs[name], np.float32) for name in PICTURES[-self.time_scale :])
        return tuple(crop_to(torch.from_numpy(array), height, width)[0].to(frame.device) for array in arrays)
