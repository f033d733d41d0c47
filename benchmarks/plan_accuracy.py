"""How near `distill plan` comes: its estimates beside measured times, and beside latencies that others published.

    python benchmarks/plan_accuracy.py [--device host.yaml] [--size 180x120] [NETWORK ...]
    python benchmarks/plan_accuracy.py --published

The first measures: each network is exported to ONNX and run by ONNX Runtime on one thread of this host; the median of
the processor time, which other work on the machine hardly changes, and its ratio to the estimate. --device is a table
of this host, as `export.plan.host.measure_host` writes it; without it one is measured first, in some five seconds.

The second measures nothing: it estimates networks whose latencies on phones are published, with the tables that ship.
The Snapdragons' tables were fitted to those very figures, the iPhone's was worked out of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.networks import registry
from export.formats import export, format_named
from export.graphs.graph import traced
from export.graphs.workload import Workload, workload
from export.interfaces import GIVEN_METADATA, Order
from export.plan.device import Device, read_device
from export.plan.estimate import estimate
from export.plan.host import measure_host, processor_seconds

STUDENTS = ("fastdvdnet-mobile", "vespcn-mobile", "fastdvdnet", "fastdvdnet-quarter", "vespcn", "vsrnet", "vdsr")

# ms; github.com/quic/ai-hub-models v0.45.0, commit 052dc1f, perf.yaml, qnn_dlc on a Samsung Galaxy S24 and S25; the
# last row: apple.github.io/coremltools/docs-guides/source/opt-quantization-perf.html
PUBLISHED = {
    "snapdragon-8-gen3": {
        "fp16": {"quicksrnet-s": 0.441, "quicksrnet-m": 0.476, "quicksrnet-l": 1.281, "srvgg": 4.267, "esrgan": 48.83},
        "int8": {"quicksrnet-s": 0.212, "quicksrnet-m": 0.221, "quicksrnet-l": 0.403, "srvgg": 1.239},
    },
    "snapdragon-8-elite": {
        "fp16": {"quicksrnet-s": 0.346, "quicksrnet-m": 0.372, "quicksrnet-l": 1.038, "srvgg": 3.222, "esrgan": 38.092},
        "int8": {"quicksrnet-s": 0.174, "quicksrnet-m": 0.182, "quicksrnet-l": 0.342, "srvgg": 0.911},
    },
    "iphone-15-pro": {"fp16": {"resnet50": 1.38}, "int8": {"resnet50": 0.77}},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=STUDENTS)
    parser.add_argument("--device", type=Path)
    parser.add_argument("--size", default="180x120", help="WIDTHxHEIGHT")
    parser.add_argument("--published", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.published:
        compare_published()
        return
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        table = options.device
        if table is None:
            table = Path(folder) / "host.yaml"
            measure_host(table)
        compare_measured(options.networks, (height, width), read_device(table), Path(folder))


def compare_measured(names: list[str], size: tuple[int, int], device: Device, folder: Path) -> None:
    print(f"{device.title}, {device.unit}; frames of {size[1]}x{size[0]}")
    print(f"{'network':<20}{'mode':<11}{'GMACs':>8}{'estimate ms':>13}{'measured ms':>13}{'ratio':>8}")
    ratios = []
    for name in names:
        for streaming in (False, True):
            order = Order(
                registry.find(name).build().eval(),
                dict.fromkeys(GIVEN_METADATA, "{}"),
                streaming=streaming,
                sizes=(size,),
            )
            asked = workload(traced(order.graph()))
            expected = estimate(asked, device, "fp32").ms
            measured = 1e3 * measured_seconds(order, folder / "network.onnx")
            ratios.append(measured / expected)
            mode = "streaming" if streaming else "windowed"
            print(
                f"{name:<20}{mode:<11}{asked.macs / 1e9:>8.2f}{expected:>13.1f}{measured:>13.1f}{ratios[-1]:>8.2f}",
                flush=True,
            )
    print(f"measured / estimated: {min(ratios):.2f} to {max(ratios):.2f}")


def measured_seconds(order: Order, path: Path) -> float:
    export(order, format_named("onnx"), path)
    program = format_named("onnx").open(path, 1)
    random = np.random.default_rng(0)
    inputs = {name: random.random(tensor.shape, dtype=np.float32) for name, tensor in order.graph().inputs.items()}
    return processor_seconds(lambda: program.run(inputs), seconds=3)


def compare_published() -> None:
    asked = published_networks()
    print(
        f"{'device':<20}{'precision':<10}{'network':<14}{'GMACs':>8}{'estimate ms':>13}{'published ms':>14}{'ratio':>8}"
    )
    for name, precisions in PUBLISHED.items():
        device = read_device(name)
        for precision, latencies in precisions.items():
            for network, published in latencies.items():
                expected = estimate(asked[network], device, precision).ms
                print(
                    f"{name:<20}{precision:<10}{network:<14}{asked[network].macs / 1e9:>8.2f}{expected:>13.3f}"
                    f"{published:>14.3f}{published / expected:>8.2f}"
                )


def published_networks() -> dict[str, Workload]:
    """What the networks ask, of 128x128 pixels enlarged by 4, or of 224x224 to classify."""
    networks = {
        "quicksrnet-s": (plain(32, 4, nn.ReLU), 128),
        "quicksrnet-m": (plain(32, 7, nn.ReLU), 128),
        "quicksrnet-l": (plain(64, 13, nn.ReLU), 128),
        "srvgg": (OnNearest(plain(64, 34, nn.PReLU)), 128),
        "esrgan": (ESRGAN(), 128),
        "resnet50": (resnet50(), 224),
    }
    return {
        name: workload(torch.export.export(network.eval(), (torch.zeros(1, 3, side, side),)))
        for name, (network, side) in networks.items()
    }


def conv(before: int, after: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, side, stride, side // 2)


def plain(channels: int, depth: int, activation: type[nn.Module]) -> nn.Sequential:
    """`depth` convolutions and a pixel shuffle: QuickSRNet, and Real-ESRGAN's general network without its base."""
    layers: list[nn.Module] = [conv(3, channels), activation()]
    for _ in range(depth - 2):
        layers += [conv(channels, channels), activation()]
    return nn.Sequential(*layers, conv(channels, 48), nn.PixelShuffle(4))


