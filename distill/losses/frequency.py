"""Frequency: the spectra of the student's frames follow those of the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.layers import full_precision
from distill.losses.term import Seen, Term

__all__ = ["Frequency", "frequency_distance"]


def frequency_distance(restored: Tensor, taught: Tensor) -> Tensor:
    """Mean over frames, channels and frequencies of |FFT(restored) - FFT(taught)|, the modulus of complex numbers.

    Amplitude and phase both count, as in the frequency reconstruction loss of Cho et al. (MIMO-UNet, ICCV 2021). The
    transform is orthonormal, so the distance of noise does not depend on the size of frames, and covers the half of the
    spectrum that determines the other. A picture's energy lies in few frequencies; the L1 distance weighs fine detail,
    spread over all others, more than a distance of pixels does.

    Args:
        restored: (..., H, W), [0, 1].
        taught: of the same shape.

    Returns:
        A scalar.
    """
    spectra = torch.fft.rfft2(restored - taught, norm="ortho")  # linear: the difference of the spectra
    distance: Tensor = spectra.abs().mean()
    return distance


class Frequency(Term):
    """Distance of the spectra of both networks' frames."""

    name = "frequency"

    def forward(self, seen: Seen) -> Tensor:
        assert seen.taught is not None
        with full_precision(seen.restored.device.type):
            return frequency_distance(seen.restored, seen.taught)
