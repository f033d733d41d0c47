"""BasicVSR (Chan et al., CVPR 2021): features carried through the whole clip, backward and forward, along the flow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckpointError
from distill.interfaces import ClipNetwork, Published, Upsampled
from distill.layers import HrTap, PixelShuffleTail, ResidualBlock, leaky, warp
from distill.networks.tensor_names import demand, stack_length, under_tail
from teachers.spynet import SPyNet

__all__ = ["BasicVSR"]

# mmediting and mmagic wrap a convolution and its activation in a module whose part is called "conv"
_NAMES_MMAGIC = [
    (r"^(backward|forward)_resblocks\.", r"\1_trunk."),
    (r"^upsample(\d)\.upsample_conv\.", r"upconv\1."),
]
_SPYNET_MMAGIC = re.compile(r"^(spynet\.basic_module\.\d+\.basic_module)\.(\d+)\.conv\.")


class BasicVSR(ClipNetwork):
    """BasicVSR for x4 super-resolution, equal to the published networks.

    Args:
        channels: of what is carried from frame to frame.
        blocks: residual blocks in each direction.
        hr_tap: where F^SR is read, see `PixelShuffleTail`.

    F^LR is what the two directions make together, the input of the tail, (B, T, channels, h, w).

    Memory: `restore` and `stream` hold one feature (channels, h, w) for every frame of a chunk, 0.4 GB in float32 for
    60 frames of 180x144 pixels, and the high-resolution features of one frame; `forward` returns those of all frames.
    """

    def __init__(self, channels: int = 64, blocks: int = 30, hr_tap: HrTap = "conv_last") -> None:
        super().__init__()
        self.lr_channels: int = channels
        self.hr_channels = PixelShuffleTail.hr_channels
        self.spynet = SPyNet()
        self.backward_trunk = _Trunk(channels, blocks)
        self.forward_trunk = _Trunk(channels, blocks)
        self.fusion = nn.Conv2d(channels * 2, channels, 1)
        nn.init.kaiming_normal_(self.fusion.weight, a=0.1)
        self.tail = PixelShuffleTail(channels, hr_tap)

    @classmethod
    def recognise(cls, state: Mapping[str, Tensor]) -> Published | None:
        """See `VideoNetwork.recognise`; the names are BasicSR's, or those of mmediting and mmagic."""
        state = {
            _in_basicsr_names(name.removeprefix("generator.")): tensor
            for name, tensor in state.items()
            if name != "step_counter"  # of mmediting's training loop
        }
        if "forward_trunk.main.0.weight" not in state:
            return None
        if any(name.startswith("edvr.") for name in state):
            raise CheckpointError("This is an IconVSR (it has an EDVR inside); expected a BasicVSR, which has none.")
        if "spynet.mean" not in state:
            raise CheckpointError("This BasicVSR lacks its flow network (spynet.*); is the file complete?")
        demand(state, "BasicVSR", {"forward_trunk.main.0.weight": 4})
        keywords = {
            "channels": state["forward_trunk.main.0.weight"].shape[0],
            "blocks": stack_length(state, "forward_trunk.main.2"),
        }
        # the three published networks have the same shape
        return Published("basicvsr-bi", keywords, under_tail(state))

    def forward(self, clip: Tensor) -> Upsampled:
        batch, length = clip.shape[:2]
        fused = torch.stack(list(self._fused(clip)), 1)
        residual, hr_features = self.tail(fused.flatten(0, 1))
        frames = residual + self._base(clip.flatten(0, 1))
        return Upsampled(frames.unflatten(0, (batch, length)), hr_features.unflatten(0, (batch, length)), fused)

    def restore(self, clip: Tensor) -> Iterator[Tensor]:
        """As inherited, without the high-resolution features of more than a frame."""
        for position, fused in enumerate(self._fused(clip)):
            yield (self.tail(fused)[0] + self._base(clip[:, position]))[0]

    def _fused(self, clip: Tensor) -> Iterator[Tensor]:
        """F^LR of every frame in order, (B, channels, h, w)."""
        # Flows are estimated pair by pair: those of a chunk at once would need more memory than all the rest.
        batch, length, _, height, width = clip.shape
        nothing = clip.new_zeros(batch, self.lr_channels, height, width)
        later, carried = [], nothing
        for t in reversed(range(length)):
            if t < length - 1:
                carried = warp(carried, self.spynet(clip[:, t], clip[:, t + 1]))
            carried = self.backward_trunk(torch.cat((clip[:, t], carried), 1))
            later.append(carried)
        carried = nothing
        for t in range(length):
            if t > 0:
                carried = warp(carried, self.spynet(clip[:, t], clip[:, t - 1]))
            carried = self.forward_trunk(torch.cat((clip[:, t], carried), 1))
            yield leaky(self.fusion(torch.cat((later.pop(), carried), 1)))

    def _base(self, frames: Tensor) -> Tensor:
        return functional.interpolate(frames, scale_factor=self.scale, mode="bilinear", align_corners=False)


class _Trunk(nn.Module):
    """One step in one direction, by the published names."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        entry = nn.Conv2d(3 + channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(entry.weight, a=0.1)
        stack = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.main = nn.Sequential(entry, nn.LeakyReLU(0.1), stack)

    def forward(self, seen: Tensor) -> Tensor:
        """A frame and, aligned with it, its neighbour's result, (B, 3 + C, h, w) -> (B, C, h, w)."""
        return self.main(seen)  # type: ignore[no-any-return]


def _in_basicsr_names(name: str) -> str:
    for pattern, replacement in _NAMES_MMAGIC:
        name = re.sub(pattern, replacement, name)
    # there the activations are no layers of the stack, so its indices count convolutions alone
    return _SPYNET_MMAGIC.sub(lambda match: f"{match[1]}.{2 * int(match[2])}.", name)
