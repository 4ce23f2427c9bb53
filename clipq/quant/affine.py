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

import torch
from torch import Tensor

__all__ = [
    "QParams",
    "choose_qparams_asymmetric",
    "choose_qparams_symmetric",
    "dequantize",
    "quantize_codes",
    "round_up_to_power",
    "usable_scale",
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

    def snap(self, values: Tensor) -> Tensor:
        """Return float32 `values` on the grid; equal to dequantize(quantize_codes)."""
        # Clamping round(x / s) between low - z and high - z equals clamping the code, without
        # adding the zero point and taking it away again.
        steps = values.float().div(self.scale).round_()
        if self.zero_point is None:
            return steps.clamp_(self.low, self.high).mul_(self.scale)
        return steps.clamp_(*self.steps()).mul_(self.scale)

    def snap_and_inside(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `snap` and `inside` do, from one rounding."""
        steps = values.float().div(self.scale).round_()
        ends = (self.low, self.high) if self.zero_point is None else self.steps()
        clamped = steps.clamp(*ends)
        inside = clamped == steps  # NaN is not itself
        return clamped.mul_(self.scale), inside

    def inside(self, values: Tensor) -> Tensor:
        """Return where the rounded value lies inside the code range; False for NaN."""
        low, high = self.steps()
        steps = values.float().div(self.scale).round_()
        return (steps >= low) & (steps <= high)


def choose_qparams_symmetric(absmax: Tensor, *, bits: int, power_of_two: bool = False) -> QParams:
    """Return s = max|x| / (2^(b-1) - 1) with codes -2^(b-1) … 2^(b-1) - 1.

    Source: round-to-nearest as the study uses it. ±max|x| are representable; the one extra
    negative code is reached only by values outside the range.
    """
    high = 2 ** (bits - 1) - 1
    scale = usable_scale(absmax.float() / high)
    return QParams(round_up_to_power(scale) if power_of_two else scale, None, -high - 1, high)


def choose_qparams_asymmetric(
    low: Tensor, high: Tensor, *, bits: int, power_of_two: bool = False
) -> QParams:
    """Return scale and zero point of the range [min(low, 0), max(high, 0)], codes 0 … 2^b - 1.

    s = (high - low) / (2^b - 1), z = round(-low / s). Rounding z shifts the representable range
    by at most half a step against the one asked for, and keeps zero exact.
    Source: Jacob et al. 2018, arXiv 1712.05877, section 3.
    """
    levels = 2**bits - 1
    low, high = low.float().clamp(max=0.0), high.float().clamp(min=0.0)
    # Dividing first keeps the widest float range from overflowing.
    scale = usable_scale(high / levels - low / levels)
    scale = round_up_to_power(scale) if power_of_two else scale
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


def round_up_to_power(scale: Tensor) -> Tensor:
    """Return the smallest power of two that is not below `scale`; NaN and infinity stay."""
    mantissa, exponent = torch.frexp(scale)
    power = torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).int())
    return torch.where(scale.isfinite(), power, scale)


def usable_scale(scale: Tensor) -> Tensor:
    """Return `scale`, at least the smallest normal float; NaN stays."""
    return scale.clamp(min=_SMALLEST_SCALE)
