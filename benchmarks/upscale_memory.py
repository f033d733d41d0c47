"""Does upscaling need more memory for a longer video? Runs on Linux, prints a table.

python benchmarks/upscale_memory.py
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import date
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
import torch
from av.video.frame import VideoFrame

from distill.data import find_clips, sample_clips
from distill.upscale import upscale
from students.fastdvdnet import FastDVDnet

LENGTHS = (50, 1000)
WIDTH, HEIGHT = 64, 48
EARLY = 100


def write_clip(path: Path, length: int) -> None:
    """A window that wanders over the frames of a sample clip, with a sine as sound."""
    frames = list(islice(find_clips(sample_clips("train"))[0].frames(), 40))
    down, right = (side - window for side, window in zip(frames[0].shape[:2], (HEIGHT, WIDTH), strict=True))
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=Fraction(25), options={"crf": "12"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = output.add_stream("aac", rate=48000, layout="mono")
        for index, frame in enumerate(islice(cycle(frames), length)):
            top, left = index % down, 2 * index % right
            piece = np.ascontiguousarray(frame[top : top + HEIGHT, left : left + WIDTH])
            output.mux(video.encode(VideoFrame.from_ndarray(piece, format="rgb24")))
        output.mux(video.encode(None))
        for start in range(0, length * 1920, 1024):  # 48000 / 25 samples a frame
            wave = 0.2 * np.sin(np.arange(start, start + 1024) * 2 * np.pi * 440 / 48000)
            piece = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 48000, start
            output.mux(sound.encode(piece))
        output.mux(sound.encode(None))


def megabytes(field: str) -> float:
    """A line of this process's memory: VmRSS is now, VmHWM the most since it began."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measured(source: Path, target: Path) -> dict[str, float]:
    """One upscaling in this process: frames, resident megabytes at their peak, early and at the end, seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    early: list[float] = []
    count = 0

    def progress(frames: int) -> None:
        nonlocal count
        count += frames
        if count == EARLY:
            early.append(megabytes("VmRSS"))

    result = upscale(FastDVDnet(channels=16, blocks=1), source, target, progress=progress)
    return {
        "frames": result.frames,
        "peak": megabytes("VmHWM"),
        "early": early[0] if early else float("nan"),
        "end": megabytes("VmRSS"),
        "seconds": result.seconds,
    }


def main() -> None:
    """A process for each length, so that none inherits the other's memory."""
    print(
        f"{date.today()}, {platform.machine()}, 1 thread, torch {torch.__version__}, PyAV {av.__version__}, "
        f"{WIDTH}x{HEIGHT} to {4 * WIDTH}x{4 * HEIGHT} with sound, FastDVDnet(channels=16, blocks=1)"
    )
    print(f"{'frames':>7}{'peak MB':>10}{f'MB at {EARLY}':>12}{'MB at end':>12}{'seconds':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for length in LENGTHS:
            source, target = Path(folder) / f"{length}.mp4", Path(folder) / f"{length}-out.mp4"
            write_clip(source, length)
            run = subprocess.run(
                [sys.executable, __file__, str(source), str(target)],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            row = json.loads(run.stdout)
            print(
                f"{row['frames']:>7}{row['peak']:>10.1f}{row['early']:>12.1f}{row['end']:>12.1f}{row['seconds']:>10.1f}"
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measured(Path(sys.argv[1]), Path(sys.argv[2]))))
    else:
        main()
