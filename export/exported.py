"""An exported file as a network, so that whatever takes a network - eval, upscale, parity - takes the file too."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.errors import InputError
from distill.interfaces import Memory, Upsampled, VideoNetwork, repeat_edges
from distill.layers import crop_to, pad_to_multiple
from export.formats import Format, format_of
from export.program import Array

__all__ = ["ExportedNetwork", "open_exported"]


def open_exported(path: Path, threads: int | None = None) -> ExportedNetwork:
    """Load an exported file of any format.

    Args:
        path: a file that `distill export` wrote.
        threads: that compute together; None leaves the choice to the runtime.

    Raises:
        InputError: the file cannot be used, or what runs it is not installed.
    """
    return ExportedNetwork(path, format_of(path), threads)


class ExportedNetwork(VideoNetwork):
    """What an exported file computes, windowed or streaming; it has no features.

    Attributes:
        program: the file, loaded.
        window: frames that one restored frame depends on.
        streaming: whether the file takes one frame at a time and remembers.
        sizes: (height, width) that the file takes; empty where it takes any.
    """

    hr_channels = lr_channels = None

    def __init__(self, path: Path, kind: Format, threads: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.program = kind.open(path, threads)
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

    def restore_window(self, window: Tensor) -> Tensor:
        """One run of a windowed file: (window, 3, h, w) -> the restored middle frame (3, scale*h, scale*w)."""
        inputs = {f"frame_{place}": self._fitted(frame) for place, frame in enumerate(window)}
        return self._cropped(self.program.run(inputs)["restored"], window[self.window // 2])

    def _windows(self, frames: Iterable[Tensor]) -> Iterator[tuple[dict[str, Array], Tensor]]:
        """The inputs of each run, and the middle frame."""
        ring: deque[tuple[Tensor, Array]] = deque(maxlen=self.window)
        for frame in repeat_edges(frames, self.window // 2):
            ring.append((frame, self._fitted(frame)))
            if len(ring) == self.window:
                yield {f"frame_{place}": array for place, (_, array) in enumerate(ring)}, ring[self.window // 2][0]

    def _stream_windows(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        for inputs, frame in self._windows(frames):
            yield self._cropped(self.program.run(inputs)["restored"], frame)

    def _stream_frame_by_frame(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        for place, (_, restored, frame) in enumerate(self._steps(frames)):
            if place >= 2 * (self.window // 2):
                yield self._cropped(restored, frame)

    def _steps(self, frames: Iterable[Tensor]) -> Iterator[tuple[dict[str, Array], Array, Tensor]]:
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
            yield inputs, outputs["restored"], frame

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

    def _cropped(self, restored: Array, frame: Tensor) -> Tensor:
        height, width = (self.scale * side for side in frame.shape[-2:])
        return crop_to(torch.from_numpy(np.asarray(restored, np.float32)), height, width)[0].to(frame.device)
