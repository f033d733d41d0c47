"""The colours that networks see which were trained on ImageNet-normalised pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ImageNetColours"]


class ImageNetColours(nn.Module):
    """Each colour less ImageNet's mean and over its standard deviation, and back; (..., 3, h, w); in no state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406))[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor((0.229, 0.224, 0.225))[:, None, None], persistent=False)
        self.mean: Tensor
        self.deviation: Tensor

    def normalised(self, pictures: Tensor) -> Tensor:
        """From RGB in [0, 1]."""
        return (pictures - self.mean) / self.deviation

    def restored(self, normalised: Tensor) -> Tensor:
        """To RGB, nominally in [0, 1]."""
        return normalised * self.deviation + self.mean
