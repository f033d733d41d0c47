from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from distill.errors import CheckFailed
from export.to_coreml.operators import OPERATORS

MIL_FLOAT32 = 11  # of MIL.proto's data types


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def yes(value=True):
    return torch.tensor(value)


def close(result, expected, tolerance=1e-5):
    torch.testing.assert_close(result, torch.as_tensor(expected, dtype=result.dtype), rtol=0, atol=tolerance)


# Operators, against their definition written out


def convolved(x, weight, bias, strides, dilations, groups, margins):
    """The sum over taps, one by one."""
    (top, bottom), (left, right) = margins
    x = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right))))
    outputs, per_group, rows, columns = weight.shape
    high = (x.shape[2] - (rows - 1) * dilations[0] - 1) // strides[0] + 1
    wide = (x.shape[3] - (columns - 1) * dilations[1] - 1) // strides[1] + 1
    result = torch.zeros(x.shape[0], outputs, high, wide) + bias[:, None, None]
    for out, inner, row, column in itertools.product(range(outputs), range(per_group), range(rows), range(columns)):
        seen = out // (outputs // groups) * per_group + inner
        y, z = row * dilations[0], column * dilations[1]
        taps = x[:, seen, y : y + strides[0] * high : strides[0], z : z + strides[1] * wide : strides[1]]
        result[:, out] += weight[out, inner, row, column] * taps[:, :high, :wide]
    return result


@pytest.mark.parametrize(
    ("strides", "dilations", "groups", "pad"),
    [((1, 1), (1, 1), 1, (1, 1, 1, 1)), ((2, 1), (1, 2), 2, (0, 3, 2, 1)), ((3, 2), (2, 1), 4, (0, 0, 0, 0))],
)
def test_conv(strides, dilations, groups, pad):
    x, weight, bias = torch.randn(2, 4, 9, 11), torch.randn(8, 4 // groups, 3, 2), torch.randn(8)
    given = {"strides": ints(*strides), "dilations": ints(*dilations), "groups": torch.tensor(groups)}
    result = OPERATORS["conv"](x, weight, bias, pad_type="custom", pad=ints(*pad), **given)
    close(result, convolved(x, weight, bias, strides, dilations, groups, (pad[:2], pad[2:])))
    if not any(pad):
        close(OPERATORS["conv"](x, weight, bias, pad_type="valid", **given), result)


def test_conv_of_one_and_three_axes():
    x, weight = torch.randn(1, 2, 5), torch.randn(3, 2, 3)
    close(OPERATORS["conv"](x, weight), (x.unfold(2, 3, 1)[:, None] * weight[None, :, :, None]).sum((2, 4)))
    x, weight = torch.randn(1, 1, 3, 4, 5), torch.randn(1, 1, 3, 3, 3)
    result = OPERATORS["conv"](x, weight, pad_type="custom", pad=ints(0, 0, 1, 0, 0, 2))
    assert result.shape == (1, 1, 1, 3, 5)
    close(result[0, 0, 0, 0, 0], (x[0, 0, :, :2, :3] * weight[0, 0, :, 1:]).sum())


@pytest.mark.parametrize(
    ("strides", "pad", "output"),
    [
        ((1, 1), (0, 0, 0, 0), None),
        ((2, 2), (1, 0, 1, 1), None),
        ((2, 3), (1, 1, 0, 1), (9, 12)),
        ((2, 2), (0,) * 4, (12, 14)),
    ],
)
def test_conv_transpose(strides, pad, output):
    """Each input pixel puts its kernel down; an output shape may ask for less or more than the kernels reach."""
    x, weight, bias = torch.randn(2, 4, 5, 4), torch.randn(4, 3, 3, 3), torch.randn(3)
    reach = [strides[axis] * (side - 1) + 3 for axis, side in enumerate(x.shape[2:])]
    canvas = torch.zeros(2, 3, *(side + 9 for side in reach))
    for row, column in itertools.product(range(5), range(4)):
        y, z = row * strides[0], column * strides[1]
        canvas[:, :, y : y + 3, z : z + 3] += torch.einsum("nc,cohw->nohw", x[:, :, row, column], weight)
    high, wide = output or (reach[0] - pad[0] - pad[1], reach[1] - pad[2] - pad[3])
    expected = canvas[:, :, pad[0] : pad[0] + high, pad[2] : pad[2] + wide] + bias[:, None, None]
    result = OPERATORS["conv_transpose"](
        x,
        weight,
        bias,
        pad=ints(*pad),
        output_shape=None if output is None else ints(2, 3, *output),
        pad_type="custom",
        strides=ints(*strides),
    )
    close(result, expected)


def test_conv_transpose_in_groups():
    x, weight = torch.randn(1, 4, 3, 3), torch.randn(4, 2, 2, 2)
    result = OPERATORS["conv_transpose"](x, weight, strides=ints(2, 2), groups=torch.tensor(2))
    halves = [OPERATORS["conv_transpose"](x[:, p], weight[p], strides=ints(2, 2)) for p in (slice(2), slice(2, 4))]
    close(result, torch.cat(halves, 1))


@pytest.mark.parametrize("exclude", [False, True])
def test_avg_pool(exclude):
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    result = OPERATORS["avg_pool"](
        x,
        ints(2, 2),
        strides=ints(2, 2),
        pad_type="custom",
        pad=ints(1, 0, 0, 0),
        exclude_padding_from_average=yes(exclude),
    )
    share = 2 if exclude else 4  # the upper row of windows sees one row of padding
    close(result, [[[[(0 + 1) / share, (2 + 3) / share], [6.5 + 0, 8.5]]]])
    close(OPERATORS["avg_pool"](x, ints(2, 2), strides=ints(2, 2), pad_type="valid"), [[[[2.5, 4.5]]]])


@pytest.mark.parametrize(("mode", "theirs"), [("constant", "constant"), ("replicate", "edge"), ("reflect", "reflect")])
def test_pad(mode, theirs):
    x = torch.randn(2, 3, 4, 5)
    value = {"constant_values": 0.5} if mode == "constant" else {}
    for pads in [(0, 0, 0, 0, 2, 1, 3, 2), (1, 3), (2, 0, 0, 4)]:
        result = OPERATORS["pad"](x, ints(*pads), mode=mode, constant_val=torch.tensor(0.5))
        margins = [(0, 0)] * (4 - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))
        close(result, np.pad(x.numpy(), margins, theirs, **value), 0)


