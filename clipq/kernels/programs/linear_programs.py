"""Linear layers of integer codes: int8 by int8, and floats by packed 4-bit codes."""

import triton
import triton.language as tl

__all__ = ["linear_w4a16", "linear_w8a8", "sum_splits"]

_ROOT_HALF = tl.constexpr(0.7071067811865476)
_ROOT_2_OVER_PI = tl.constexpr(0.7978845608028654)


@triton.jit
def _activated(values, ACTIVATION: tl.constexpr):
    if ACTIVATION == "gelu":
        return 0.5 * values * (1.0 + tl.math.erf(values * _ROOT_HALF))
    if ACTIVATION == "gelu-tanh":
        # (1 + tanh u) / 2 is the logistic function of 2u.
        inner = _ROOT_2_OVER_PI * (values + 0.044715 * values * values * values)
        return values / (1.0 + tl.exp(-2.0 * inner))
    if ACTIVATION == "quick-gelu":
        return values / (1.0 + tl.exp(-1.702 * values))
    return values


@triton.jit
def _tile(row_tiles, column_tiles, TALL: tl.constexpr):
    """Return the tile of a program: neighbours share operands in the L2 cache."""
    program = tl.program_id(0)
    together = TALL * column_tiles
    first = (program // together) * TALL
    height = tl.minimum(row_tiles - first, TALL)
    return first + (program % together) % height, (program % together) // height


@triton.jit
def linear_w8a8(
    x_ptr,
    weight_ptr,
    x_scale_ptr,
    weight_scale_ptr,
    sums_ptr,
    bias_ptr,
    out_ptr,
    rows,
    columns,
    depth,
    row_tiles,
    column_tiles,
    x_stride,
    weight_stride,
    out_stride,
    x_scale_stride,
    weight_scale_stride,
    zero_point,
    ZERO: tl.constexpr,
    BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TALL: tl.constexpr,
):
    row_tile, column_tile = _tile(row_tiles, column_tiles, TALL)
    row = row_tile.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = column_tile.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, DEPTH)
    # Rows and columns beyond the end read others' values; the store leaves them out.
    x_at = x_ptr + (row % rows)[:, None] * x_stride + inner[None, :]
    weight_at = weight_ptr + (column % columns)[None, :] * weight_stride + inner[:, None]
    total = tl.zeros([ROWS, COLUMNS], tl.int32)
    for first in range(0, depth, DEPTH):
        if EVEN:
            left, right = tl.load(x_at), tl.load(weight_at)
        else:
            known = first + inner < depth
            left = tl.load(x_at, mask=known[None, :], other=0)
            right = tl.load(weight_at, mask=known[:, None], other=0)
        total = tl.dot(left, right, total, out_dtype=tl.int32)
        x_at += DEPTH
        weight_at += DEPTH
    here, there = row < rows, column < columns
    if ZERO:
        total -= zero_point * tl.load(sums_ptr + column, mask=there, other=0)[None, :]
    x_scale = tl.load(x_scale_ptr + row * x_scale_stride, mask=here, other=0.0)
    weight_scale = tl.load(weight_scale_ptr + column * weight_scale_stride, mask=there, other=0.0)
    # One after the other: the product of two small scales may be no normal float.
    values = total.to(tl.float32) * x_scale[:, None] * weight_scale[None, :]
    if BIAS:
        values += tl.load(bias_ptr + column, mask=there, other=0.0).to(tl.float32)[None, :]
    values = _activated(values, ACTIVATION)
    where = row[:, None] * out_stride + column[None, :]
    tl.store(
        out_ptr + where,
        values.to(out_ptr.dtype.element_ty),
        mask=here[:, None] & there[None, :],
    )


@triton.jit
def linear_w4a16(
    x_ptr,
    packed_ptr,
    scale_ptr,
    zero_ptr,
    bias_ptr,
    out_ptr,
    rows,
    columns,
    pairs,
    column_tiles,
    splits,
    depth_blocks,
    blocks_a_split,
    x_stride,
    packed_stride,
    scale_stride,
    split_stride,
    out_stride,
    ZERO: tl.constexpr,
    BIAS: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Even and odd columns of x meet the low and high halves of the bytes; a block, one scale.

    Each split of the depth has sums of its own, added in a fixed order afterwards: no atomics.
    """
    program = tl.program_id(0)
    split = program % splits
    column_tile = (program // splits) % column_tiles
    row_tile = program // (splits * column_tiles)
    row = row_tile.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = column_tile.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    here, there = row < rows, column < columns
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    last = tl.minimum((split + 1) * blocks_a_split, depth_blocks)
    for block in range(split * blocks_a_split, last):
        pair = block * PAIRS + tl.arange(0, PAIRS)
        known = pair < pairs
        x_at = x_ptr + row[:, None] * x_stride + 2 * pair[None, :]
        inside = here[:, None] & known[None, :]
        even = tl.load(x_at, mask=inside, other=0.0)
        odd = tl.load(x_at + 1, mask=inside, other=0.0)
        packed = tl.load(
            packed_ptr + column[None, :] * packed_stride + pair[:, None],
            mask=there[None, :] & known[:, None],
            other=0,
        )
        group = (block * PAIRS * 2) // GROUP
        scale_at = column * scale_stride + group
        low, high = (packed & 15).to(tl.int32), (packed >> 4).to(tl.int32)
        if ZERO:
            zero = tl.load(zero_ptr + scale_at, mask=there, other=0.0).to(tl.int32)
            low, high = low - zero[None, :], high - zero[None, :]
        else:
            low, high = (low ^ 8) - 8, (high ^ 8) - 8
        part = tl.dot(even, low.to(even.dtype), input_precision=PRECISION)
        part = tl.dot(odd, high.to(odd.dtype), part, input_precision=PRECISION)
        scale = tl.load(scale_ptr + scale_at, mask=there, other=0.0)
        total += part * scale[None, :]
    if BIAS:
        total += tl.load(bias_ptr + column, mask=there, other=0.0).to(tl.float32)[None, :]
    where = split.to(tl.int64) * split_stride + row[:, None] * out_stride + column[None, :]
    tl.store(
        out_ptr + where, total.to(out_ptr.dtype.element_ty), mask=here[:, None] & there[None, :]
    )


@triton.jit
def sum_splits(
    partial_ptr,
    bias_ptr,
    out_ptr,
    count,
    columns,
    out_stride,
    BIAS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the splits' sums (SPLITS, rows, columns) in order, then the bias."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(partial_ptr + split * count + at, mask=inside, other=0.0)
    row, column = at // columns, at % columns
    if BIAS:
        total += tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * out_stride + column, total.to(out_ptr.dtype.element_ty), mask=inside)
