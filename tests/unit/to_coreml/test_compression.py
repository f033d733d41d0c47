"""Weights in few bits, written and read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.to_coreml.compression import clustered
from export.to_coreml.evaluator import Evaluator
from export.to_coreml.package import quiet_coremltools, unpacked
from tests.stand_ins.mlpackages import saved
from tests.unit.to_coreml.test_operators import close

with quiet_coremltools():
    from coremltools.converters.mil import Builder as mb  # noqa: N813 -- its documented name
    from coremltools.converters.mil.mil import types


WEIGHT = np.random.default_rng(1).normal(size=(6, 4, 3, 3)).astype(np.float16)


def dense(package):
    """What the first convolution gives for an impulse in each channel: its kernels, turned by 180 degrees."""
    evaluator = Evaluator(package)
    kernels = []
    for channel in range(4):
        impulse = torch.zeros(1, 4, 5, 5)
        impulse[0, channel, 2, 2] = 1
        kernels.append(evaluator.run({"x": impulse})["y"][0, :, :, :].flip(1, 2))
    return torch.stack(kernels, 1)


def convolving(weight, target):
    return saved(lambda x: mb.conv(x=x, weight=weight(), name="y"), ((1, 4, 5, 5), types.fp16), target=target)


def test_affine_weights_of_ios_16():
    codes = np.random.default_rng(2).integers(-127, 128, WEIGHT.shape).astype(np.int8)
    scale = np.linspace(0.01, 0.02, 6).astype(np.float16)
    zero = np.arange(-3, 3).astype(np.int8)
    package = convolving(
        lambda: mb.constexpr_affine_dequantize(quantized_data=codes, zero_point=zero, scale=scale, axis=0), 16
    )
    shape = (6, 1, 1, 1)
    expected = (codes.astype(np.float32) - zero.reshape(shape)) * scale.astype(np.float32).reshape(shape)
    close(dense(package), expected.astype(np.float16).astype(np.float32), 0)


@pytest.mark.parametrize("blocks", [(6, 1, 1, 1), (3, 2, 1, 1), (1, 1, 1, 1)])
def test_scaled_weights_of_ios_18(blocks):
    codes = np.random.default_rng(3).integers(-127, 128, WEIGHT.shape).astype(np.int8)
    scale = np.random.default_rng(4).uniform(0.01, 0.02, blocks).astype(np.float16)
    package = convolving(lambda: mb.constexpr_blockwise_shift_scale(data=codes, scale=scale), 18)
    whole = np.kron(
        scale.astype(np.float32), np.ones([side // part for side, part in zip(codes.shape, blocks, strict=True)])
    )
    close(dense(package), (codes * whole).astype(np.float16).astype(np.float32), 0)


@pytest.mark.parametrize("bits", [4, 6])
def test_palettes_of_ios_16(bits):
    table = np.random.default_rng(5).normal(size=2**bits).astype(np.float16)
    codes = np.random.default_rng(6).integers(0, 2**bits, WEIGHT.shape)
    stream = "".join(format(code, f"0{bits}b")[::-1] for code in codes.reshape(-1))  # the lowest bit first
    packed = np.array([int(stream[at : at + 8][::-1], 2) for at in range(0, len(stream), 8)], np.uint8)
    shape = np.array(WEIGHT.shape, np.uint32)
    package = convolving(lambda: mb.constexpr_lut_to_dense(indices=packed, lut=table, shape=shape), 16)
    close(dense(package), table[codes].astype(np.float32), 0)


@pytest.mark.parametrize(("bits", "groups"), [(4, 1), (6, 1), (4, 3)])
def test_palettes_of_ios_18(bits, groups):
    tables = np.random.default_rng(7).normal(size=(groups, 1, 1, 1, 2**bits, 1)).astype(np.float16)
    codes = np.random.default_rng(8).integers(0, 2**bits, WEIGHT.shape)
    held = codes.astype(types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}")))
    package = convolving(lambda: mb.constexpr_lut_to_dense(indices=held, lut=tables), 18)
    expected = np.stack([tables[place * groups // 6, 0, 0, 0, codes[place], 0] for place in range(6)])
    close(dense(package), expected.astype(np.float32), 0)


def test_unpacked():
    assert unpacked(np.array([0b10_110_001, 0b0000000_0], np.uint8), 3, 3).tolist() == [1, 6, 2]
    assert unpacked(np.array([0x21, 0x43], np.uint8), 4, 3).tolist() == [1, 2, 3]


def test_tables_are_the_best_ones():
    """Few distinct weights are kept as they are; for many, the obvious other tables are worse in the mean square."""
    weight = np.array([[0.5, -1], [0.5, 2]], np.float16)
    table, places = clustered(weight, 16)
    np.testing.assert_array_equal(table[places].reshape(2, 2), weight)
    draw = np.random.default_rng(10)
    weight = (draw.normal(size=5000) * draw.uniform(0.1, 1, 5000)).astype(np.float16)
    table, places = clustered(weight, 16)
    assert table.dtype == np.float16
    error = np.mean((table[places].astype(float) - weight) ** 2)
    distances = np.abs(weight[:, None].astype(float) - table)
    np.testing.assert_allclose(distances[np.arange(5000), places], distances.min(1), atol=1e-3)
    for other in (np.linspace(weight.min(), weight.max(), 16), np.quantile(weight, (np.arange(16) + 0.5) / 16)):
        assert error < 0.8 * np.mean(np.abs(weight[:, None].astype(float) - other).min(1) ** 2)
