"""What the operators of an ML program compute, in PyTorch and by the words of coremltools' reference.

Each function has the operator's name and takes its parameters by their names: tensors as `torch.Tensor`, text as `str`,
parameters that a program leaves out as None or the reference's default. Halves are held in float32; whoever calls
rounds a result to the type that the program declares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from distill.errors import CheckFailed
from export.to_coreml.package import unpacked

__all__ = ["OPERATORS"]


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    axes = x.ndim - 2
    padded = functional.pad(x, _torch_pads(_margins(pad_type, pad, axes)))
    convolve: Callable[..., Tensor] = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    return convolve(
        padded, weight, bias, _numbers(strides, [1] * axes), 0, _numbers(dilations, [1] * axes), _number(groups, 1)
    )


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    axes = x.ndim - 2
    convolve: Callable[..., Tensor] = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )[axes - 1]
    group_count = _number(groups, 1)
    whole = convolve(x, weight, None, _numbers(strides, [1] * axes), 0, 0, group_count, _numbers(dilations, [1] * axes))
    margins = _margins(pad_type, pad, axes)
    ends = [side - after for side, (_, after) in zip(whole.shape[2:], margins, strict=True)]
    if output_shape is not None:  # may reach further than any tap: nothing but the bias is there
        wanted = output_shape.tolist()[2:]
        ends = [before + side for side, (before, _) in zip(wanted, margins, strict=True)]
    reach = [(0, max(end - side, 0)) for end, side in zip(ends, whole.shape[2:], strict=True)]
    whole = functional.pad(whole, _torch_pads(reach))
    for axis, ((before, _), end) in enumerate(zip(margins, ends, strict=True), 2):
        whole = whole.narrow(axis, before, end - before)
    return whole if bias is None else whole + bias.reshape(-1, *[1] * axes)


def _margins(pad_type: str, pad: Tensor | None, axes: int) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis."""
    if pad_type not in ("valid", "custom"):
        raise CheckFailed(f"The padding {pad_type!r} of a convolution or pooling is not known to the evaluator.")
    if pad_type == "valid" or pad is None:
        return [(0, 0)] * axes
    sides = pad.tolist()
    return list(zip(sides[::2], sides[1::2], strict=True))


def _torch_pads(margins: list[tuple[int, int]]) -> list[int]:
    return [side for margin in reversed(margins) for side in margin]  # PyTorch begins with the last axis


def _avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    axes = x.ndim - 2
    if ceil_mode is not None and bool(ceil_mode):
        raise CheckFailed("avg_pool with ceil_mode is not known to the evaluator.")
    pool: Callable[..., Tensor] = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[axes - 1]
    kernel, step = kernel_sizes.tolist(), _numbers(strides, [1] * axes)
    margins = _torch_pads(_margins(pad_type, pad, axes))
    pooled = pool(functional.pad(x, margins), kernel, step)
    if exclude_padding_from_average is None or not bool(exclude_padding_from_average):
        return pooled
    return pooled / pool(functional.pad(torch.ones_like(x), margins), kernel, step)


def _pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None) -> Tensor:
    sides = pad.tolist()
    margins = list(zip(sides[::2], sides[1::2], strict=True))
    if mode == "constant":
        return functional.pad(x, _torch_pads(margins), value=0.0 if constant_val is None else float(constant_val))
    for axis, (before, after) in enumerate(margins, x.ndim - len(margins)):
        last = x.shape[axis] - 1
        places = torch.arange(-before, last + 1 + after)
        places = places.clamp(0, last) if mode == "replicate" else last - (last - places.abs()).abs()
        x = x.index_select(axis, places)
    return x


def _resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Tensor,
    coordinates_mode: str,
    align_corners: Tensor,
) -> Tensor:
    """Coordinates are (x, y), and are turned into PyTorch's, which reach from -1 to 1."""
    paddings = {"constant": "zeros", "border": "border"}
    if sampling_mode != "bilinear" or padding_mode not in paddings:
        raise CheckFailed(f"resample that is {sampling_mode} with {padding_mode} is not known to the evaluator.")
    corners = bool(align_corners)
    if coordinates_mode == "unnormalized":
        last = torch.tensor([x.shape[3] - 1.0, x.shape[2] - 1.0])
        coordinates = 2 * coordinates / last - 1 if corners else (2 * coordinates + 1) / (last + 1) - 1
    elif coordinates_mode == "normalized_zero_to_one":
        coordinates = 2 * coordinates - 1
    elif coordinates_mode != "normalized_minus_one_to_one":
        raise CheckFailed(f"resample by {coordinates_mode} coordinates is not known to the evaluator.")
    outside = float(padding_value) if padding_mode == "constant" else 0.0
    sampled = functional.grid_sample(x - outside, coordinates, "bilinear", paddings[padding_mode], corners)
    return sampled + outside


