"""Grids that are no integers: small floats with a scale, blocks with a shared exponent, NF4.

    x̂ = s · nearest(clamp(x / s, -max, max))

| number | values | largest | scale |
|---|---|---|---|
| e4m3 | OCP FP8 (no infinities) | 448 | max|x| / 448 |
| e5m2 | OCP FP8 | 57,344 | max|x| / 57,344 |
| mxfp8 | e4m3 | 448 | 2^(floor(log2 max|x|) - 8), shared by 32 values |
| mxfp4 | e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 | 6 | 2^(floor(log2 max|x|) - 2), shared by 32 values |
| nf4 | 16 quantiles of a normal distribution | 1 | max|x| |

Rounding is half to even in the float's own mantissa. The MX scale rounds down, so that values above
its largest saturate: that is the OCP Microscaling specification 1.0, section 6.3. Conventions for
zero, NaN and infinity are those of `clipq.quant.affine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clipq.quant.affine import round_up_to_power, usable_scale

__all__ = ["NF4", "CodebookGrid", "FloatGrid", "choose_codebook", "choose_float"]

Element = Literal["e4m3", "e5m2", "e2m1"]
_LARGEST: dict[Element, float] = {"e4m3": 448.0, "e5m2": 57344.0, "e2m1": 6.0}
_EXPONENT: dict[Element, int] = {"e4m3": 8, "e5m2": 15, "e2m1": 2}


def _normal_quantiles() -> tuple[float, ...]:
    """Return NF4's values: eight quantiles above zero, seven below, and zero itself.

    Source: Dettmers et al. 2023 (QLoRA), arXiv 2305.14314, appendix E: evenly spaced probabilities
    from 0.9677083 to 1/2, quantiles of the standard normal, divided by the largest.
    """
    above = torch.special.ndtri(torch.linspace(0.9677083, 0.5, 9, dtype=torch.float64)[:-1])
    below = -torch.special.ndtri(torch.linspace(0.9677083, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat([above, torch.zeros(1, dtype=torch.float64), below]).sort().values
    return tuple((values / values.max()).tolist())


NF4: tuple[float, ...] = _normal_quantiles()


@dataclass(frozen=True, slots=True, eq=False)
class FloatGrid:
    """Small floats times a scale.

    Args:
        scale: float32, positive, broadcastable against the values.
        element: which small float.
    """

    scale: Tensor
    element: Element

    def snap(self, values: Tensor) -> Tensor:
        """Return float32 `values` on the grid."""
        largest = _LARGEST[self.element]
        scaled = values.float().div(self.scale).clamp_(-largest, largest)
        return _round(scaled, self.element) * self.scale

    def inside(self, values: Tensor) -> Tensor:
        """Return where `values` were not clamped; False for NaN."""
        return values.abs() <= self.scale * _LARGEST[self.element]


@dataclass(frozen=True, slots=True, eq=False)
class CodebookGrid:
    """Sixteen values in [-1, 1] times the largest absolute value.

    Args:
        scale: float32, positive, broadcastable against the values.
    """

    scale: Tensor

    def snap(self, values: Tensor) -> Tensor:
        """Return float32 `values` on the grid; halfway between two values the lower one."""
        book = torch.tensor(NF4, dtype=torch.float32, device=values.device)
        scaled = values.float() / self.scale
        nearest = torch.bucketize(scaled.contiguous(), (book[1:] + book[:-1]) / 2)
        return torch.where(scaled.isnan(), scaled, book[nearest]) * self.scale

    def inside(self, values: Tensor) -> Tensor:
        """Return where `values` were not clamped; False for NaN."""
        return values.abs() <= self.scale


def choose_float(
    absmax: Tensor, element: Element, *, shared_exponent: bool, power_of_two: bool = False
) -> FloatGrid:
    """Return the grid for values up to `absmax`.

    Args:
        absmax: largest absolute value of whatever shares a scale.
        element: the small float.
        shared_exponent: the scale is MX's power of two, which rounds down; otherwise
            absmax / largest.
        power_of_two: round that scale up to a power of two.
    """
    if shared_exponent:
        # frexp: absmax = m · 2^e with m in [0.5, 1), so floor(log2 absmax) = e - 1.
        _, exponent = torch.frexp(absmax.float())
        one = torch.ones_like(absmax, dtype=torch.float32)
        scale = torch.ldexp(one, exponent - 1 - _EXPONENT[element])
        scale = torch.where(absmax.isfinite(), scale, absmax.float())
    else:
        scale = absmax.float() / _LARGEST[element]
        scale = round_up_to_power(usable_scale(scale)) if power_of_two else scale
    return FloatGrid(usable_scale(scale), element)


def choose_codebook(absmax: Tensor, *, power_of_two: bool = False) -> CodebookGrid:
    """Return the NF4 grid for values up to `absmax`."""
    scale = usable_scale(absmax.float())
    return CodebookGrid(round_up_to_power(scale) if power_of_two else scale)


def _round(scaled: Tensor, element: Element) -> Tensor:
    if element == "e4m3":
        return scaled.to(torch.float8_e4m3fn).float()
    if element == "e5m2":
        return scaled.to(torch.float8_e5m2).float()
    # e2m1: the step doubles at 2 and at 4, and rounding half to even of x / step is its own.
    size = scaled.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.round(scaled / step) * step
