"""STVUN (Kang et al., ECCV 2020): frames fused without alignment, and frames in between along the flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.interfaces import ClipNetwork, Published, Upsampled, VideoNetwork, WindowNetwork, windows
from distill.layers import crop_to, pad_to_multiple, warp
from distill.networks.tensor_names import demand
from teachers.pwc import PWCNet
from teachers.resampling import doubled, pools

__all__ = ["STVUN", "SpaceTimeSTVUN"]

_LEVELS = 4


class _Parts(VideoNetwork):
    """The published network's parts, which both its forms are made of."""

    hr_channels = None

    def __init__(self, channels: int, window: int, scale: int, interpolates: bool) -> None:
        super().__init__()
        if window % 2 == 0 or window < 3:
            raise ValueError(f"window is {window}, expected an odd number of at least 3")
        self.window, self.scale, self.lr_channels = window, scale, channels
        self.encoder = Encoder(channels)
        self.efst = EarlyFusion(window, channels)
        self.decoder = Decoder(channels, scale)
        if interpolates:
            self.pwcnet = PWCNet()
        self.interpolates = interpolates

    def _between(
        self, pairs: list[Tensor], decoded: list[Tensor], first: Tensor, second: Tensor, times: Sequence[float]
    ) -> list[Upsampled]:
        """Frames between two neighbours, one for each time.

        Args:
            pairs: features of four levels of both neighbours, (N, 2, C, H, W).
            decoded: four levels of the first one as a given frame.
            first: (N, 3, h, w).
            second: the same.
            times: from 0, the first, to 1, the second.
        """
        neighbours = pad_to_multiple(torch.stack((first, second), 1), 4)
        there, back = self._flows(first, second, neighbours.shape[-2:])
        frames = []
        for time in times:
            to_first = time * time * back - time * (1 - time) * there
            to_second = (1 - time) * (1 - time) * there - time * (1 - time) * back
            features = [_blend(pair, to_first, to_second) for pair in pairs]
            own, residual = self.decoder(features, decoded)
            blended = crop_to(_blend(neighbours, to_first, to_second), *first.shape[-2:])
            frames.append(self._restored(blended, own, residual))
        return frames

    def _flows(self, first: Tensor, second: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Flows from the first frame to the second and back, in pixels, for frames padded to `size`."""
        # PWC-Net's flow has a quarter of its pictures' size, so fourfold pictures give it for the frames as they are
        one, two = (
            functional.interpolate(2 * pad_to_multiple(frame[:, None], 16)[:, 0] - 1, scale_factor=4, mode="bilinear")
            for frame in (first, second)
        )
        there, back = self.pwcnet(one, two), self.pwcnet(two, one)
        return crop_to(there, size[0], size[1]), crop_to(back, size[0], size[1])

    def _encode(self, clip: Tensor) -> list[Tensor]:
        """(B, T, 3, h, w) -> features of four levels, the deepest first, (B, T, C, H, W), padded sizes."""
        padded = pad_to_multiple(2 * clip - 1, 4)  # trained on [-1, 1]; two poolings halve the sides
        levels = self.encoder(padded.flatten(0, 1))
        return [level.unflatten(0, clip.shape[:2]) for level in levels]

    def _decode_all(self, levels: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Whole clips' levels -> every frame's decoded levels and residual, (B * T, ...)."""
        # one level's windows at a time, for they hold every feature `window` times
        fused = [self.efst(windows(level, self.window).flatten(0, 1)) for level in levels]
        decoded, residual = self.decoder([level.flatten(0, 1) for level in levels], fused)
        return decoded, residual

    def _decode(self, levels: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Whole windows' levels -> the middle frames' decoded levels and residual."""
        fused = [self.efst(level) for level in levels]
        decoded, residual = self.decoder([level[:, self.window // 2] for level in levels], fused)
        return decoded, residual

    def _restored(self, frame: Tensor, decoded: list[Tensor], residual: Tensor) -> Upsampled:
        """From a frame (N, 3, h, w), as it came, and what the decoder made of its padded features."""
        height, width = frame.shape[-2:]
        base = functional.interpolate(frame, scale_factor=self.scale, mode="bilinear", align_corners=False)
        # half, because the residual is meant for a picture in [-1, 1]
        frames = base + crop_to(residual, height * self.scale, width * self.scale) / 2
        return Upsampled(frames, None, crop_to(decoded[-1], height, width))


class STVUN(_Parts, WindowNetwork):
    """Deep Space-Time Video Upsampling, equal to the published network.

    As a network of windows it restores the middle frame; `between` gives frames after it, at any time.

    Args:
        channels: of every frame's features.
        window: odd number of frames seen, at least 3.
        scale: spatial factor; the paper's networks have 4, and 2 in its Table 2.
        interpolates: whether it has the flow network that `between` needs, 9.4 million parameters.

    F^LR is the decoder's last feature, (B, channels, h, w). There is no F^SR: the picture is made at low resolution
    up to its pixel shuffle.
    """

    def __init__(self, channels: int = 64, window: int = 7, scale: int = 4, interpolates: bool = True) -> None:
        super().__init__(channels, window, scale, interpolates)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        """See `VideoNetwork.recognise`."""
        if "efst.early_fusion.weight" not in state:
            return None
        demand(state, "STVUN", {"efst.early_fusion.weight": 4, "decoder.rconv1.weight": 4})
        fusion, last = state["efst.early_fusion.weight"], state["decoder.rconv1.weight"]
        # the published program takes what it knows by name from a file, whatever else is there
        parts = ("encoder.", "efst.", "decoder.", "pwcnet.")
        weights = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
        channels = fusion.shape[0]
        keywords = {
            "channels": channels,
            "window": fusion.shape[1] // channels,
            "scale": math.isqrt(last.shape[0] // 3),
            "interpolates": any(name.startswith("pwcnet.") for name in weights),
        }
        return Published("stvun-l" if channels >= 64 else "stvun-s", keywords, weights)

    def reconstruct(self, window: Tensor) -> Upsampled:
        levels = self._encode(window)
        frame = window[:, self.window // 2]
        decoded, residual = self._decode(levels)
        return self._restored(frame, decoded, residual)

    def forward(self, clip: Tensor) -> Upsampled:
        """As inherited, but each frame's features, which `window` windows share, are computed once."""
        levels = self._encode(clip)
        restored = self._restored(clip.flatten(0, 1), *self._decode_all(levels))
        return restored.map(lambda field: field.unflatten(0, clip.shape[:2]))

    def between(self, window: Tensor, times: Sequence[float]) -> Tensor:
        """Frames between the middle one of a window and the next (Eq. 4 to 6 and 10).

        Args:
            window: (B, window, 3, h, w), RGB in [0, 1].
            times: of the frames asked for, from 0, the middle frame, to 1, the next one.

        Returns:
            (B, len(times), 3, scale*h, scale*w), nominally in [0, 1] but not clamped.

        Raises:
            ValueError: the network was built without its flow network, or a time is not from 0 to 1.
        """
        if not self.interpolates:
            raise ValueError("This STVUN has no flow network; build it with interpolates=True, or load a file with one")
        if not all(0 <= time <= 1 for time in times):
            raise ValueError(f"times are {list(times)}, expected numbers from 0 to 1")
        levels = self._encode(window)
        decoded, _ = self._decode(levels)
        first = self.window // 2
        pairs = [level[:, first : first + 2] for level in levels]
        frames = self._between(pairs, decoded, window[:, first], window[:, first + 1], times)
        return torch.stack([each.frames for each in frames], 1)


class SpaceTimeSTVUN(_Parts, ClipNetwork):
    """The same network with the same weights as a teacher that doubles the frame rate.

    Given frames are `STVUN`'s; the frame half-way to the next one is what its `between` gives for time 0.5. F^LR is the
    decoder's last feature of each.

    No weights for it ship: the shipped stvun-s was trained without its flow network, on given frames alone. It teaches
    once it has weights of its own (`distill pretrain stvun-s-2x ...`) or those of a published file, which goes by the
    name of stvun-l: `distill.networks.checkpoint.read` it, and save its network under the name "stvun-l-2x", with its
    keywords but `interpolates`.

    Args:
        channels: of every frame's features.
        window: odd number of frames seen, at least 3.
        scale: spatial factor.
    """

    time_scale, chunk = 2, 20

    def __init__(self, channels: int = 64, window: int = 7, scale: int = 4) -> None:
        super().__init__(channels, window, scale, interpolates=True)
        self.overlap = window + 1  # with so many, and no fewer, chunks restore what the whole clip would
        self.chunk = max(self.chunk, 2 * self.overlap)

    def forward(self, clip: Tensor) -> Upsampled:
        batch, length = clip.shape[:2]
        levels = self._encode(clip)
        decoded, residual = self._decode_all(levels)
        given = self._restored(clip.flatten(0, 1), decoded, residual).map(lambda field: field.unflatten(0, (batch, -1)))
        if length == 1:
            return given
        first, second = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
        pairs = [torch.stack((level[:, :-1], level[:, 1:]), 2).flatten(0, 1) for level in levels]
        earlier = [each.unflatten(0, (batch, length))[:, :-1].flatten(0, 1) for each in decoded]
        between = self._between(pairs, earlier, first, second, [0.5])[0]
        return given.interleaved(between.map(lambda field: field.unflatten(0, (batch, -1))))


class Encoder(nn.Module):
    """(N, 3, h, w) -> four features (N, C, h, w), the deepest first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(3, channels, 3)
        self.block0, self.block1, self.block2, self.block3 = (DenseBlock(channels, channels) for _ in range(_LEVELS))

    def forward(self, frames: Tensor) -> list[Tensor]:
        features = self.conv(frames)
        levels: list[Tensor] = []
        for block in (self.block0, self.block1, self.block2, self.block3):
            features = block(features)
            levels.insert(0, features)
        return levels


class EarlyFusion(nn.Module):
    """EFST: a window's features mixed at once, then weighed by what each frame adds to the mixture (Eq. 1 to 3)."""

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.early_fusion = nn.Conv2d(window * channels, channels, 1)
        self.ff = SpaceTimeWeights(window, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, window, C, h, w) -> (B, C, h, w); h and w are multiples of 4."""
        return self.ff(features, self.early_fusion(features.flatten(1, 2)))  # type: ignore[no-any-return]


class SpaceTimeWeights(nn.Module):
    """Weights alpha and beta of the mixture, read off the likeness of every frame with it."""

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.tAtt0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.tAtt1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.sAtt1 = _conv(window * channels, channels, 1)
        self.sAtt2 = _conv(2 * channels, channels, 1)
        self.sAtt3 = _conv(channels, channels, 3)
        self.sAtt4 = _conv(channels, channels, 1)
        self.sAtt5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.sAttL1 = _conv(channels, channels, 1)
        self.sAttL2 = _conv(2 * channels, channels, 3)
        self.sAttL3 = _conv(channels, channels, 3)
        self.sAttA1 = _conv(channels, channels, 1)
        self.sAttA2 = nn.Conv2d(channels, channels, 1)
        for conv in (self.sAtt5, self.sAttA2):  # an untrained network leaves the mixture as it is
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.sAtt5.weight)

    def forward(self, features: Tensor, mixture: Tensor) -> Tensor:
        """(B, window, C, h, w) and (B, C, h, w) -> (B, C, h, w)."""
        embedded = self.tAtt0(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        likeness = (embedded * self.tAtt1(mixture)[:, None]).sum(2, keepdim=True).sigmoid()
        whole = self.sAtt1((features * likeness).flatten(1, 2))
        half = self.sAtt2(pools(whole))
        quarter = self.sAttL3(self.sAttL2(pools(self.sAttL1(half))))
        attention = self.sAtt4(self.sAtt3(half) + doubled(quarter))
        attention = self.sAtt5(whole + doubled(attention))
        weighed: Tensor = mixture * attention.sigmoid() * 2 + self.sAttA2(self.sAttA1(attention))
        return weighed


class Decoder(nn.Module):
    """Level by level, the deepest first, three dense blocks over a frame's own features and the fused ones."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        for level in range(_LEVELS):
            if level:
                self.add_module(f"cconv{level}", nn.Conv2d(2 * channels, channels, 1))
            self.add_module(f"block{level}_0", DenseBlock(2 * channels, 2 * channels))
            self.add_module(f"block{level}_1", DenseBlock(4 * channels, 4 * channels))
            self.add_module(f"block{level}_2", DenseBlock(8 * channels, channels))
        self.rconv0 = _conv(channels, 3 * scale**2, 3)
        self.rconv1 = nn.Conv2d(3 * scale**2, 3 * scale**2, 3, padding=1)
        nn.init.zeros_(self.rconv1.weight)  # an untrained network is its base image, not noise
        nn.init.zeros_(self.rconv1.bias)  # type: ignore[arg-type]
        self.scale = scale

    def forward(self, own: list[Tensor], fused: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Features of four levels (N, C, h, w) twice -> theirs decoded, and the residual (N, 3, scale*h, scale*w)."""
        decoded: list[Tensor] = []
        for level, (mine, other) in enumerate(zip(own, fused, strict=True)):
            if level:
                other = self.get_submodule(f"cconv{level}")(torch.cat((decoded[-1], other), 1))
            features = torch.cat((mine, other), 1)
            for part in range(2):
                features = torch.cat((features, self.get_submodule(f"block{level}_{part}")(features)), 1)
            decoded.append(self.get_submodule(f"block{level}_2")(features))
        return decoded, functional.pixel_shuffle(self.rconv1(self.rconv0(decoded[-1])), self.scale)


class DenseBlock(nn.Module):
    """Two 3x3 convolutions, the second over the first's output and the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = _conv(in_channels, in_channels, 3)
        self.conv1 = _conv(2 * in_channels, out_channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv1(torch.cat((self.conv0(features), features), 1))  # type: ignore[no-any-return]


def _blend(pair: Tensor, to_first: Tensor, to_second: Tensor) -> Tensor:
    """Mean of two neighbours (N, 2, C, h, w), each sampled where its flow (N, 2, h, w) points: (N, C, h, w)."""
    return (warp(pair[:, 0], to_first, "border") + warp(pair[:, 1], to_second, "border")) / 2


def _conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, a=0.1)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.LeakyReLU(0.1))
