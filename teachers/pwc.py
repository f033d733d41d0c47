"""PWC-DC-Net (Sun et al., CVPR 2018): optical flow from feature pyramids, warping and cost volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.layers import full_precision, leaky, warp

__all__ = ["PWCNet", "correlation"]

_REACH = 4
_COSTS = (2 * _REACH + 1) ** 2
_PYRAMID = (16, 32, 64, 96, 128, 196)
_DENSE = (128, 128, 96, 64, 32)
_CONTEXT = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))  # channels, dilation


class PWCNet(nn.ModuleDict):
    """Flow of one picture to another at a quarter of their size; layers carry the published names.

    The flow is what the last layer gives, as Deep Space-Time Video Upsampling uses it: pixels of the quarter size, to
    the right and down. The 20 by which the original multiplies is not applied.
    """

    def __init__(self) -> None:
        layers: dict[str, nn.Module] = {}
        seen = 3
        for level, width in enumerate(_PYRAMID, 1):
            for part, name in enumerate(_pyramid_layers(level)):
                layers[name] = _conv(seen, width, stride=1 if part else 2)
                seen = width
        for level in range(6, 1, -1):
            seen = _COSTS if level == 6 else _COSTS + _PYRAMID[level - 1] + 4
            for part, width in enumerate(_DENSE):
                layers[f"conv{level}_{part}"] = _conv(seen, width)
                seen += width
            layers[f"predict_flow{level}"] = nn.Conv2d(seen, 2, 3, padding=1)
            layers[f"deconv{level}"] = nn.ConvTranspose2d(2, 2, 4, 2, 1)  # that of level 2 is published, but unused
            if level > 2:
                layers[f"upfeat{level}"] = nn.ConvTranspose2d(seen, 2, 4, 2, 1)
        for part, (width, dilation) in enumerate(_CONTEXT, 1):
            layers[f"dc_conv{part}"] = _conv(seen, width, dilation=dilation)
            seen = width
        layers["dc_conv7"] = nn.Conv2d(seen, 2, 3, padding=1)
        for name in ("predict_flow2", "dc_conv7"):
            nn.init.zeros_(layers[name].weight)  # type: ignore[arg-type]  # an untrained network sees no motion
            nn.init.zeros_(layers[name].bias)  # type: ignore[arg-type]
        super().__init__(layers)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two pictures (N, 3, H, W) with sides that are multiples of 64 -> flow (N, 2, H/4, W/4), float32.

        first(p) ~ second(p + flow(p)) in pictures of the quarter size.
        """
        with full_precision(first.device.type):
            return self._flow(self._pyramid(first.float()), self._pyramid(second.float()))

    def _pyramid(self, picture: Tensor) -> list[Tensor]:
        """Features at 1/2, 1/4, ... 1/64 of the picture's size."""
        levels = []
        for level in range(1, 7):
            for name in _pyramid_layers(level):
                picture = self[name](picture)
            levels.append(picture)
        return levels

    def _flow(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        coarser: list[Tensor] = []  # flow and features of the level above, at twice their size
        for level in range(6, 1, -1):
            mine, other = first[level - 1], second[level - 1]
            if coarser:
                # flows count twentieths of a pixel of the whole picture, whatever the level
                other = warp(other, coarser[0] * (20 / 2**level), padding="border")
            costs = leaky(correlation(mine, other))
            features = torch.cat((costs, mine, *coarser), 1) if coarser else costs
            for part in range(len(_DENSE)):
                features = torch.cat((self[f"conv{level}_{part}"](features), features), 1)
            flow: Tensor = self[f"predict_flow{level}"](features)
            if level > 2:
                coarser = [self[f"deconv{level}"](flow), self[f"upfeat{level}"](features)]
        for part in range(1, 8):
            features = self[f"dc_conv{part}"](features)
        return flow + features


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Likeness of each place in `first` with the 81 places around it in `second`, zero outside.

    Args:
        first: (N, C, h, w).
        second: the same shape.

    Returns:
        (N, 81, h, w): channel (dy + 4) * 9 + dx + 4 is the mean over C of first(y, x) * second(y + dy, x + dx).
    """
    height, width = first.shape[-2:]
    padded = functional.pad(second, (_REACH,) * 4)
    shifts = [(dy, dx) for dy in range(2 * _REACH + 1) for dx in range(2 * _REACH + 1)]
    return torch.stack([(first * padded[..., y : y + height, x : x + width]).mean(1) for y, x in shifts], 1)


def _pyramid_layers(level: int) -> tuple[str, str, str]:
    """Names in order; the last level's are published in another order than the rest."""
    parts = ("a", "aa", "b") if level < 6 else ("aa", "a", "b")
    return (f"conv{level}{parts[0]}", f"conv{level}{parts[1]}", f"conv{level}{parts[2]}")


def _conv(seen: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(seen, width, 3, stride, dilation, dilation)
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.LeakyReLU(0.1))
