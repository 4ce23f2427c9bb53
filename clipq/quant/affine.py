"""Affine quantization as pure functions: x ≈ s · (q - z), q an integer.

    q = clamp(round(x / s) + z, low, high)          x̂ = s · (q - z)

Arithmetic is float32 whatever the input's dtype; rounding is half to even (`torch.round`).

Edge cases, the same everywhere:

- scales are normal floats, never zero or denormal; where all values are zero x̂ is exactly zero;
- zero is always exactly representable;
- NaN propagates: a NaN value stays NaN, and a NaN in a range makes its scale NaN;
- ±Inf saturates against a finite scale. Whoever chooses the range decides whether an infinite
  range is an error (weights, calibration) or yields NaN (dynamic activations).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "QParams",
    "choose_qparams_asymmetric",
    "choose_qparams_symmetric",
    "dequantize",
    "fake_quantize",
    "quantize_codes",
]

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # smallest *normal* float: survives flush-to-zero


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """Scale, zero point and code range.

    Args:
        scale: float32, positive, broadcastable against the values.
        zero_point: float32 holding integers, same shape; None where it is zero (symmetric).
        low: smallest code.
        high: largest code.
    """

    scale: Tensor
    zero_point: Tensor | None
    low: int
    high: int

    def steps(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest representable value in units of the scale."""
        zero = torch.zeros_like(self.scale) if self.zero_point is None else self.zero_point
        return self.low - zero, self.high - zero


def choose_qparams_symmetric(absmax: Tensor, *, bits: int) -> QParams:
    """Return s = max|x| / (2^(b-1) - 1) with codes -2^(b-1) … 2^(b-1) - 1.

    Source: round-to-nearest as the study uses it. ±max|x| are representable; the one extra
    negative code is reached only by values outside the range.
    """
    high = 2 ** (bits - 1) - 1
    return QParams(_usable(absmax.float() / high), None, -high - 1, high)


def choose_qparams_asymmetric(low: Tensor, high: Tensor, *, bits: int) -> QParams:
    """Return scale and zero point of the range [min(low, 0), max(high, 0)], codes 0 … 2^b - 1.

    s = (high - low) / (2^b - 1), z = round(-low / s). Rounding z shifts the representable range
    by at most half a step against the one asked for, and keeps zero exact.
    Source: Jacob et al. 2018, arXiv 1712.05877, section 3.
    """
    levels = 2**bits - 1
    low, high = low.float().clamp(max=0.0), high.float().clamp(min=0.0)
    # Dividing first keeps the widest float range from overflowing.
    scale = _usable(high / levels - low / levels)
    return QParams(scale, torch.round(-low / scale).clamp(0, levels), 0, levels)


def quantize_codes(values: Tensor, qparams: QParams) -> Tensor:
    """Return int32 codes of `values`; undefined for NaN, which no integer can hold."""
    codes = torch.round(values.float() / qparams.scale)
    if qparams.zero_point is not None:
        codes = codes + qparams.zero_point
    return codes.clamp(qparams.low, qparams.high).to(torch.int32)


def dequantize(codes: Tensor, qparams: QParams) -> Tensor:
    """Return float32 values of integer `codes`."""
    steps = codes.float()
    if qparams.zero_point is not None:
        steps = steps - qparams.zero_point
    return steps * qparams.scale


def fake_quantize(values: Tensor, qparams: QParams) -> Tensor:
    """Return `values` rounded to the grid, in their own dtype; equal to dequantize(quantize).

    The gradient is straight-through: one where the rounded value lies inside the code range, zero
    where it was clamped (and for NaN). Scale and zero point get no gradient.
    Source: Bengio et al. 2013, arXiv 1308.3432; mask as `torch.fake_quantize_per_tensor_affine`.
    """
    result: Tensor = _FakeQuantize.apply(values, qparams)
    return result


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, qparams: QParams) -> Tensor:
        # Clamping round(x / s) between low - z and high - z equals clamping the code, without
        # adding the zero point and taking it away again.
        low, high = qparams.steps()
        steps = values.float().div(qparams.scale).round_()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((steps >= low) & (steps <= high))
        return steps.clamp_(low, high).mul_(qparams.scale).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


def _usable(scale: Tensor) -> Tensor:
    return scale.clamp(min=_SMALLEST_SCALE)
