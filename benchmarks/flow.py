"""How well and how fast do the flow estimators tell the motion of real footage? Prints a table.

    python benchmarks/flow.py

Frames of the shipped sample clips, halved, their middle 180x120. Quality is the PSNR of the second frame, warped by the
flow, against the first, beside that of the second frame as it is; it also falls where something is uncovered, and it
tells nothing about flow in even areas. Both estimators take turns on each pair, in one thread, with nothing kept.
"""

from __future__ import annotations

import importlib
import platform
import time
from datetime import date
from itertools import islice
from statistics import fmean, median

import torch
from torch import Tensor
from torch.nn import functional

from distill.data import find_clips, sample_clips
from distill.errors import ConfigError
from distill.layers import warp
from distill.networks.optical_flow import FlowMethod, clear_flow_cache, estimate_flow

WIDTH, HEIGHT = 180, 120
FRAMES = 9
DISTANCES = (1, 3)  # a window of seven frames looks three away
METHODS: tuple[FlowMethod, ...] = ("torch", "farneback")


def excerpts() -> dict[str, Tensor]:
    """(FRAMES, 3, HEIGHT, WIDTH) of each clip, of 8 bits."""
    found = {}
    for clip in [*find_clips(sample_clips("train")), *find_clips(sample_clips("held_out"))]:
        frames = torch.stack([torch.from_numpy(frame) for frame in islice(clip.frames(), FRAMES)])
        halved = functional.interpolate(
            frames.permute(0, 3, 1, 2) / 255, scale_factor=0.5, mode="bicubic", antialias=True
        )
        top, left = (halved.shape[-2] - HEIGHT) // 2, (halved.shape[-1] - WIDTH) // 2
        halved = halved[..., top : top + HEIGHT, left : left + WIDTH].clamp(0, 1)
        found[clip.name] = (halved * 255).round() / 255
    return found


def available() -> list[FlowMethod]:
    """The estimators that are installed."""
    found: list[FlowMethod] = []
    for method in METHODS:
        try:
            estimate_flow(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), method)
        except ConfigError:
            continue
        found.append(method)
    return found


def psnr(shown: Tensor, wanted: Tensor) -> float:
    return float(-10 * (shown - wanted).square().mean().log10())


def timed(first: Tensor, second: Tensor, method: FlowMethod) -> tuple[Tensor, float]:
    """The flow and the milliseconds of a pair."""
    clear_flow_cache()
    start = time.perf_counter()
    flow = estimate_flow(first, second, method)
    return flow, (time.perf_counter() - start) * 1000 / len(first)


def main() -> None:
    """Every clip and distance, then the speeds."""
    torch.set_num_threads(1)
    methods = available()
    opencv = "not installed"
    if "farneback" in methods:
        cv2 = importlib.import_module("cv2")
        cv2.setNumThreads(1)
        opencv = cv2.__version__
    print(
        f"{date.today()}, {platform.machine()}, 1 thread, torch {torch.__version__}, OpenCV {opencv}, {WIDTH}x{HEIGHT}"
    )
    print(f"{'clip':<12}{'distance':>9}{'still':>9}" + "".join(f"{method:>15}" for method in METHODS) + "   (dB)")
    speeds: dict[FlowMethod, list[float]] = {method: [] for method in methods}
    batched: list[float] = []
    for name, frames in excerpts().items():
        for distance in DISTANCES:
            first, second = frames[:-distance], frames[distance:]
            quality: dict[FlowMethod, list[float]] = {method: [] for method in methods}
            for pair in zip(first.split(1), second.split(1), strict=True):
                for method in methods:
                    flow, milliseconds = timed(*pair, method)
                    speeds[method].append(milliseconds)
                    quality[method].append(psnr(warp(pair[1], flow, "border"), pair[0]))
            batched.append(timed(first, second, "torch")[1])
            still = fmean(psnr(two, one) for one, two in zip(first, second, strict=True))
            cells = [f"{fmean(quality[m]):.2f}" if m in methods else "not installed" for m in METHODS]
            print(f"{name:<12}{distance:>9}{still:>9.2f}" + "".join(f"{cell:>15}" for cell in cells))
    cells = [f"{median(speeds[m]):.1f}" if m in methods else "not installed" for m in METHODS]
    print(f"{'median ms a pair':<30}" + "".join(f"{cell:>15}" for cell in cells))
    print(f"{'in one batch of a clip':<30}{median(batched):>15.1f}")


if __name__ == "__main__":
    main()
