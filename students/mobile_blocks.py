"""What the students made for phones are built of: only what every phone runtime runs well.

That is 3x3 convolutions without groups, on multiples of 16 channels but for pictures, which fill the vector units;
ReLU; batch normalisation that an export folds away; and one pixel shuffle at the end, in front of which the base image
is added, so that nothing is computed on the large picture.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from distill.layers import BicubicUpsample

__all__ = ["MobileTail", "MobileUNet", "check_channels", "conv", "conv_norm"]

_MULTIPLE = 16


class MobileUNet(nn.Module):
    """A U-Net of two levels: (N, in_channels, h, w) -> (N, out_channels, h, w), h and w multiples of 4.

    Args:
        in_channels: of the input.
        out_channels: of the last convolution, behind which no activation stands.
        widths: channels at full, half and quarter size.

    Transposed convolutions without overlap bring the lower levels up: a resize or a pixel shuffle would each add an
    operator that phones run worse than a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        full, half, quarter = widths
        self.enter = nn.Sequential(*conv_norm(in_channels, full))
        self.shrink1 = nn.Sequential(*conv_norm(full, half, 2), *conv_norm(half, half))
        self.shrink2 = nn.Sequential(*conv_norm(half, quarter, 2), *conv_norm(quarter, quarter))
        self.grow2 = nn.ConvTranspose2d(quarter, half, 2, 2, bias=False)
        self.merge = nn.Sequential(*conv_norm(half, half))
        self.grow1 = nn.ConvTranspose2d(half, full, 2, 2, bias=False)
        self.leave = conv(full, out_channels)
        for deep in (self.grow1, self.grow2):
            nn.init.zeros_(deep.weight)  # the deep branches start silent, see students.fastdvdnet.DenoisingBlock

    def forward(self, features: Tensor) -> Tensor:
        full = self.enter(features)
        half = self.shrink1(full)
        half = self.merge(half + self.grow2(self.shrink2(half)))
        return self.leave(full + self.grow1(half))  # type: ignore[no-any-return]


class MobileTail(nn.Module):
    """One convolution to the phases of a x4 picture, the bicubic base added to them, one pixel shuffle.

    A fresh one yields the base alone.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = conv(channels, 3 * scale**2)
        nn.init.zeros_(self.conv.weight)
        self.base = BicubicUpsample(scale)

    def forward(self, features: Tensor, frame: Tensor) -> Tensor:
        """Features (N, channels, h, w) and the frame to restore (N, 3, h, w) -> (N, 3, scale*h, scale*w)."""
        return functional.pixel_shuffle(self.conv(features) + self.base.phases(frame), self.scale)


def check_channels(*channels: int) -> None:
    """Refuse channels that leave lanes of a vector unit empty.

    Raises:
        ValueError: one is no multiple of 16.
    """
    for each in channels:
        if each < 1 or each % _MULTIPLE:
            raise ValueError(f"a network for phones needs multiples of {_MULTIPLE} channels, not {each}")


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution with a bias, started for a ReLU."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def conv_norm(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, batch normalisation, ReLU: in a sequence, so that `export.graphs.deploy` folds them into one."""
    layer = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return [layer, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
