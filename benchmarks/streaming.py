"""What a streaming export gains over a windowed one, and that both restore the same frames.

    python benchmarks/streaming.py [--size 180x120] [--threads N] [--runs N] [--precision fp32|int8] [STUDENT ...]

STUDENT is a run folder, a file of weights, or the name of a student, which then has seeded weights. Both exports run in
turn in one process with ONNX Runtime; prints the medians of a restored frame, their ratio, and the largest difference
over every frame of a clip, from the first to the last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from distill.data import find_clips, sample_clips
from distill.interfaces import WindowNetwork
from distill.networks import registry
from distill.networks.opening import open_network
from export.exported import ExportedNetwork
from export.footage import low_resolution_clips, of_size
from export.formats import export, format_named
from export.interfaces import Order
from export.machine import seconds_of

METADATA = dict.fromkeys(("network", "keywords", "degradation", "provenance"), "{}")


def opened(name: str) -> WindowNetwork:
    if Path(name).exists():
        network, _ = open_network(name)
    else:
        torch.manual_seed(0)
        network = registry.find(name).build().eval()
    assert isinstance(network, WindowNetwork)
    return network


def exported(network: WindowNetwork, streaming: bool, options: argparse.Namespace, folder: str) -> ExportedNetwork:
    kind = format_named("onnx")
    target = Path(folder) / f"{streaming}{kind.suffix}"
    clips = low_resolution_clips(find_clips(sample_clips("train")), "bi", network.scale)
    export(Order(network, METADATA, options.precision, streaming, (options.size,), clips), kind, target)
    return ExportedNetwork(kind.open(target, options.threads), target)


def one_run(network: ExportedNetwork, clip: torch.Tensor) -> Callable[[], object]:
    *_, inputs = network.inputs_of(clip)
    return lambda: network.program.run(inputs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("students", nargs="*", default=["fastdvdnet-mobile", "fastdvdnet"])
    parser.add_argument("--size", default=(120, 180), type=lambda text: tuple(map(int, reversed(text.split("x")))))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    (clip,) = low_resolution_clips(find_clips(sample_clips("held_out")), "bi", 4, count=1)
    clip = of_size(clip, options.size)
    print(f"{'student':<24}{'windowed ms':>12}{'streaming ms':>13}{'ratio':>8}{'frames':>8}{'max |diff|':>12}")
    for name in options.students:
        network = opened(name)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            both = [exported(network, streaming, options, folder) for streaming in (False, True)]
            windowed, streamed = (torch.stack(list(each.stream(clip))) for each in both)
            runs = [one_run(each, clip) for each in both]
            samples = [[seconds_of(run) for run in runs] for _ in range(options.runs + 3)][3:]
        slow, fast = (statistics.median(column) * 1e3 for column in zip(*samples, strict=True))
        ratio = statistics.median(first / second for first, second in samples)
        difference = (windowed - streamed).abs().max().item()
        print(f"{Path(name).name:<24}{slow:>12.1f}{fast:>13.1f}{ratio:>8.2f}{len(clip):>8}{difference:>12.1e}")


if __name__ == "__main__":
    main()
