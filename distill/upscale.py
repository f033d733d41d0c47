"""A video in, a larger video out: timing, sound, orientation and colours stay as they were."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from pathlib import Path

import torch
from av.error import FFmpegError
from torch import Tensor

from distill.data import shots
from distill.data.clips import Frame, reason_of
from distill.data.video import Footage, open_footage
from distill.data.video_writer import VIDEO_SUFFIXES, FolderWriter, video_writer
from distill.errors import DataError
from distill.interfaces import VideoNetwork
from distill.metrics.psnr_ssim import to_8_bit

__all__ = ["UpscaleResult", "upscale"]


@dataclass(frozen=True)
class UpscaleResult:
    """What was written.

    Attributes:
        frames: how many.
        size: their height and width in pixels.
        frame_rate: frames per second on average: the source's, 25 for a folder of frames, or twice that where the
            network doubles it.
        audio: whether the target has the source's sound.
        seconds: how long it took.
    """

    frames: int
    size: tuple[int, int]
    frame_rate: Fraction
    audio: bool
    seconds: float


def upscale(
    network: VideoNetwork,
    source: Path,
    target: Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> UpscaleResult:
    """Upscale a video or a folder of frames, a few frames in memory at a time.

    Shots are restored apart: at a hard cut the network starts anew. Every frame keeps its time stamp, also at a
    variable frame rate, and the main sound track is copied bit by bit. A network that doubles the frame rate puts a
    frame half-way between two, in time too. Nothing is made up across a cut or after the end: there the last frame of
    the shot stands once more in its place, half-way to the next shot, or half a frame after the last one. So twice as
    many frames come out as go in, and the rate and the duration stay even.

    Frames noted as turned are written upright. A video is encoded as H.264 (CRF 16, 4:2:0, 8 bit) with the BT.709
    matrix in limited range, so tagged, whatever the source's; its primaries and transfer function stay. Subtitles and
    further sound tracks are left out. What is written appears at `target` only when it is complete.

    Args:
        network: what upscales; it is moved to `device` and left in evaluation mode.
        source: a video, or a folder of frames, which count as 25 per second.
        target: a video to write or replace (.mp4, .mkv or .mov); or, without suffix, a new or empty folder that gets
            PNG frames 000001.png, 000002.png, ..., without sound; a folder that becomes a folder of twice as many
            frames is one of 50 per second.
        device: where the network runs.
        progress: called with 1 after every frame written.

    Raises:
        DataError: the source cannot be read, the target cannot be written or does not take the source's sound, both
            are the same, or the frames are too large for the device's memory.
    """
    started = time.perf_counter()
    _check_paths(source, target)
    network.to(device).eval()
    count, size = 0, (0, 0)
    try:
        with ExitStack() as stack:
            footage = stack.enter_context(open_footage(source))
            output_footage = footage.quickened(network.time_scale)
            partial = stack.enter_context(_renamed_when_complete(target))
            folder = _is_folder(target)
            writer = FolderWriter(partial) if folder else stack.enter_context(video_writer(partial, output_footage))
            stack.enter_context(torch.inference_mode())
            for pixels, stamp in _upscaled(network, footage, device):
                writer.write(pixels, stamp)
                count, size = count + 1, pixels.shape[:2]
                if progress is not None:
                    progress(1)
            writer.finish()
    except torch.OutOfMemoryError as error:
        raise DataError(
            f"The memory of {device} does not hold the network's work on a frame of {source}; take a smaller network "
            "or video, or another device."
        ) from error
    except (FFmpegError, OSError) as error:
        raise DataError(f"{target} cannot be written ({reason_of(error)}); make room or give another place.") from error
    return UpscaleResult(count, size, output_footage.rate, writer.audio, time.perf_counter() - started)


def _check_paths(source: Path, target: Path) -> None:
    if not source.exists():
        raise DataError(f"{source} does not exist; give a video or a folder of frames.")
    if source.resolve() == target.resolve():
        raise DataError(f"{target} is source and target at once; give the target another name.")
    if not target.parent.is_dir():
        raise DataError(f"{target} cannot be written because {target.parent} is no folder; create it first.")
    if _is_folder(target):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise DataError(f"{target} exists and is not an empty folder; give a new one for the frames.")
    elif target.suffix.lower() not in VIDEO_SUFFIXES:
        raise DataError(
            f"{target} ends in {target.suffix}; give a name ending in {', '.join(VIDEO_SUFFIXES)} for a video, or "
            "without suffix for a folder of PNG frames."
        )


def _is_folder(target: Path) -> bool:
    return target.is_dir() or not target.suffix


@contextmanager
def _renamed_when_complete(target: Path) -> Iterator[Path]:
    """A path beside the target that becomes the target at the end, and vanishes on an error or Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix=".upscale-", dir=target.parent) as folder:
        partial = Path(folder) / target.name
        yield partial
        if target.is_dir():
            target.rmdir()  # empty, or else this fails and nothing is lost
        partial.replace(target)


def _upscaled(network: VideoNetwork, footage: Footage, device: torch.device | str) -> Iterator[tuple[Frame, int]]:
    """Larger frames with their time stamps, in units of the target's time base."""
    restored = _restored(network, footage, device)
    return restored if network.time_scale == 1 else _doubled(restored, footage)


def _restored(network: VideoNetwork, footage: Footage, device: torch.device | str) -> Iterator[tuple[Frame, int]]:
    """Larger frames with the time stamps of those they were made from, or come after; as many for each given one."""
    stamps: deque[int] = deque()

    def low_resolution(shot: Iterator[tuple[Frame, int]]) -> Iterator[Tensor]:
        for pixels, stamp in shot:
            stamps.append(stamp)
            yield torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() / 255

    # a window that spans a cut would mix two pictures
    for shot in shots(footage.frames, itemgetter(0)):
        larger: tuple[Frame, int] | None = None
        for place, frame in enumerate(network.stream(low_resolution(shot))):
            stamp = stamps.popleft() if larger is None or place % network.time_scale == 0 else larger[1]
            larger = to_8_bit(frame).permute(1, 2, 0).contiguous().cpu().numpy(), stamp
            yield larger
        if larger is not None and network.time_scale == 2:
            yield larger


def _doubled(frames: Iterator[tuple[Frame, int]], footage: Footage) -> Iterator[tuple[Frame, int]]:
    """Frames, every other one given, with time stamps of half the unit: what is not given lies half-way."""
    step = max(1, round(1 / (footage.rate * footage.time_base)))
    waiting: tuple[Frame, int] | None = None
    for given, between in zip(frames, frames, strict=True):
        pixels, stamp = given
        if waiting is not None:
            step = stamp - waiting[1]
            yield waiting[0], waiting[1] + stamp
        yield pixels, 2 * stamp
        waiting = between
    if waiting is not None:
        yield waiting[0], 2 * waiting[1] + step  # players show the last frame as long as the one before it
