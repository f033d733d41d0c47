"""VDSR (Kim et al., CVPR 2016): a plain deep stack of convolutions on the bicubically upsampled frame."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.errors import CheckpointError
from distill.interfaces import Memory, Published, StreamStep, Upsampled, WindowNetwork
from distill.layers import Colour, pad_to_multiple
from distill.networks.tensor_names import demand, stack_length
from students.initial_weights import blind_to_brightness
from students.planes import Planes

__all__ = ["VDSR"]


class VDSR(WindowNetwork):
    """VDSR for x4 super-resolution, equal to the published network; it adds what it finds to the bicubic frame.

    With a window of more than one frame the upsampled frames are stacked into the first convolution. Seven RGB
    frames ("vsrnet-std") are one reading of the "VSRNet" in STD's table: it costs the 0.23 T multiply-accumulates
    and the time printed there, which Kappeler's published VSRNet does not (see `students.vsrnet`).

    Args:
        hidden_convs: convolutions between the first and the last.
        channels: of all but the last.
        colour: "y" works on luminance, as published; "rgb" on the three channels.
        window: odd number of frames seen; 1 as published.

    F^SR is the input of the last convolution, (B, channels, 4h, 4w). There is no F^LR, since every layer works at
    high resolution. An untrained network is the bicubic frame.
    """

    width_multiples: ClassVar[Mapping[str, int]] = {"channels": 16}

    def __init__(self, hidden_convs: int = 18, channels: int = 64, colour: Colour = "y", window: int = 1) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError(f"VDSR needs an odd window, not {window}")
        self.window = window
        self.hr_channels, self.lr_channels = channels, None
        self.planes = Planes(colour, self.scale)
        widths = [self.planes.count * window, *[channels] * (hidden_convs + 1)]
        body = [nn.Conv2d(*pair, 3, padding=1, bias=False) for pair in pairwise(widths)]
        last = nn.Conv2d(channels, self.planes.count, 3, padding=1, bias=False)
        self.features = nn.Sequential(*chain.from_iterable((conv, nn.ReLU()) for conv in body), last)
        for conv in body:
            nn.init.kaiming_normal_(conv.weight)  # torch's own default halves the signal at each of so many layers
        blind_to_brightness(body[0])
        nn.init.zeros_(last.weight)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        return _recognise_vdsr(state)

    def reconstruct(self, window: Tensor) -> Upsampled:
        planes = self.planes.seen(pad_to_multiple(window, 4))
        restored = self.restore_planes(self.planes.upsample(planes).flatten(1, 2))
        return self.planes.finished(restored, window[:, self.window // 2])

    def step(self) -> StreamStep:
        return super().step() if self.window == 1 else _Step(self)

    def restore_planes(self, stacked: Tensor) -> Upsampled:
        """The published network itself, on planes that are already of the final size.

        Args:
            stacked: (N, window * C, H, W), frame after frame; C is 1 for luminance and 3 for RGB.

        Returns:
            `frames` (N, C, H, W), planes like the input's, and `hr_features` (N, channels, H, W).
        """
        first = self.window // 2 * self.planes.count
        *body, last = self.features
        features = stacked
        for layer in body:
            features = layer(features)
        residual: Tensor = last(features)
        return Upsampled(stacked[:, first : first + self.planes.count] + residual, features, None)


class _Step(StreamStep):
    """Upsamples each frame once."""

    def __init__(self, network: VDSR) -> None:
        super().__init__()
        self.network = network
        count, scale = network.planes.count, network.scale
        self.memories = (
            Memory("frames", 3, network.window // 2),
            Memory("upsampled", count, network.window - 1, scale, multiple=4),
        )

    def advance(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        frames, upsampled = memories
        planes = self.network.planes
        large = planes.upsample(planes.seen(pad_to_multiple(frame, 4).unsqueeze(1)).flatten(0, 1))
        return torch.cat((frames, frame), 1), torch.cat((upsampled, large), 1)

    def restore(self, *known: Tensor) -> Upsampled:
        frames, upsampled = known
        return self.network.planes.finished(self.network.restore_planes(upsampled), frames[:, :3])


def _recognise_vdsr(state: Mapping[str, Tensor]) -> Published | None:
    """By our own names, which are the older of the two published layouts, or by the newer one's."""
    names = list(state)
    if all(re.fullmatch(r"(input|output|residual_layer\.\d+\.conv)\.weight", name) for name in names):
        hidden = stack_length(state, "residual_layer")
        state = {_older(name, hidden): tensor for name, tensor in state.items()}
    elif not all(re.fullmatch(r"features\.\d*[02468]\.weight", name) for name in names):
        return None
    if not state or any(tensor.ndim != 4 for tensor in state.values()):
        return None
    convs = (stack_length(state, "features") + 1) // 2
    missing = [name for name in (f"features.{2 * index}.weight" for index in range(convs)) if name not in state]
    if missing or convs < 2:
        lacking = ", ".join(missing) or "all but the first convolution"
        raise CheckpointError(f"This VDSR lacks {lacking} (by the names of its older layout); is the file complete?")
    ends = ("features.0.weight", f"features.{2 * convs - 2}.weight")
    demand(state, "VDSR", dict.fromkeys(ends, 4))
    first, last = (state[name] for name in ends)
    count = last.shape[0]
    window = first.shape[1] // count
    if count not in (1, 3) or first.shape[1] != window * count or window % 2 == 0:
        raise CheckpointError(
            f"This VDSR makes {count} planes of {first.shape[1]}; expected 1 (luminance) or 3 (RGB) planes of an odd "
            "number of such frames. Is the file complete?"
        )
    colour: Colour = "y" if count == 1 else "rgb"
    keywords = {"hidden_convs": convs - 2, "channels": first.shape[0], "colour": colour, "window": window}
    name = "vsrnet-std" if window > 1 else "vdsr" if colour == "y" else "vdsr-rgb"
    return Published(name, keywords, dict(state))


def _older(name: str, hidden: int) -> str:
    """A name of the newer layout in the older one's: input, residual_layer.{i}.conv, output -> features.{0, 2, ...}."""
    match = re.match(r"residual_layer\.(\d+)\.", name)
    position = int(match[1]) + 1 if match else 0 if name.startswith("input.") else hidden + 1
    return f"features.{2 * position}.weight"