def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | None = None,
    scale_factor_width: Tensor | None = None,
    align_corners: Tensor | None = None,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    corners = align_corners is None or bool(align_corners)
    if half_pixel_centers is not None and bool(half_pixel_centers) == corners:
        raise CheckFailed("upsample_bilinear with these pixel centers is not known to the evaluator.")
    factors = (1.0 if each is None else float(each) for each in (scale_factor_height, scale_factor_width))
    size = [int(side * factor) for side, factor in zip(x.shape[-2:], factors, strict=True)]
    picture = x.reshape(-1, 1, *x.shape[-2:])
    large = functional.interpolate(picture, size=size, mode="bilinear", align_corners=corners)
    return large.reshape(*x.shape[:-2], *size)


def _slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    starts, ends, steps = begin.tolist(), end.tolist(), _numbers(stride, [1] * x.ndim)
    from_start, to_end, squeezed = (
        [False] * x.ndim if mask is None else mask.tolist() for mask in (begin_mask, end_mask, squeeze_mask)
    )
    for axis in range(x.ndim):
        if squeezed[axis]:
            places = [range(x.shape[axis])[starts[axis]]]
        else:
            start = None if from_start[axis] else starts[axis]
            stop = None if to_end[axis] else ends[axis]
            places = list(range(x.shape[axis])[slice(start, stop, steps[axis])])
        x = x.index_select(axis, torch.tensor(places, dtype=torch.long))
    return x.squeeze([axis for axis in range(x.ndim) if squeezed[axis]])


def _split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    along = int(axis)
    sizes = [x.shape[along] // _number(num_splits, 1)] * _number(num_splits, 1)
    parts: tuple[Tensor, ...] = x.split(_numbers(split_sizes, sizes), along)
    return parts


def _concat(values: list[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    if interleave is None or not bool(interleave):
        return torch.cat([value.reshape(1) if value.ndim == 0 else value for value in values], int(axis))
    along = int(axis) % values[0].ndim
    return torch.stack(values, along + 1).flatten(along, along + 1)


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[axis] if side == 0 else side for axis, side in enumerate(shape.tolist())])


def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,
) -> Tensor:
    if _number(batch_dims, 0):
        raise CheckFailed("gather with batch_dims is not known to the evaluator.")
    along = _number(axis, 0) % x.ndim
    places = indices.long() % x.shape[along]
    taken = x.index_select(along, places.flatten())
    return taken.reshape([*x.shape[:along], *indices.shape, *x.shape[along + 1 :]])


def _constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    sides = [1] * quantized_data.ndim
    sides[int(axis)] = -1
    zero, unit = (each.float().reshape(sides) if each.numel() > 1 else each.float() for each in (zero_point, scale))
    return (quantized_data.float() - zero) * unit


def _constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    centred = data.float() if offset is None else data.float() - _spread(offset.float(), data.shape)
    return centred * _spread(scale.float(), data.shape)


def _constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, vector_axis: Tensor | None = None, shape: Tensor | None = None
) -> Tensor:
    """Of iOS 16: packed indices, and one table (entries,). Of iOS 18: a table for each block, (blocks, entries, 1)."""
    if shape is not None:
        sides = shape.tolist()
        places = unpacked(indices.to(torch.uint8).numpy(), lut.numel().bit_length() - 1, math.prod(sides))
        return lut[torch.from_numpy(places).long()].reshape(sides)
    if lut.shape[-1] != 1:
        raise CheckFailed("constexpr_lut_to_dense of vectors is not known to the evaluator.")
    tables = _spread(lut.squeeze(-1), (*indices.shape, lut.shape[-2]))
    return tables.gather(-1, indices.long().unsqueeze(-1)).squeeze(-1)


def _spread(blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Each entry repeated over its block."""
    for axis, side in enumerate(shape):
        if blocks.shape[axis] not in (1, side):
            blocks = blocks.repeat_interleave(side // blocks.shape[axis], axis)
    return blocks.expand(shape)


def _numbers(values: Tensor | None, otherwise: list[int]) -> list[int]:
    return otherwise if values is None else values.tolist()


def _number(value: Tensor | None, otherwise: int) -> int:
    return otherwise if value is None else int(value)


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "relu": lambda x: x.relu(),
    "leaky_relu": lambda x, alpha: functional.leaky_relu(x, float(alpha)),
    "tanh": lambda x: x.tanh(),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "cast": lambda x, dtype: x,  # the declared type of the result is `dtype`
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "avg_pool": _avg_pool,
    "pad": _pad,
    "resample": _resample,
    "upsample_bilinear": _upsample_bilinear,
    "pixel_shuffle": lambda x, upscale_factor: functional.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: functional.pixel_unshuffle(x, int(downscale_factor)),
    "slice_by_index": _slice_by_index,
    "split": _split,
    "concat": _concat,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "reshape": _reshape,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(axes.tolist()),
    "expand_dims": _expand_dims,
    "tile": lambda x, reps: x.repeat(reps.tolist()),
    "shape": lambda x: torch.tensor(x.shape),
    "gather": _gather,
    "range_1d": lambda end, start, step: torch.arange(start.item(), end.item(), step.item()),
    "constexpr_affine_dequantize": _constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": _constexpr_blockwise_shift_scale,
    "constexpr_lut_to_dense": _constexpr_lut_to_dense,
}
"""By name; each returns a tensor, or a tuple where the operator has several results."""