class OnNearest(nn.Module):
    """Adds the nearest-neighbour picture, as Real-ESRGAN's general network does."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, picture: Tensor) -> Tensor:
        return self.body(picture) + functional.interpolate(picture, size=(512, 512))


class Dense(nn.Module):
    """ESRGAN's dense block: each convolution sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(64 + 32 * place, 32 if place < 4 else 64) for place in range(5))

    def forward(self, features: Tensor) -> Tensor:
        known = [features]
        for layer in self.convs[:4]:
            known.append(functional.leaky_relu(layer(torch.cat(known, 1)), 0.2))
        return features + 0.2 * self.convs[4](torch.cat(known, 1))


class Thrice(nn.Module):
    """Three dense blocks plus identity."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Dense(), Dense(), Dense())

    def forward(self, features: Tensor) -> Tensor:
        return features + 0.2 * self.body(features)


class ESRGAN(nn.Module):
    """64 channels, 23 blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.trunk, self.after = conv(3, 64), nn.Sequential(*(Thrice() for _ in range(23))), conv(64, 64)
        self.grow = nn.ModuleList((conv(64, 64), conv(64, 64)))
        self.last = nn.Sequential(conv(64, 64), nn.LeakyReLU(0.2), conv(64, 3))

    def forward(self, picture: Tensor) -> Tensor:
        features = self.first(picture)
        features = features + self.after(self.trunk(features))
        for layer, side in zip(self.grow, (256, 512), strict=True):
            features = functional.leaky_relu(layer(functional.interpolate(features, size=(side, side))), 0.2)
        return self.last(features)


class Bottleneck(nn.Module):
    """ResNet-50's block, its normalisations folded."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(before, width, 1), nn.ReLU(), conv(width, width, 3, stride), nn.ReLU(), conv(width, 4 * width, 1)
        )
        changed = stride > 1 or before != 4 * width
        self.skip = conv(before, 4 * width, 1, stride) if changed else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.skip(features) + self.body(features))


def resnet50() -> nn.Sequential:
    """With its normalisations folded."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for place in range(blocks):
            layers.append(Bottleneck(before, width, 2 if place == 0 and width > 64 else 1))
            before = 4 * width
    return nn.Sequential(*layers, nn.AvgPool2d(7), nn.Flatten(), nn.Linear(before, 1000))


if __name__ == "__main__":
    main()
