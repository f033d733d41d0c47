"""What a network must be to teach or to learn.

A *clip* is a float tensor (B, T, 3, h, w): B clips of T consecutive low-resolution frames, RGB in [0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "ClipNetwork",
    "Intermediates",
    "Memory",
    "Published",
    "SlidingNetwork",
    "Step",
    "StreamStep",
    "Upsampled",
    "VideoNetwork",
    "WindowNetwork",
    "repeat_edges",
    "windows",
]


class Upsampled(NamedTuple):
    """What a network makes of a clip, with the two features that distillation uses.

    Shapes for a clip of T frames, T' = time_scale * (T - 1) + 1; one middle frame (no T' axis) for a window.

    Attributes:
        frames: (B, T', 3, scale*h, scale*w), RGB, nominally in [0, 1] but not clamped.
        hr_features: F^SR, (B, T', C, scale*h, scale*w), what the last convolution turns into a picture; None for a
            network that works at low resolution up to its pixel shuffle.
        lr_features: F^LR, (B, T', C', h, w), aligned and fused, before the reconstruction backbone; None for a
            network that works at high resolution from its first layer on. One of the two always exists.
    """

    frames: Tensor
    hr_features: Tensor | None
    lr_features: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> Upsampled:
        """The same with every field that exists changed alike."""
        return Upsampled(
            change(self.frames),
            None if self.hr_features is None else change(self.hr_features),
            None if self.lr_features is None else change(self.lr_features),
        )

    def interleaved(self, between: Upsampled) -> Upsampled:
        """T given frames and T - 1 between them -> all 2 T - 1 in order; likewise their features."""
        frames, hr_features, lr_features = map(_interleaved, self, between)
        assert frames is not None
        return Upsampled(frames, hr_features, lr_features)


class Intermediates(NamedTuple):
    """What a network makes of a clip on its way to the frames, for training to supervise.

    Pictures are RGB, nominally in [0, 1] but not clamped, at T' = 2 (T - 1) + 1 moments, the given ones at even places.

    Attributes:
        frames: (B, T', 3, scale*h, scale*w), made before the features were refined.
        low: (B, T', 3, h, w), likewise; given frames as they were given where the network makes none.
        refined_low: the same after the refinement; None where the network makes none.
        flows: (B, 2, T - 1, 2, h, w), optical flow from each given frame to the next and back as the network corrected
            it, pixels to the right and down; None where it corrects none.
    """

    frames: Tensor
    low: Tensor
    refined_low: Tensor | None = None
    flows: Tensor | None = None


class Published(NamedTuple):
    """A published checkpoint in our terms.

    Attributes:
        name: of the network, as the registry knows it.
        keywords: that its class must be built with.
        weights: by our names, complete.
    """

    name: str
    keywords: dict[str, Any]
    weights: dict[str, Tensor]


class VideoNetwork(nn.Module, ABC):
    """A network that turns a low-resolution clip into a high-resolution one.

    Attributes:
        scale: spatial factor.
        time_scale: 1, or 2 when a frame is also inserted between neighbours.
        hr_channels: channels of F^SR, or None where the network has none.
        lr_channels: channels of F^LR, or None where the network has none.
        width_multiples: keywords of the class that are channels, and what a width stays a multiple of when
            `distill plan` looks for narrower and wider ones; empty where there are none to vary.
    """

    scale: int = 4
    time_scale: int = 1
    hr_channels: int | None
    lr_channels: int | None
    width_multiples: ClassVar[Mapping[str, int]] = {}

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        """Tell whether a published state_dict is of this network, its sizes worked out from the tensors.

        Args:
            state: tensors by published name, without the `module.` that DataParallel puts before each.

        Returns:
            None where the names are of another network.

        Raises:
            CheckpointError: they are of this network, but incomplete or of a variant that is not built here.
        """
        return None

    @abstractmethod
    def forward(self, clip: Tensor) -> Upsampled:
        """Restore every frame of a clip (B, T, 3, h, w) in [0, 1]."""

    def with_intermediates(self, clip: Tensor) -> tuple[Upsampled, Intermediates | None]:
        """As `forward`, and what was made on the way, where the network makes pictures there; None otherwise."""
        return self(clip), None

    def spared_macs(self, frames: int, height: int, width: int) -> int:
        """Multiply-accumulates that the published code spends on a clip of this size, to no effect, and this does not.

        Published costs, which `distill list --json` gives beside ours, contain them.
        """
        return 0

    @abstractmethod
    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Restore frames (3, h, w) one by one, in order, as `forward` would, yielding (3, scale*h, scale*w).

        Never holds more than the network's temporal reach, so a video of any length fits.
        """


class SlidingNetwork(VideoNetwork):
    """A network of fixed reach, which slides over a video of any length; what can be exported.

    Attributes:
        window: odd number of frames that a restored frame depends on, itself in the middle.
    """

    window: int

    @property
    def taken(self) -> int:
        """Frames that `run` takes: a window, and the frame before it where the frame rate is doubled."""
        return self.window + self.time_scale - 1

    @abstractmethod
    def run(self, frames: Tensor) -> tuple[Tensor, ...]:
        """The pictures of one run of a windowed file, (1, taken, 3, h, w) -> `time_scale` of (1, 3, scale*h, scale*w).

        The last of them is the restored middle frame of the last window; where the frame rate is doubled, the first is
        the frame half-way between it and the frame before it.
        """

    @abstractmethod
    def step(self) -> Step:
        """One frame further, with the weights as they now are."""


class WindowNetwork(SlidingNetwork):
    """A network that sees an odd `window` of frames and restores the middle one.

    Only `reconstruct` must be written; sliding over a clip, edge frames repeated, is inherited. A subclass may
    override `forward` by an equal path that does once what neighbouring windows share.
    """

    @abstractmethod
    def reconstruct(self, window: Tensor) -> Upsampled:
        """Restore the middle frame of a window (B, window, 3, h, w): the fields have no T' axis.

        Sizes that are no multiple of 4 are padded by repeating the last row and column, and cropped again.
        """

    def forward(self, clip: Tensor) -> Upsampled:
        batch, length = clip.shape[:2]
        stacked = windows(clip, self.window).flatten(0, 1)
        restored = self.reconstruct(stacked)
        return restored.map(lambda field: field.unflatten(0, (batch, length)))

    def run(self, frames: Tensor) -> tuple[Tensor, ...]:
        return (self.reconstruct(frames).frames,)

    def step(self) -> StreamStep:
        """One frame further, with the weights as they now are.

        A subclass whose windows share work overrides this by a step that does it once.
        """
        return _WindowStep(self)

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        return (restored.frames[0] for restored in self.stream_features(frames))

    def stream_features(self, frames: Iterable[Tensor]) -> Iterator[Upsampled]:
        """As `stream`, with the features: fields of one frame and no T' axis, (1, C, H, W)."""
        step, delay = self.step(), self.window // 2
        memories: tuple[Tensor, ...] | None = None
        for place, frame in enumerate(repeat_edges(frames, delay)):
            picture = frame.unsqueeze(0)
            if memories is None:
                memories = step.start(picture)
            known = step.advance(picture, *memories)
            if place >= 2 * delay:
                yield step.restore(*known)
            memories = step.kept(*known)


class Memory(NamedTuple):
    """What a `Step` remembers of one kind: a tensor (1, depth * channels, H, W), the oldest entry first.

    Attributes:
        name: of the kind.
        channels: of one entry.
        depth: entries remembered from step to step.
        enlarged: H and W are so many times the frame's sides.
        multiple: to a multiple of which the frame's sides are padded first.
    """

    name: str
    channels: int
    depth: int
    enlarged: int = 1
    multiple: int = 1

    def shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """For frames of that size."""
        high, wide = (self.enlarged * (side + -side % self.multiple) for side in (height, width))
        return (1, self.depth * self.channels, high, wide)


class Step(nn.Module, ABC):
    """One frame further: takes a frame and memories, gives a restored frame and the memories for the next one.

    Feed it every frame of a shot, the first and the last one `window // 2` times more (`repeat_edges`), starting from
    memories of zeros. What the first `2 * (window // 2)` feeds restore is to be thrown away; then every feed restores
    one frame, in order, as the window of frames around it would. A cut is the end of one shot and the start of the
    next.

    Where the frame rate is doubled, every feed first gives the frame half-way between the restored one and the one
    restored before it, which for the first frame of a shot is to be thrown away too.

    Attributes:
        memories: what is remembered.
    """

    memories: tuple[Memory, ...]

    def start(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Memories of zeros for frames like this one, (1, 3, h, w)."""
        return tuple(frame.new_zeros(memory.shape(*frame.shape[-2:])) for memory in self.memories)

    @abstractmethod
    def forward(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        """The pictures that `SlidingNetwork.run` gives, and the memories for the next step."""


class StreamStep(Step):
    """The step of a `WindowNetwork`, in two parts, so that what is thrown away need not be restored."""

    @abstractmethod
    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        """All work that is of this frame alone or of it and earlier ones, (1, 3, h, w) and the memories.

        Returns:
            The memories with the newest entry added, so one entry deeper.
        """

    @abstractmethod
    def restore(self, *known: Tensor) -> Upsampled:
        """The restored frame and its features out of what `advance` gave; one frame, no T' axis."""

    def kept(self, *known: Tensor) -> tuple[Tensor, ...]:
        """What `advance` gave without the oldest entries."""
        return tuple(each[:, memory.channels :] for each, memory in zip(known, self.memories, strict=True))

    def forward(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        """The restored frame, and the memories for the next."""
        known = self.advance(frame, *memories)
        return self.restore(*known).frames, *self.kept(*known)


class _WindowStep(StreamStep):
    """Remembers frames and restores the window that they make, for a network whose windows share nothing."""

    def __init__(self, network: WindowNetwork) -> None:
        super().__init__()
        self.network = network
        self.memories = (Memory("frames", 3, network.window - 1),) if network.window > 1 else ()

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.cat((memory, frame), 1) for memory in memories) or (frame,)

    def restore(self, *known: Tensor) -> Upsampled:
        (frames,) = known
        return self.network.reconstruct(frames.unflatten(1, (self.network.window, 3)))

    def kept(self, *known: Tensor) -> tuple[Tensor, ...]:
        return super().kept(*known) if self.memories else ()


class ClipNetwork(VideoNetwork):
    """A network that restores a clip as a whole, such as a recurrent one.

    Only `forward` must be written. Streaming works through chunks of `chunk` frames that share `overlap` frames,
    so a video of any length fits; the first half of what two chunks share is taken from the earlier one.

    Attributes:
        chunk: frames that are restored together; memory grows with it.
        overlap: frames that two chunks share, at least 1; the more, the less a cut between chunks is felt.
        usual_frames: of the clip that the network's cost is told for.
    """

    chunk: int = 60
    overlap: int = 10
    usual_frames: int = 7

    def restore(self, clip: Tensor) -> Iterator[Tensor]:
        """The frames of `forward(clip)`, one by one, for a clip (1, T, 3, h, w).

        A subclass overrides this to yield each frame before it makes the next, without the features.
        """
        yield from self(clip).frames[0]

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        if not 1 <= self.overlap < self.chunk:
            raise ValueError(f"overlap is {self.overlap}, expected at least 1 and less than chunk, {self.chunk}")
        source = iter(frames)
        held = list(islice(source, self.chunk))
        skipped = 0  # frames at the chunk's start that the chunk before has yielded
        while held:
            fresh = list(islice(source, self.chunk - self.overlap))
            kept = len(held) - (self.overlap // 2 if fresh else 0)
            restored = self.restore(torch.stack(held).unsqueeze(0))
            first = self.time_scale * (skipped - 1) + 1 if skipped else 0
            yield from islice(restored, first, self.time_scale * (kept - 1) + 1)
            held, skipped = (held[-self.overlap :] + fresh if fresh else []), kept - len(held) + self.overlap


def windows(clip: Tensor, window: int, before: int = 0) -> Tensor:
    """Every frame's window, the edge frames repeated ("duplicating these frames", STD Sec. 3.1).

    Args:
        clip: (B, T, ...).
        window: odd number of frames.
        before: so many more frames before each window.

    Returns:
        (B, T, before + window, ...).
    """
    reach, length = window // 2, clip.shape[1]
    offsets = torch.arange(-reach - before, reach + 1, device=clip.device)
    index = (torch.arange(length, device=clip.device)[:, None] + offsets).clamp(0, length - 1)
    return clip[:, index]


def _interleaved(given: Tensor | None, between: Tensor | None) -> Tensor | None:
    if given is None or between is None:
        return None
    pairs = torch.stack((given[:, :-1], between.to(given.dtype)), 2).flatten(1, 2)
    return torch.cat((pairs, given[:, -1:]), 1)


def repeat_edges(frames: Iterable[Tensor], times: int, before: int = 0) -> Iterator[Tensor]:
    """The frames, the first and the last of them `times` times more, the first another `before` times."""
    last = None
    for frame in frames:
        if last is None:
            yield from [frame] * (before + times)
        yield frame
        last = frame
    if last is not None:
        yield from [last] * times
