"""Rounding rows to a grid that is given, or to grids of their own ranges."""

import triton
import triton.language as tl

from clipq.kernels.programs.arithmetic import range_grid, stepped

__all__ = ["layer_norm_codes", "round_dynamic", "round_static"]


@triton.jit
def _result(values, scale, zero, low, high, gradient, MODE: tl.constexpr):
    if MODE == "gradient":
        # One step beyond either end is enough to know that a value was clamped.
        steps = stepped(values, scale, low - 1.0, high + 1.0)
        return gradient * ((steps >= low) & (steps <= high)).to(tl.float32)
    steps = stepped(values, scale, low, high)
    if MODE == "codes":
        codes = steps + zero
        return tl.where(codes == codes, codes, zero)  # no integer holds NaN
    return steps * scale


@triton.jit
def round_static(
    x_ptr,
    gradient_ptr,
    scale_ptr,
    zero_ptr,
    out_ptr,
    rows,
    columns,
    column_blocks,
    x_stride,
    gradient_stride,
    out_stride,
    scale_row,
    scale_group,
    low,
    high,
    MODE: tl.constexpr,
    ZERO: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    program = tl.program_id(0)
    row = (program // column_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (program % column_blocks).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    values = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0)
    if GROUP > 0:
        where = row[:, None] * scale_row + (column // GROUP)[None, :] * scale_group
        scale = tl.load(scale_ptr + where, mask=inside, other=1.0)
        zero = tl.load(zero_ptr + where, mask=inside, other=0.0) if ZERO else 0.0
    else:
        here = (row < rows)[:, None]
        scale = tl.load(scale_ptr + row[:, None] * scale_row, mask=here, other=1.0)
        zero = tl.load(zero_ptr + row[:, None] * scale_row, mask=here, other=0.0) if ZERO else 0.0
    gradient = 0.0
    if MODE == "gradient":
        where = row[:, None] * gradient_stride + column[None, :]
        gradient = tl.load(gradient_ptr + where, mask=inside, other=0.0).to(tl.float32)
    result = _result(values.to(tl.float32), scale, zero, low - zero, high - zero, gradient, MODE)
    where = row[:, None] * out_stride + column[None, :]
    tl.store(out_ptr + where, result.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def round_dynamic(
    x_ptr,
    gradient_ptr,
    out_ptr,
    parts,
    columns,
    groups,
    size,
    x_stride,
    gradient_stride,
    out_stride,
    MODE: tl.constexpr,
    LEVELS: tl.constexpr,
    ASYMMETRIC: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Each part, a row or a group of its values, is read once if a block holds it, else twice."""
    part = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, start = part // groups, (part % groups) * size
    end = tl.minimum(start + size, columns)
    column = tl.arange(0, COLUMNS)
    here = part < parts
    x_row = x_ptr + row * x_stride
    if WHOLE:
        at = start[:, None] + column[None, :]
        inside = here[:, None] & (at < end[:, None])
        values = tl.load(x_row[:, None] + at, mask=inside, other=0.0).to(tl.float32)
        least, most = values, values
        unknown = (values != values).to(tl.int32)
    else:
        least = tl.zeros([ROWS, COLUMNS], tl.float32)
        most = tl.zeros([ROWS, COLUMNS], tl.float32)
        unknown = tl.zeros([ROWS, COLUMNS], tl.int32)
        for first in range(0, size, COLUMNS):
            at = start[:, None] + first + column[None, :]
            inside = here[:, None] & (at < end[:, None])
            values = tl.load(x_row[:, None] + at, mask=inside, other=0.0).to(tl.float32)
            least, most = tl.minimum(least, values), tl.maximum(most, values)
            unknown = unknown | (values != values).to(tl.int32)
    # Zeros beside the values are harmless: every range contains zero. NaN is carried by hand, for
    # reductions drop it.
    broken = (tl.max(unknown, 1) > 0)[:, None]
    lowest = tl.where(broken, float("nan"), tl.min(least, 1)[:, None])
    highest = tl.where(broken, float("nan"), tl.max(most, 1)[:, None])
    scale, zero, low, high = range_grid(lowest, highest, LEVELS, ASYMMETRIC)
    for first in range(0, COLUMNS if WHOLE else size, COLUMNS):
        gradient = 0.0  # in the loop: what an iteration hands to the next may not change its shape
        at = start[:, None] + first + column[None, :]
        inside = here[:, None] & (at < end[:, None])
        if not WHOLE:
            values = tl.load(x_row[:, None] + at, mask=inside, other=0.0).to(tl.float32)
        if MODE == "gradient":
            where = (row * gradient_stride)[:, None] + at
            gradient = tl.load(gradient_ptr + where, mask=inside, other=0.0).to(tl.float32)
        result = _result(values, scale, zero, low, high, gradient, MODE)
        where = (row * out_stride)[:, None] + at
        tl.store(out_ptr + where, result.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def layer_norm_codes(
    x_ptr,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    zero_ptr,
    out_ptr,
    rows,
    columns,
    x_stride,
    out_stride,
    epsilon,
    low,
    high,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    ZERO: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Layer norm in float32, of rows that a block holds, straight to codes."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    known = (column < columns)[None, :]
    inside = (row < rows)[:, None] & known
    where = row[:, None] * x_stride + column[None, :]
    values = tl.load(x_ptr + where, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, 1)[:, None] / columns
    centred = tl.where(known, values - mean, 0.0)
    variance = tl.sum(centred * centred, 1)[:, None] / columns
    values = tl.math.div_rn(centred, tl.math.sqrt_rn(variance + epsilon))
    if WEIGHT:
        gain = tl.load(weight_ptr + column, mask=column < columns, other=0.0)
        values = values * gain.to(tl.float32)[None, :]
    if BIAS:
        shift = tl.load(bias_ptr + column, mask=column < columns, other=0.0)
        values = values + shift.to(tl.float32)[None, :]
    zero = tl.load(zero_ptr) if ZERO else 0.0
    steps = stepped(values, tl.load(scale_ptr), low - zero, high - zero)
    codes = steps + zero
    codes = tl.where(codes == codes, codes, zero)
    where = row[:, None] * out_stride + column[None, :]
    tl.store(out_ptr + where, codes.to(out_ptr.dtype.element_ty), mask=inside)