def bilinear(x, column, row, outside):
    """One sample, (C,), at a place in pixels; `outside` None repeats the edge."""
    total = torch.zeros(x.shape[0])
    for below, right in itertools.product((0, 1), (0, 1)):
        y, z = math.floor(row) + below, math.floor(column) + right
        share = (1 - abs(row - y)) * (1 - abs(column - z))
        inside = 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
        if inside or outside is None:
            total += share * x[:, min(max(y, 0), x.shape[1] - 1), min(max(z, 0), x.shape[2] - 1)]
        else:
            total += share * outside
    return total


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("mode", ["unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one"])
@pytest.mark.parametrize(("padding", "outside"), [("constant", 0.0), ("constant", 0.75), ("border", None)])
def test_resample(corners, mode, padding, outside):
    """Corners aligned, the range's ends are the outer pixels' centres; not aligned, their outer edges."""
    x = torch.randn(1, 2, 4, 7)
    places = torch.rand(1, 3, 5, 2) * torch.tensor([10.0, 7.0]) - 2  # (column, row) in pixels, some outside
    last = torch.tensor([6.0, 3.0])
    unit = places / last if corners else (places + 0.5) / (last + 1)
    coordinates = {"unnormalized": places, "normalized_zero_to_one": unit}.get(mode, 2 * unit - 1)
    value = torch.tensor(outside or 0.0)
    result = OPERATORS["resample"](x, coordinates, "bilinear", padding, value, mode, yes(corners))
    expected = torch.stack([bilinear(x[0], *place.tolist(), outside) for place in places.reshape(-1, 2)], -1)
    close(result, expected.reshape(1, 2, 3, 5))


@pytest.mark.parametrize("corners", [True, False])
def test_upsample_bilinear(corners):
    x = torch.randn(1, 2, 3, 4)
    given = {"scale_factor_height": torch.tensor(2), "scale_factor_width": torch.tensor(2.5)}
    result = OPERATORS["upsample_bilinear"](x, align_corners=yes(corners), **given)
    assert result.shape == (1, 2, 6, 10)
    for row, column in [(0, 0), (1, 3), (5, 9), (3, 6)]:
        place = []
        for at, old, new in ((column, 4, 10), (row, 3, 6)):
            step = (old - 1) / (new - 1) if corners else old / new
            place.append(min(max(at * step if corners else (at + 0.5) * step - 0.5, 0), old - 1))
        close(result[0, :, row, column], bilinear(x[0], *place, None))
    with pytest.raises(CheckFailed, match="pixel centers"):
        OPERATORS["upsample_bilinear"](x, align_corners=yes(corners), half_pixel_centers=yes(corners), **given)


