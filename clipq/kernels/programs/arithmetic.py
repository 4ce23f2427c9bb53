"""The arithmetic of codes, bit for bit that of `clipq.quant.affine`.

Divisions are IEEE's (Triton's own `/` is off by an ULP or two on a GPU), rounding is half to even,
NaN propagates through every clamp. Programs are compiled without fused multiply-adds.
"""

import triton
import triton.language as tl

__all__ = ["clamped", "range_grid", "round_half_even", "stepped"]

_MAGIC = tl.constexpr(12582912.0)  # 1.5 · 2^23: what is added to it loses its fraction
_TINY = tl.constexpr(1.1754943508222875e-38)  # smallest normal float32


@triton.jit
def round_half_even(values):
    """Round values of at most 2^22; larger ones were clamped before."""
    return (values + _MAGIC) - _MAGIC


@triton.jit
def clamped(values, low, high):
    above = tl.maximum(values, low, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(above, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def stepped(values, scale, low, high):
    """Return values in whole steps of the scale, within [low, high]; the bounds are integers.

    Rounding after clamping to integers equals clamping after rounding.
    """
    return round_half_even(clamped(tl.math.div_rn(values, scale), low, high))


@triton.jit
def range_grid(least, most, LEVELS: tl.constexpr, ASYMMETRIC: tl.constexpr):
    """Return scale, zero point and the bounds of the steps for values from least to most."""
    if ASYMMETRIC:
        least = clamped(least, float("-inf"), 0.0)
        most = clamped(most, 0.0, float("inf"))
        width = tl.math.div_rn(most, LEVELS * 1.0) - tl.math.div_rn(least, LEVELS * 1.0)
        scale = clamped(width, _TINY, float("inf"))
        zero = round_half_even(clamped(tl.math.div_rn(-least, scale), 0.0, LEVELS * 1.0))
        return scale, zero, 0.0 - zero, LEVELS - zero
    largest = tl.maximum(most, -least, propagate_nan=tl.PropagateNan.ALL)
    high = (LEVELS - 1) // 2
    scale = clamped(tl.math.div_rn(largest, high * 1.0), _TINY, float("inf"))
    zero = tl.zeros_like(scale)
    return scale, zero, zero - (high + 1), zero + high
