"""Iterative back-projection (Haris et al., CVPR 2018): what RBPN, STARnet and STINet share, by published names."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

__all__ = [
    "KERNEL_STRIDE_PADDING",
    "Activation",
    "ConvBlock",
    "DeconvBlock",
    "DownUnit",
    "ResidualUnit",
    "UpUnit",
    "activation_layer",
    "initialise",
]

Activation = Literal["prelu", "lrelu"]
KERNEL_STRIDE_PADDING = {2: (6, 2, 2), 4: (8, 4, 2), 8: (12, 8, 2)}
"""Of every convolution, transposed or not, between the two resolutions, by their scale."""


class ConvBlock(nn.Module):
    """A convolution and, unless None, its activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        activation: Activation | None = "prelu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        self.act = activation_layer(activation)

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.conv(features))  # type: ignore[no-any-return]


class DeconvBlock(nn.Module):
    """A transposed convolution and, unless None, its activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        padding: int,
        activation: Activation | None = "prelu",
    ) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride, padding)
        self.act = activation_layer(activation)

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.deconv(features))  # type: ignore[no-any-return]


class ResidualUnit(nn.Module):
    """conv - act, conv, plus identity, act; one activation, with one parameter where it is a PReLU, for both."""

    def __init__(self, channels: int, activation: Activation = "prelu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = activation_layer(activation)

    def forward(self, features: Tensor) -> Tensor:
        change = self.conv2(self.act(self.conv1(features)))
        return self.act(change + features)  # type: ignore[no-any-return]


class _ProjectionUnit(nn.Module):
    """There, back, and there again for what the way back missed; the steps are `NAME_conv1` to 3, as published."""

    def __init__(
        self,
        name: str,
        there: type[ConvBlock] | type[DeconvBlock],
        back: type[ConvBlock] | type[DeconvBlock],
        channels: int,
        scale: int,
        stages: int,
    ) -> None:
        super().__init__()
        if stages > 1:
            self.conv = ConvBlock(channels * stages, channels, 1, 1, 0)
        self.stages = stages
        self.steps = [f"{name}_conv{index}" for index in (1, 2, 3)]
        for step, block in zip(self.steps, (there, back, there), strict=True):
            self.add_module(step, block(channels, channels, *KERNEL_STRIDE_PADDING[scale]))

    def forward(self, features: Tensor) -> Tensor:
        if self.stages > 1:
            features = self.conv(features)
        there, back, again = map(self.get_submodule, self.steps)
        projected: Tensor = there(features)
        corrected: Tensor = again(back(projected) - features) + projected
        return corrected


class UpUnit(_ProjectionUnit):
    """Up-projection: (N, C, h, w) -> (N, C, scale*h, scale*w), corrected by what its own shrinking misses.

    Args:
        channels: C.
        scale: 2, 4 or 8.
        stages: where above 1, a 1x1 convolution first brings stages * C channels to C.
    """

    def __init__(self, channels: int, scale: int = 4, stages: int = 1) -> None:
        super().__init__("up", DeconvBlock, ConvBlock, channels, scale, stages)


class DownUnit(_ProjectionUnit):
    """Down-projection: (N, C, scale*h, scale*w) -> (N, C, h, w); otherwise as `UpUnit`."""

    def __init__(self, channels: int, scale: int = 4, stages: int = 1) -> None:
        super().__init__("down", ConvBlock, DeconvBlock, channels, scale, stages)


def activation_layer(activation: Activation | None) -> nn.Module:
    """PReLU with one parameter, leaky ReLU of slope 0.1, or nothing."""
    if activation == "prelu":
        return nn.PReLU()
    return nn.LeakyReLU(0.1) if activation == "lrelu" else nn.Identity()


def initialise(network: nn.Module) -> None:
    """Fresh weights as the published networks start, but residual units start near the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualUnit):
            module.conv2.weight.data.mul_(0.1)  # stacks of them would double their signal's variance at each
