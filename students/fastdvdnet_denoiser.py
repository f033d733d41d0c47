"""FastDVDnet as published (Tassano et al., CVPR 2020): a video denoiser, which changes no size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill.errors import CheckpointError
from distill.interfaces import Published, Upsampled, WindowNetwork
from distill.layers import crop_to, pad_to_multiple
from distill.networks.tensor_names import demand, with_counters
from students.fastdvdnet import DenoisingBlock

__all__ = ["FastDVDnetDenoiser"]


class FastDVDnetDenoiser(WindowNetwork):
    """The published denoiser: five frames and a map of the noise's strength; scale 1.

    One denoising block sees the triplets (0, 1, 2), (1, 2, 3) and (2, 3, 4), a second one fuses the three results.

    Args:
        sigma: the noise's standard deviation, as a fraction of 1; it fills the map. Trained for 5/255 to 55/255.
        widths: channels of the denoising blocks at full, half and quarter size.
        frame_channels: channels that each frame of a triplet gets before they are mixed.

    F^SR is the last convolution's input, F^LR the sum of the second block's levels; both are (B, widths[0], h, w).
    """

    scale = 1
    window = 5

    def __init__(
        self, sigma: float = 25 / 255, widths: tuple[int, int, int] = (32, 64, 128), frame_channels: int = 30
    ) -> None:
        super().__init__()
        self.sigma = sigma
        self.lr_channels = self.hr_channels = widths[0]
        self.temp1 = DenoisingBlock(4, 3, widths, frame_channels)
        self.temp2 = DenoisingBlock(4, 3, widths, frame_channels)
        for block in (self.temp1, self.temp2):
            nn.init.zeros_(block.outc.convblock[-1].weight)  # type: ignore[arg-type]  # starts by passing its middle frame on

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        if "temp1.inc.convblock.0.weight" not in state or any(
            name.startswith(("tail.", "backbone.")) for name in state
        ):
            return None
        shapes = ("inc.convblock.0", "inc.convblock.3", "downc0.convblock.0", "downc1.convblock.0")
        needed = [f"{stage}.{part}.weight" for stage in ("temp1", "temp2") for part in shapes]
        demand(state, "FastDVDnet", dict.fromkeys(needed, 4))
        mixed, full, half, quarter = (state[f"temp1.{part}.weight"].shape[0] for part in shapes)
        if state["temp1.inc.convblock.0.weight"].shape[1] != 4:
            raise CheckpointError("This FastDVDnet sees no noise map; expected frames of 3 channels and a map of one.")
        keywords = {"widths": (full, half, quarter), "frame_channels": mixed // 3}
        return Published("fastdvdnet-denoiser", keywords, with_counters(state))

    def reconstruct(self, window: Tensor) -> Upsampled:
        """As everywhere; the published caller mirrors frames to multiples of 4 instead, and clamps to [0, 1]."""
        return self._padded(window).map(lambda field: field[:, 0])

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but the first stage, which up to three windows share, runs once per frame."""
        length = clip.shape[1]
        places = torch.arange(-2, length + 2, device=clip.device).clamp(0, length - 1)
        return self._padded(clip[:, places])

    def denoise(self, frames: Tensor, noise: Tensor) -> Upsampled:
        """Restore all frames of a clip but two at each end, whatever the noise of each pixel.

        Args:
            frames: (B, T, 3, h, w) in [0, 1], T at least 5, h and w multiples of 4.
            noise: standard deviation, (B, 1, h, w), as a fraction of 1.

        Returns:
            T - 4 frames and features.
        """
        batch = frames.shape[0]
        first = _triplets(frames)
        estimates = first[:, :, 1] - self.temp1(_with_map(first, noise)).unflatten(0, (batch, -1))
        second = _triplets(estimates)
        fused = self.temp2.features(_with_map(second, noise))
        *refine, last = self.temp2.outc.convblock
        refined = fused
        for layer in refine:
            refined = layer(refined)
        restored = second[:, :, 1].flatten(0, 1) - last(refined)
        return Upsampled(restored, refined, fused).map(lambda field: field.unflatten(0, (batch, -1)))

    def _padded(self, frames: Tensor) -> Upsampled:
        height, width = frames.shape[-2:]
        frames = pad_to_multiple(frames, 4)
        noise = torch.full_like(frames[:, 0, :1], self.sigma)
        return self.denoise(frames, noise).map(lambda field: crop_to(field, height, width))


def _triplets(frames: Tensor) -> Tensor:
    """(B, T, C, h, w) -> (B, T - 2, 3, C, h, w)."""
    return torch.stack((frames[:, :-2], frames[:, 1:-1], frames[:, 2:]), 2)


def _with_map(triplets: Tensor, noise: Tensor) -> Tensor:
    """(B, T, 3 frames, 3, h, w) and (B, 1, h, w) -> every frame with the map, (B * T, 3 frames, 4, h, w)."""
    spread = noise[:, None, None].expand(-1, *triplets.shape[1:3], -1, -1, -1)
    return torch.cat((triplets, spread), 3).flatten(0, 1)
