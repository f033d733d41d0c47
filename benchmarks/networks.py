"""The table of docs/networks.md: what every network is and costs on this host. Writes it into that file.

    python benchmarks/networks.py [--only NAME ...] [--threads N]

Each network runs in a process of its own on one clip of 180x120 low-resolution pixels: the median of three runs after
one to warm up, or that first run where it takes over ten seconds. Memory is the growth of the process from
before the network was built to its peak. Weights are fresh; they change no figure here.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from distill.interfaces import ClipNetwork, VideoNetwork, WindowNetwork
from distill.networks import registry
from distill.networks.costs import HEIGHT, WIDTH, costs

TARGET = Path(__file__).resolve().parents[1] / "docs" / "networks.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def measure(name: str, threads: int) -> dict[str, float]:
    """Milliseconds per restored frame, and megabytes, of one network in this process."""
    torch.set_num_threads(threads)
    before = resident()
    network = registry.find(name).build().eval()
    frames = network.window if isinstance(network, WindowNetwork) else 1
    if isinstance(network, ClipNetwork):
        frames = network.usual_frames
    clip = torch.rand(1, frames, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            restored = frames_of(network, clip)
            seconds.append(time.perf_counter() - start)
            if seconds[0] > 10:
                break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ms": 1000 * statistics.median(seconds[1:] or seconds) / restored, "mb": peak - before}


def frames_of(network: VideoNetwork, clip: torch.Tensor) -> int:
    """Restore, and tell how many frames that gave."""
    if isinstance(network, WindowNetwork):
        network.reconstruct(clip)
        return 1
    return network(clip).frames.shape[1]


def resident() -> float:
    """Megabytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def in_own_process(name: str, threads: int) -> dict[str, float]:
    """`measure`, undisturbed by what other networks left behind."""
    command = [sys.executable, __file__, "--measure", name, "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(facts: dict, figures: dict[str, float]) -> str:
    published = "yes" if "recognise" in vars(registry.find(facts["name"]).network) else "-"
    weights = (
        "ship" if facts["weights"] and not facts["extra"] else f"extra `{facts['extra']}`" if facts["extra"] else "-"
    )
    return (
        f"| `{facts['name']}` | {facts['role']} | {facts['parameters']:,} | {facts['macs'] / 1e9:,.2f} "
        f"| {facts['frames_in']} > {facts['frames_out']} | {figures['mb']:,.0f} | {figures['ms']:,.0f} "
        f"| {facts['hr_channels'] or 'none'} | {facts['lr_channels'] or 'none'} | {published} | {weights} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.threads)))
        return
    lines = [
        "| network | role | parameters | GMACs | frames in > out | memory MB | host ms per frame | F^SR | F^LR "
        "| opens published files | weights |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for facts in costs():
        if not options.only or facts["name"] in options.only:
            lines.append(row(facts, in_own_process(facts["name"], options.threads)))
            print(lines[-1], flush=True)
    if options.only:
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines += [
        "",
        f"Measured by `python benchmarks/networks.py` on {dt.date.today()}, {processor()}, "
        f"{options.threads} threads, torch {torch.__version__}, Python {platform.python_version()}, commit {commit}.",
    ]
    head, _, rest = TARGET.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    TARGET.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}", encoding="utf-8")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
