"""VSRNet (Kappeler et al., IEEE TCI 2016): three convolutions on bicubically upsampled frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckpointError
from distill.interfaces import Memory, Published, StreamStep, Upsampled, WindowNetwork, windows
from distill.layers import Colour, pad_to_multiple
from distill.networks.tensor_names import demand
from students.initial_weights import blind_to_brightness
from students.planes import PlaneBase, Planes, checked_base

__all__ = ["VSRNet"]


class VSRNet(WindowNetwork):
    """VSRNet for x4 super-resolution, equal to the published network on equal input.

    Frames at equal distance from the middle one share a filter (symmetric weight enforcement): f0, f1, f2, f1, f0.
    The published network is fed frames that an optical flow has brought onto the middle one; here it sees them
    upsampled and unmoved, since that flow is no part of it. `restore_planes` takes frames moved by other means.

    Args:
        window: odd number of frames seen.
        widths: channels of the first layer, per frame, and of the second.
        kernels: sides of the three layers' kernels, odd.
        colour: "y" works on luminance, as published; "rgb" on the three channels.
        base: "none", as published, makes the picture from nothing; "bicubic" adds the bicubic middle frame, at which
            training then starts. For training from scratch, which without it takes long, choose "bicubic".

    F^SR is the input of the last convolution, (B, widths[1], 4h, 4w). There is no F^LR, since every layer works at
    high resolution.
    """

    width_multiples: ClassVar[Mapping[str, int]] = {"widths": 16}

    def __init__(
        self,
        window: int = 5,
        widths: tuple[int, int] = (64, 32),
        kernels: tuple[int, int, int] = (9, 5, 5),
        colour: Colour = "y",
        base: PlaneBase = "none",
    ) -> None:
        super().__init__()
        if window % 2 == 0 or any(side % 2 == 0 for side in kernels):
            raise ValueError(f"VSRNet needs an odd window ({window}) and odd kernels ({tuple(kernels)})")
        self.window = window
        self.hr_channels, self.lr_channels = widths[1], None
        self.base = checked_base(base)
        self.planes = Planes(colour, self.scale)
        self.filters = [min(index, window - 1 - index) for index in range(window)]
        """Which first layer each frame goes through."""
        for index in range(window // 2 + 1):
            conv = nn.Conv2d(self.planes.count, widths[0], kernels[0], padding=kernels[0] // 2)
            self.add_module(f"conv1_f{index}", conv)
        self.conv2 = nn.Conv2d(widths[0] * window, widths[1], kernels[1], padding=kernels[1] // 2)
        self.conv3 = nn.Conv2d(widths[1], self.planes.count, kernels[2], padding=kernels[2] // 2)
        for conv in (*self._first_layers(), self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        if base == "bicubic":
            for conv in self._first_layers():
                blind_to_brightness(conv)
            nn.init.zeros_(self.conv3.weight)
            nn.init.zeros_(self.conv3.bias)  # type: ignore[arg-type]

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        if "conv1_f0.weight" not in state:
            return None
        demand(state, "VSRNet", {"conv1_f0.weight": 4, "conv2.weight": 4, "conv3.weight": 4})
        first, second, third = (state[f"{name}.weight"] for name in ("conv1_f0", "conv2", "conv3"))
        filters = sum(name.startswith("conv1_f") and name.endswith(".weight") for name in state)
        window = 2 * filters - 1
        if second.shape[1] != first.shape[0] * window:
            raise CheckpointError(
                f"This VSRNet has {filters} first layers of {first.shape[0]} channels, for {window} frames, but its "
                f"second layer takes {second.shape[1]} channels; expected {first.shape[0] * window}."
            )
        if third.shape[0] not in (1, 3):
            raise CheckpointError(f"This VSRNet makes {third.shape[0]} planes; expected 1 (luminance) or 3 (RGB).")
        keywords = {
            "window": window,
            "widths": (first.shape[0], second.shape[0]),
            "kernels": (first.shape[-1], second.shape[-1], third.shape[-1]),
            "colour": "y" if third.shape[0] == 1 else "rgb",
            "base": "none",
        }
        return Published("vsrnet", keywords, dict(state))

    def reconstruct(self, window: Tensor) -> Upsampled:
        planes = self.planes.seen(pad_to_multiple(window, 4))
        restored = self.restore_planes(self.planes.upsample(planes).flatten(1, 2))
        return self.planes.finished(restored, window[:, self.window // 2])

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but each frame goes through each first layer once, whatever windows it is in."""
        batch, length = clip.shape[:2]
        large = self.planes.upsample(self.planes.seen(pad_to_multiple(clip, 4)))
        seen = [
            functional.relu(conv(large.flatten(0, 1))).unflatten(0, (batch, length)) for conv in self._first_layers()
        ]
        sources = windows(torch.arange(length, device=clip.device)[None], self.window)[0]  # (T, window)
        stacked = torch.cat([seen[index][:, sources[:, place]] for place, index in enumerate(self.filters)], 2)
        restored = self._from_first_layer(stacked.flatten(0, 1), large.flatten(0, 1))
        finished = self.planes.finished(restored, clip.flatten(0, 1))
        return finished.map(lambda field: field.unflatten(0, (batch, length)))

    def step(self) -> StreamStep:
        return _Step(self)

    def restore_planes(self, stacked: Tensor) -> Upsampled:
        """The published network itself, on planes of the final size, motion-compensated or not.

        Args:
            stacked: (N, window * C, H, W), frame after frame; C is 1 for luminance and 3 for RGB.

        Returns:
            `frames` (N, C, H, W), planes like the input's, and `hr_features` (N, widths[1], H, W).
        """
        frames = stacked.unflatten(1, (self.window, self.planes.count)).unbind(1)
        convs = self._first_layers()
        seen = [functional.relu(convs[index](frame)) for index, frame in zip(self.filters, frames, strict=True)]
        return self._from_first_layer(torch.cat(seen, 1), frames[self.window // 2])

    def _first_layers(self) -> list[nn.Conv2d]:
        layers = [self.get_submodule(f"conv1_f{index}") for index in range(self.window // 2 + 1)]
        return [layer for layer in layers if isinstance(layer, nn.Conv2d)]

    def _from_first_layer(self, stacked: Tensor, middle: Tensor) -> Upsampled:
        """First-layer features (N, window * widths[0], H, W) and middle planes (N, C, H, W)."""
        return self._from_second_layer(self.conv2(stacked), middle)

    def _from_second_layer(self, second: Tensor, middle: Tensor) -> Upsampled:
        """Second-layer results (N, widths[1], H, W) and middle planes (N, C, H, W)."""
        features = functional.relu(second)
        picture: Tensor = self.conv3(features)
        return Upsampled(picture + middle if self.base == "bicubic" else picture, features, None)


class _Step(StreamStep):
    """Applies the first layers once per frame, and adds what they mean for each later result to a sum at once.

    The second layer, a convolution over the frames' features one after the other, is a sum of convolutions over each.
    So a sum of `widths[1]` channels is remembered for every result that is not complete, where features would need
    `widths[0]` for every frame and first layer. Sums are of another order than the windowed network's: equal to 1e-5.
    """

    def __init__(self, network: VSRNet) -> None:
        super().__init__()
        self.network = network
        self.reach = reach = network.window // 2
        self.width = network.conv2.out_channels
        count, scale = network.planes.count, network.scale
        self.memories = (
            Memory("frames", 3, reach),
            Memory("upsampled", count, reach, scale, multiple=4),
            Memory("sums", self.width, 2 * reach, scale, multiple=4),
        )
        per_place = network.conv2.weight.detach().chunk(network.window, 1)
        for index in range(reach + 1):
            places = dict.fromkeys((index, network.window - 1 - index))
            self.register_buffer(f"weight{index}", torch.cat([per_place[place] for place in places]), persistent=False)

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        frames, upsampled, sums = memories
        planes = self.network.planes
        large = planes.upsample(planes.seen(pad_to_multiple(frame, 4).unsqueeze(1)).flatten(0, 1))
        parts: dict[int, Tensor] = {}
        for index, first in enumerate(self.network._first_layers()):
            seen = functional.conv2d(
                functional.relu(first(large)), self.get_buffer(f"weight{index}"), padding=self.network.conv2.padding
            )
            for place, part in zip((index, self.network.window - 1 - index), seen.split(self.width, 1), strict=False):
                parts[place] = part
        # the result that this frame completes sees it in the last place, the furthest one in the first
        added = torch.cat([parts[place] for place in reversed(range(self.network.window))], 1)
        complete = 2 * self.reach * self.width
        sums = torch.cat((sums + added[:, :complete], added[:, complete:]), 1)
        return torch.cat((frames, frame), 1), torch.cat((upsampled, large), 1), sums

    def restore(self, *known: Tensor) -> Upsampled:
        frames, upsampled, sums = known
        network = self.network
        assert network.conv2.bias is not None
        second = sums[:, : self.width] + network.conv2.bias[:, None, None]
        restored = network._from_second_layer(second, upsampled[:, : network.planes.count])
        return network.planes.finished(restored, frames[:, :3])
