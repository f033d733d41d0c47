"""Networks made for luminance on RGB frames: what they see, and how what they restore becomes RGB again."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distill.interfaces import Upsampled
from distill.layers import BicubicUpsample, Colour, LumaChroma, crop_to, full_precision

__all__ = ["PlaneBase", "Planes", "checked_base"]

PlaneBase = Literal["none", "bicubic"]


class Planes(nn.Module):
    """The planes of a picture that a network works on, in float32 whatever the network itself computes in.

    Args:
        colour: "y" for luminance alone (BT.601, studio range / 255), Cb and Cr being upsampled bicubically; "rgb"
            for the three channels as they are.
        scale: spatial factor.

    Attributes:
        count: planes per frame, C: 1 or 3.

    Raises:
        ValueError: `colour` is neither.
    """

    def __init__(self, colour: Colour, scale: int) -> None:
        super().__init__()
        if colour not in get_args(Colour):
            raise ValueError(f"colour is {colour!r}, expected one of {get_args(Colour)}")
        self.count = 1 if colour == "y" else 3
        self.space = LumaChroma() if colour == "y" else None
        self.bicubic = BicubicUpsample(scale, 1)  # plane by plane: for more it would multiply by zeros too

    def seen(self, frames: Tensor) -> Tensor:
        """RGB frames (N, T, 3, h, w) in [0, 1] -> planes (N, T, C, h, w)."""
        if self.space is None:
            return frames
        with full_precision(frames.device.type):
            luminance: Tensor = self.space(frames.flatten(0, 1))[:, :1].unflatten(0, frames.shape[:2])
        return luminance

    def upsample(self, planes: Tensor) -> Tensor:
        """Bicubically: (..., h, w) -> (..., scale*h, scale*w)."""
        large = self.bicubic(planes.flatten(0, -3).unsqueeze(1)).squeeze(1)
        unflattened: Tensor = large.unflatten(0, planes.shape[:-2])
        return unflattened

    def finished(self, restored: Upsampled, middle: Tensor) -> Upsampled:
        """Crop what padded frames gave to the size of the middle frame, and turn its planes into RGB.

        Args:
            restored: of planes, `frames` being (N, C, H, W).
            middle: RGB frames (N, 3, h, w) in [0, 1], not padded.

        Returns:
            `frames` (N, 3, scale*h, scale*w), RGB, and the features, all cropped.
        """
        height, width = middle.shape[-2:]
        scale = self.bicubic.scale
        frames, hr_features, lr_features = restored
        frames = crop_to(frames, height * scale, width * scale)
        if self.space is not None:
            with full_precision(middle.device.type):
                chroma = self.upsample(self.space(middle)[:, 1:])
                frames = self.space.rgb(torch.cat((frames.to(chroma.dtype), chroma), 1))
        return Upsampled(
            frames,
            None if hr_features is None else crop_to(hr_features, height * scale, width * scale),
            None if lr_features is None else crop_to(lr_features, height, width),
        )


def checked_base(base: PlaneBase) -> PlaneBase:
    """`base` itself.

    Raises:
        ValueError: it is no `PlaneBase`.
    """
    if base not in get_args(PlaneBase):
        raise ValueError(f"base is {base!r}, expected one of {get_args(PlaneBase)}")
    return base
