"""D3DNet (Ying et al., IEEE SPL 2020): deformable 3-D convolutions over seven frames, then temporal fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckpointError
from distill.interfaces import Published, Upsampled, WindowNetwork
from distill.layers import Colour, leaky, pad_to_multiple
from distill.networks.tensor_names import demand, stack_length
from students.deformable_3d import DeformableConv3d
from students.initial_weights import blind_to_brightness
from students.planes import Planes

__all__ = ["D3DNet"]


class D3DNet(WindowNetwork):
    """D3DNet, equal to the published network; it adds what it finds to the bilinearly upsampled middle frame.

    Args:
        window: odd number of frames seen.
        channels: of the body and of F^SR.
        align_blocks: residual blocks of deformable 3-D convolutions.
        reconstruct_blocks: residual blocks of 2-D convolutions after the fusion.
        scale: spatial factor.
        colour: "y" works on luminance, as published; "rgb" on the three channels.

    F^SR is the pixel shuffle's output, (B, channels, scale*h, scale*w); F^LR the fused feature, (B, channels, h, w).
    An untrained network is the bilinear middle frame.
    """

    width_multiples: ClassVar[Mapping[str, int]] = {"channels": 16}

    def __init__(
        self,
        window: int = 7,
        channels: int = 64,
        align_blocks: int = 5,
        reconstruct_blocks: int = 6,
        scale: int = 4,
        colour: Colour = "y",
    ) -> None:
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"D3DNet needs an odd window, not {window}")
        self.window, self.scale = window, scale
        self.hr_channels = self.lr_channels = channels
        self.planes = Planes(colour, scale)
        count = self.planes.count
        self.input = nn.Sequential(nn.Conv3d(count, channels, 3, padding=1, bias=False), nn.LeakyReLU(0.1))
        self.residual_layer = nn.Sequential(
            *(_Residual(DeformableConv3d(channels), DeformableConv3d(channels)) for _ in range(align_blocks))
        )
        self.TA = nn.Conv2d(window * channels, channels, 1)
        # published as `reconstruct`, which is a method's name here
        self.reconstruction = nn.Sequential(
            *(_Residual(_plain(channels), _plain(channels)) for _ in range(reconstruct_blocks))
        )
        self.upscale = nn.Sequential(
            nn.Conv2d(channels, channels * scale**2, 1, bias=False),
            nn.PixelShuffle(scale),
            nn.Conv2d(channels, count, 3, padding=1, bias=False),
            nn.Conv2d(count, count, 3, padding=1, bias=False),
        )
        for layer in (self.input[0], self.upscale[0]):
            nn.init.kaiming_normal_(layer.weight, a=0.1)  # type: ignore[arg-type]
        blind_to_brightness(self.input[0])  # type: ignore[arg-type]
        # of the two last convolutions the first is silent and the second passes on, so that both learn at once
        nn.init.zeros_(self.upscale[2].weight)  # type: ignore[arg-type]
        nn.init.dirac_(self.upscale[3].weight)  # type: ignore[arg-type]

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        if "residual_layer.0.dcn0.conv_offset.weight" not in state:
            return None
        return Published("d3dnet", _keywords(state), {_ours(name): tensor for name, tensor in state.items()})

    def reconstruct(self, window: Tensor) -> Upsampled:
        planes = self.planes.seen(pad_to_multiple(window, 4))
        return self.planes.finished(self.restore_planes(planes.transpose(1, 2)), window[:, self.window // 2])

    def restore_planes(self, planes: Tensor) -> Upsampled:
        """The published network itself, sizes as they are.

        Args:
            planes: (N, C, window, h, w) in [0, 1]; C is 1 for luminance and 3 for RGB.

        Returns:
            `frames` (N, C, scale*h, scale*w), planes like the input's, and the two features.
        """
        features: Tensor = self.residual_layer(self.input(planes))
        fused: Tensor = self.TA(features.transpose(1, 2).flatten(1, 2))
        shuffled: Tensor = self.upscale[:2](self.reconstruction(fused))
        residual: Tensor = self.upscale[2:](shuffled)
        height, width = (side * self.scale for side in planes.shape[-2:])
        middle = planes[:, :, self.window // 2]
        base = functional.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)
        return Upsampled(base + residual, shuffled, fused)


class _Residual(nn.Module):
    """convolution - leaky ReLU - convolution plus identity, whatever the convolutions; by their published names."""

    def __init__(self, first: nn.Conv2d | DeformableConv3d, second: nn.Conv2d | DeformableConv3d) -> None:
        super().__init__()
        self.dcn0, self.dcn1 = first, second
        second.weight.data.mul_(0.1)  # keeps deep stacks without normalisation near the identity at the start

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.dcn1(leaky(self.dcn0(features)))
        return features + change


def _plain(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _ours(name: str) -> str:
    return name.replace("reconstruct.", "reconstruction.", 1) if name.startswith("reconstruct.") else name


def _keywords(state: Mapping[str, Tensor]) -> dict[str, Any]:
    offset = "residual_layer.0.dcn0.conv_offset.weight"
    demand(state, "D3DNet", {offset: 5, "input.0.weight": 5, "TA.weight": 4, "upscale.0.weight": 4})
    if state[offset].shape[0] != 2 * 27:
        raise CheckpointError(
            f"This D3DNet's deformable convolutions read {state[offset].shape[0]} offsets; expected 54, for 27 taps "
            "that move in height and width."
        )
    channels, count = state["input.0.weight"].shape[:2]
    scale = round((state["upscale.0.weight"].shape[0] / channels) ** 0.5)
    window = state["TA.weight"].shape[1] // channels
    if count not in (1, 3) or window % 2 == 0 or scale < 1:
        raise CheckpointError(
            f"This D3DNet sees {window} frames of {count} planes and upscales by {scale}; expected an odd number of "
            "frames of 1 (luminance) or 3 (RGB) planes."
        )
    return {
        "window": window,
        "channels": channels,
        "align_blocks": stack_length(state, "residual_layer"),
        "reconstruct_blocks": max(stack_length(state, stack) for stack in ("reconstruct", "reconstruction")),
        "scale": scale,
        "colour": "y" if count == 1 else "rgb",
    }