def test_pixels_change_places():
    x = torch.arange(24.0).reshape(1, 8, 1, 3)
    shuffled = OPERATORS["pixel_shuffle"](x, torch.tensor(2))
    for channel, row, column in itertools.product(range(2), range(2), range(6)):
        assert shuffled[0, channel, row, column] == x[0, 4 * channel + 2 * (row % 2) + column % 2, 0, column // 2]
    close(OPERATORS["pixel_unshuffle"](shuffled, torch.tensor(2)), x, 0)


def test_slice_by_index():
    x = torch.arange(120).reshape(4, 5, 6)
    cut = OPERATORS["slice_by_index"]
    array = x.numpy()
    close(cut(x, ints(1, 0, 2), ints(3, 5, 6)), array[1:3, 0:5, 2:6], 0)
    close(cut(x, ints(1, 0, 2), ints(0, 5, 0), end_mask=yes([True, False, True])), array[1:, 0:5, 2:], 0)
    close(
        cut(x, ints(3, 4, 5), ints(2, 9, 3), begin_mask=yes([True, False, False]), stride=ints(1, 1, -1)),
        array[:2, 4:9, 5:3:-1].copy(),
        0,
    )
    close(cut(x, ints(-3, 0, 0), ints(-1, 5, 6), stride=ints(1, 2, 3)), array[-3:-1, 0:5:2, 0:6:3], 0)
    close(cut(x, ints(-1, 0, 3), ints(0, 5, 0), squeeze_mask=yes([True, False, True])), array[-1, 0:5, 3], 0)
    everything = cut(x, ints(1, 2, 3), ints(0, 0, 0), squeeze_mask=yes([True] * 3))
    assert everything.shape == ()
    assert everything == array[1, 2, 3]
    assert cut(x, ints(2, 0, 0), ints(2, 5, 6)).shape == (0, 5, 6)


def test_shapes_and_joins():
    x = torch.randn(2, 3, 4)
    array = x.numpy()
    for split, parts in (({"split_sizes": ints(1, 2)}, (1, 2)), ({"num_splits": torch.tensor(3)}, (1, 1, 1))):
        pieces = OPERATORS["split"](x, axis=torch.tensor(-2), **split)
        assert tuple(piece.shape[1] for piece in pieces) == parts
        close(OPERATORS["concat"](list(pieces), torch.tensor(1), yes(False)), array, 0)
    mixed = OPERATORS["concat"]([x, -x], torch.tensor(-2), yes())
    close(mixed[:, ::2], array, 0)
    close(mixed[:, 1::2], -array, 0)
    close(OPERATORS["concat"]([torch.tensor(4), ints(5, 6)], torch.tensor(0)), [4, 5, 6], 0)
    close(OPERATORS["stack"]([x, x + 1], torch.tensor(-1)), np.stack([array, array + 1], -1), 0)
    close(OPERATORS["reshape"](x, ints(0, -1)), array.reshape(2, 12), 0)
    close(OPERATORS["transpose"](x, ints(-1, 0, 1)), array.transpose(2, 0, 1), 0)
    assert OPERATORS["expand_dims"](x, ints(-1, 0)).shape == (1, 2, 3, 4, 1)
    assert OPERATORS["squeeze"](torch.ones(1, 2, 1, 3), ints(2)).shape == (1, 2, 3)
    assert OPERATORS["squeeze"](torch.ones(1, 2, 1, 3)).shape == (2, 3)
    close(OPERATORS["tile"](x, ints(1, 2, 3)), np.tile(array, (1, 2, 3)), 0)
    close(OPERATORS["gather"](x, torch.tensor([[2, -1], [0, 1]]), torch.tensor(1)), array[:, [[2, -1], [0, 1]]], 0)
    close(OPERATORS["gather"](ints(7, 8, 9), torch.tensor(2), torch.tensor(0)), 9, 0)
    close(OPERATORS["range_1d"](torch.tensor(7), torch.tensor(1), torch.tensor(2)), [1, 3, 5], 0)


def test_element_by_element_with_broadcasting():
    x, y = torch.randn(2, 3, 1, 5), torch.randn(3, 4, 1)
    for name, operation in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("real_div", np.divide)):
        result = OPERATORS[name](x, y)
        assert result.shape == (2, 3, 4, 5)
        close(result, operation(x.numpy(), y.numpy()), 1e-4)
    close(OPERATORS["leaky_relu"](x, torch.tensor(0.25)), np.where(x > 0, x, x / 4), 0)
    close(OPERATORS["relu"](x), np.maximum(x.numpy(), 0), 0)
    close(OPERATORS["clip"](x, torch.tensor(-0.5), torch.tensor(0.25)), np.clip(x.numpy(), -0.5, 0.25), 0)
    close(OPERATORS["tanh"](x), np.tanh(x.numpy()), 1e-6)


@pytest.mark.parametrize(
    "fails",
    [
        lambda x: OPERATORS["conv"](x, torch.ones(1, 2, 3, 3), pad_type="same"),
        lambda x: OPERATORS["avg_pool"](x, ints(2, 2), ceil_mode=yes()),
        lambda x: OPERATORS["gather"](x, torch.tensor([0]), torch.tensor(2), batch_dims=torch.tensor(1)),
        lambda x: OPERATORS["resample"](x, x, "nearest", "border", x, "unnormalized", yes()),
        lambda x: OPERATORS["resample"](x, x, "bilinear", "border", x, "by heart", yes()),
    ],
)
def test_what_is_not_known_is_refused(fails):
    with pytest.raises(CheckFailed, match="not known to the evaluator"):
        fails(torch.ones(1, 2, 4, 4))
