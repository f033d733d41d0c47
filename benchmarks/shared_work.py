"""What doing once per clip what neighbouring windows share gains: `forward` against every window on its own.

    python benchmarks/shared_work.py [--runs N] [--threads N]

Both ways run interleaved in one process on the same seven frames of 64x48 low-resolution pixels with seeded weights;
prints the medians, their ratio, and the largest difference of the two results.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from distill.interfaces import WindowNetwork, windows
from distill.networks import registry

NETWORKS = ("edvr-m", "edvr-s", "rbpn-s", "fastdvdnet", "fastdvdnet-mobile", "vsrnet")


def once(network: WindowNetwork, clip: torch.Tensor) -> torch.Tensor:
    return network(clip).frames[0]


def separately(network: WindowNetwork, clip: torch.Tensor) -> torch.Tensor:
    return network.reconstruct(windows(clip, network.window)[0]).frames


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clip = torch.rand(1, 7, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    print(f"{'network':<20}{'separately ms':>14}{'once ms':>10}{'ratio':>8}{'max |diff|':>12}")
    for name in NETWORKS:
        torch.manual_seed(0)
        network = registry.find(name).build().eval()
        assert isinstance(network, WindowNetwork)
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():  # silent at the start, and so equal whatever came before
                torch.nn.init.normal_(parameter, std=0.02)
        seconds: dict[str, list[float]] = {"once": [], "separately": []}
        with torch.inference_mode():
            difference = (once(network, clip) - separately(network, clip)).abs().max().item()
            for _ in range(options.runs):
                for way in (once, separately):
                    start = time.perf_counter()
                    way(network, clip)
                    seconds[way.__name__].append(time.perf_counter() - start)
        medians = {way: 1000 * statistics.median(times) for way, times in seconds.items()}
        ratio = medians["separately"] / medians["once"]
        print(f"{name:<20}{medians['separately']:>14.0f}{medians['once']:>10.0f}{ratio:>8.2f}{difference:>12.1e}")


if __name__ == "__main__":
    main()
