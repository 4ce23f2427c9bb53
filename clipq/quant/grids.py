"""From a number format and a range to a grid, and rounding to any grid."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from clipq.quant.affine import (
    QParams,
    choose_qparams_asymmetric,
    choose_qparams_symmetric,
)
from clipq.quant.floats import choose_codebook, choose_float
from clipq.quant.formats import ActivationFormat, WeightFormat

__all__ = ["Grid", "choose_grid", "fake_quantize"]


class Grid(Protocol):
    """Representable values, given by a scale; the arguments broadcast against it."""

    @property
    def scale(self) -> Tensor:
        """Float32, positive."""

    def snap(self, values: Tensor) -> Tensor:
        """Return float32 `values` rounded to the grid."""

    def inside(self, values: Tensor) -> Tensor:
        """Return where `values` were rounded, not clamped; False for NaN."""


def choose_grid(low: Tensor, high: Tensor, number_format: WeightFormat | ActivationFormat) -> Grid:
    """Return the grid of a format for values from `low` to `high`.

    Symmetric numbers use max(-low, high). NaN in the range makes the scale NaN.
    """
    power = number_format.power_of_two
    if number_format.asymmetric:
        return choose_qparams_asymmetric(low, high, bits=number_format.bits, power_of_two=power)
    absmax = torch.maximum(high, -low)
    match number_format.number:
        case "int":
            return choose_qparams_symmetric(absmax, bits=number_format.bits, power_of_two=power)
        case "e4m3" | "e5m2":
            return choose_float(
                absmax, number_format.number, shared_exponent=False, power_of_two=power
            )
        case "mxfp8":
            return choose_float(absmax, "e4m3", shared_exponent=True)
        case "mxfp4":
            return choose_float(absmax, "e2m1", shared_exponent=True)
        case "nf4":
            return choose_codebook(absmax, power_of_two=power)


def fake_quantize(values: Tensor, grid: Grid) -> Tensor:
    """Return `values` rounded to the grid, in their own dtype.

    The gradient is straight-through: one where the value was rounded, zero where it was clamped
    (and for NaN). Scale and zero point get no gradient.
    Source: Bengio et al. 2013, arXiv 1308.3432; mask as `torch.fake_quantize_per_tensor_affine`.
    """
    result: Tensor = _FakeQuantize.apply(values, grid)
    return result


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Grid) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return grid.snap(values).to(values.dtype)
        if isinstance(grid, QParams):
            snapped, inside = grid.snap_and_inside(values)
        else:
            snapped, inside = grid.snap(values), grid.inside(values)
        ctx.save_for_backward(inside)
        return snapped.to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None
