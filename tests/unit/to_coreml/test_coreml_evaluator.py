from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.errors import CheckFailed
from export.to_coreml.compression import clustered
from export.to_coreml.evaluator import Evaluator
from export.to_coreml.operators import OPERATORS
from export.to_coreml.package import Package, blob, quiet_coremltools, unpacked

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813 -- its documented name
    from coremltools.converters.mil.mil import get_new_symbol, types
    from coremltools.libmilstoragepython import _BlobStorageWriter as BlobWriter


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


# Files, which coremltools writes here without this project's export


def saved(build, *specs, target=18, **options):
    """A package of a program that coremltools' builder makes."""
    target = ct.target[f"iOS{target}"]

    @mb.program(input_specs=[mb.TensorSpec(shape, kind) for shape, kind in specs], opset_version=target)
    def program(x):
        return build(x)

    with quiet_coremltools(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        model = ct.convert(
            program,
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **options,
        )
    weights = Path(model.weights_dir) / "weight.bin"
    return Package(model.get_spec(), weights.read_bytes() if weights.is_file() else b"")


def test_every_operation_rounds_to_the_type_that_it_declares():
    """In halves 2048 + 1 is 2048, so adding 1 twice is not adding 2; whole numbers lose their fraction."""

    def build(x):
        halves = mb.add(x=mb.add(x=mb.cast(x=x, dtype="fp16"), y=np.float16(1)), y=np.float16(1))
        whole = mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32")
        return mb.cast(x=halves, dtype="fp32", name="halves"), mb.add(x=whole, y=np.float32(1.5), name="singles")

    x = np.array([2048.0, 4.7, -4.7], np.float32)
    result = Evaluator(saved(build, ((3,), types.fp32))).run({"x": torch.from_numpy(x)})
    expected = x.astype(np.float16) + np.float16(1) + np.float16(1)
    assert expected[0] == 2048
    close(result["halves"], expected.astype(np.float32), 0)
    close(result["singles"], [2049.5, 5.5, -2.5], 0)


def test_constants_of_every_form():
    """In the program and in the file of weights, of each type that exports have."""
    draw = np.random.default_rng(0)
    large, small = draw.normal(size=(2, 3, 4)).astype(np.float32), draw.normal(size=(2, 3, 4)).astype(np.float16)
    places = np.array([3, 0, 1], np.uint16)

    def build(x):
        y = mb.add(x=mb.mul(x=x, y=large), y=mb.cast(x=small, dtype="fp32"))
        y = mb.add(x=y, y=mb.cast(x=np.arange(4, dtype=np.int32), dtype="fp32"))
        y = mb.slice_by_index(x=y, begin=[0, 1, 0], end=[0, 3, 0], end_mask=[True, False, True])
        return mb.gather(x=y, indices=places, axis=-1, name="y")

    package = saved(build, ((2, 3, 4), types.fp32))
    assert len(package.weights) > 200
    x = draw.normal(size=(2, 3, 4)).astype(np.float32)
    expected = (x * large + small.astype(np.float32) + np.arange(4))[:, 1:3][..., places]
    close(Evaluator(package).run({"x": torch.from_numpy(x)})["y"], expected, 1e-6)


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


def test_states_are_read_written_and_forgotten():
    def build(x):
        before = mb.read_state(input=x)
        after = mb.coreml_update_state(state=x, value=mb.add(x=mb.mul(x=before, y=np.float16(0.5)), y=np.float16(1)))
        return mb.mul(x=after, y=np.float16(3), name="y")

    target = ct.target.iOS18

    @mb.program(input_specs=[mb.StateTensorSpec((2,), types.fp16)], opset_version=target)
    def program(x):
        return build(x)

    with quiet_coremltools(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        model = ct.convert(program, minimum_deployment_target=target, skip_model_load=True)
    evaluator = Evaluator(Package(model.get_spec(), b""))
    values = [evaluator.run({})["y"][0].item() for _ in range(3)]
    assert values == [3.0, 4.5, 5.25]
    evaluator.forget()
    assert evaluator.run({})["y"][0].item() == 3.0


def test_a_state_is_of_the_type_and_shape_that_it_declares():
    """Whatever is computed before it is written, and after it is read."""
    target = ct.target.iOS18

    @mb.program(input_specs=[mb.StateTensorSpec((2,), types.fp16)], opset_version=target)
    def program(x):
        after = mb.coreml_update_state(state=x, value=np.array([2049, 1], np.float16))
        return mb.mul(x=after, y=np.float16(1.5), name="y")

    with quiet_coremltools(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        model = ct.convert(program, minimum_deployment_target=target, skip_model_load=True).get_spec()
    function = model.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        for result in operation.outputs:
            if result.type.tensorType.rank == 1:
                result.type.tensorType.dataType = MIL_FLOAT32
        if operation.type == "const" and operation.outputs[0].type.tensorType.rank == 1:
            tensor = operation.attributes["val"]
            tensor.type.tensorType.dataType = MIL_FLOAT32
            tensor.immediateValue.tensor.floats.values[:] = [2049, 1]
    assert Evaluator(Package(model, b"")).run({})["y"].tolist() == [3072, 1.5], "2049 is 2048 in halves"
    function.inputs[0].type.stateType.wrappedType.tensorType.dimensions[0].constant.size = 3
    with pytest.raises(CheckFailed, match=r"the state x of the ML program has the shape \(2,\), declared as \(3,\)"):
        Evaluator(Package(model, b"")).run({})


def test_shapes_that_are_not_enumerated_are_refused():
    shapes = [(1, 3, 4, 8), (1, 3, 8, 4)]
    sides = (1, 3, get_new_symbol(), get_new_symbol())
    package = saved(
        lambda x: mb.concat(values=[mb.shape(x=x), [7]], axis=0, name="y"),
        (sides, types.fp32),
        inputs=[ct.TensorType("x", ct.EnumeratedShapes(shapes))],
    )
    evaluator = Evaluator(package)
    for shape in shapes:
        assert evaluator.run({"x": torch.ones(shape)})["y"].tolist() == [*shape, 7]
    with pytest.raises(CheckFailed, match=r"\(1, 3, 4, 8\) or \(1, 3, 8, 4\), not \(1, 3, 8, 8\)"):
        evaluator.run({"x": torch.ones(1, 3, 8, 8)})


def test_images_are_of_eight_bits():
    package = saved(
        lambda x: mb.mul(x=x, y=np.float32(1.4), name="y"),
        ((1, 3, 2, 2), types.fp32),
        inputs=[ct.ImageType("x", (1, 3, 2, 2), color_layout=ct.colorlayout.RGB)],
    )
    features = package.model.description
    features.output[0].type.imageType.CopyFrom(features.input[0].type.imageType)
    x = torch.linspace(-0.1, 1.1, 12).reshape(1, 3, 2, 2)
    pixels = np.clip(np.rint(x.numpy() * 255), 0, 255)
    expected = np.clip(np.rint(pixels * np.float32(1.4)), 0, 255) / 255
    close(Evaluator(package).run({"x": x})["y"], expected, 1e-6)


def test_a_result_must_have_the_declared_shape():
    package = saved(lambda x: mb.relu(x=x, name="y"), ((2, 3), types.fp32))
    function = package.model.mlProgram.functions["main"]
    dimensions = function.block_specializations[function.opset].operations[-1].outputs[0].type.tensorType.dimensions
    dimensions[1].constant.size = 4
    with pytest.raises(CheckFailed, match=r"y of the ML program has the shape \(2, 3\), declared as \(2, 4\)"):
        Evaluator(package).run({"x": torch.ones(2, 3)})


def test_what_cannot_be_run_is_told():
    package = saved(lambda x: mb.softmax(x=x, axis=0, name="y"), ((2, 3), types.fp32))
    with pytest.raises(CheckFailed, match="The operator softmax of the ML program is not known"):
        Evaluator(package)
    evaluator = Evaluator(saved(lambda x: mb.relu(x=x, name="y"), ((2, 3), types.fp32)))
    with pytest.raises(CheckFailed, match="needs the input x"):
        evaluator.run({"y": torch.ones(2, 3)})
    with pytest.raises(CheckFailed, match=r"takes x of shape \(2, 3\), not \(3, 2\)"):
        evaluator.run({"x": torch.ones(3, 2)})


# Weights in files


def test_blobs_of_every_type(tmp_path):
    path = tmp_path / "weight.bin"
    writer = BlobWriter(str(path))
    draw = np.random.default_rng(9)
    expected = {
        writer.write_float_data(np.array([1.5, -2], np.float32)): [1.5, -2],
        writer.write_fp16_data(np.array([1.5, -2], np.float16).view(np.uint16)): [1.5, -2],
    }
    for name, kind in (("int8", np.int8), ("uint8", np.uint8), ("int16", np.int16), ("uint16", np.uint16),
                       ("int32", np.int32), ("uint32", np.uint32)):  # fmt: skip
        bounds = np.iinfo(kind)
        values = np.array([bounds.min, 3, bounds.max], kind)
        expected[getattr(writer, f"write_{name}_data")(values)] = values
    for bits in (4, 6):
        values = draw.integers(0, 2**bits, 13).astype(np.uint8)
        expected[getattr(writer, f"write_uint{bits}_data")(values)] = values
    del writer  # closes the file
    weights = path.read_bytes()
    for offset, values in expected.items():
        np.testing.assert_array_equal(blob(weights, offset), values)
    for damaged, offset in ((weights, 0), (weights, 65), (weights[:-100], max(expected)), (b"", 64)):
        with pytest.raises(ValueError, match="byte"):
            blob(damaged, offset)


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
