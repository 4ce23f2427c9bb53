"""The fast Walsh-Hadamard transform of rows, and of rows of 12 · 2^k."""

import triton
import triton.language as tl

__all__ = ["hadamard"]


@triton.jit
def _butterfly(values, ROWS: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr):
    """Sums and differences of values HALF apart; most stages stay in a thread's registers."""
    pairs = tl.reshape(values, [ROWS, SIZE // (2 * HALF), 2, HALF])
    first, second = tl.split(tl.permute(pairs, [0, 1, 3, 2]))
    joined = tl.join(first + second, first - second)
    return tl.reshape(tl.permute(joined, [0, 1, 3, 2]), [ROWS, SIZE])


@triton.jit
def hadamard(
    x_ptr,
    signs_ptr,
    base_ptr,
    out_ptr,
    rows,
    x_stride,
    out_stride,
    base_first,
    base_second,
    factor,
    SIGNS: tl.constexpr,
    TWELVE: tl.constexpr,
    STAGES: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A tile has ROWS rows of 2^STAGES values, or, for 12 · 2^STAGES, the 12 parts of one row."""
    line = tl.arange(0, ROWS)
    column = tl.arange(0, SIZE)
    if TWELVE:
        row = tl.program_id(0).to(tl.int64)
        inside = (line < 12)[:, None] & (column < SIZE)[None, :]
        within = line[:, None] * SIZE + column[None, :]
        x_at = row * x_stride + within
        out_at = row * out_stride + within
    else:
        row = tl.program_id(0).to(tl.int64) * ROWS + line
        inside = (row < rows)[:, None] & (column < SIZE)[None, :]
        within = tl.broadcast_to(column[None, :], [ROWS, SIZE])
        x_at = row[:, None] * x_stride + within
        out_at = row[:, None] * out_stride + within
    values = tl.load(x_ptr + x_at, mask=inside, other=0.0).to(tl.float32)
    if SIGNS == "before":
        values *= tl.load(signs_ptr + within, mask=inside, other=0.0).to(tl.float32)
    for stage in tl.static_range(STAGES):
        values = _butterfly(values, ROWS, SIZE, 2**stage)
    if TWELVE:
        other = tl.arange(0, ROWS)
        small = (line < 12)[:, None] & (other < 12)[None, :]
        base_at = line[:, None] * base_first + other[None, :] * base_second
        base = tl.load(base_ptr + base_at, mask=small, other=0.0)
        if SIZE >= 16:
            values = tl.dot(base, values, input_precision="ieee")
        else:
            values = tl.sum(base[:, :, None] * values[None, :, :], 1)
    values *= factor
    if SIGNS == "after":
        values *= tl.load(signs_ptr + within, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + out_at, values.to(out_ptr.dtype.element_ty), mask=inside)
