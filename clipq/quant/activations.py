"""Modules that round the input of a linear layer: static per tensor, or dynamic per token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.affine import (
    QParams,
    choose_qparams_asymmetric,
    choose_qparams_symmetric,
    fake_quantize,
)
from clipq.quant.formats import ActivationFormat

__all__ = ["DynamicQuantizer", "InputQuantizer", "StaticQuantizer"]


class StaticQuantizer(nn.Module):
    """Rounds a tensor to one calibrated scale; values outside the range saturate.

    Args:
        number_format: bits and symmetry.
        low: smallest value seen in calibration.
        high: largest value seen in calibration.

    A range of [0, 0] (a dead input) yields exact zeros. Shape and dtype of the input are kept.
    """

    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, number_format: ActivationFormat, *, low: float, high: float) -> None:
        super().__init__()
        if not (-torch.inf < low <= high < torch.inf):
            raise QuantizerError(
                f"activation range [{low}, {high}] is no finite interval",
                hint="check the calibration data and the model's activations for NaN and Inf",
            )
        self.number_format = number_format
        qparams = _qparams(torch.tensor(low), torch.tensor(high), number_format)
        self.register_buffer("scale", qparams.scale)
        self.register_buffer("zero_point", qparams.zero_point)
        self._codes = (qparams.low, qparams.high)

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid."""
        return fake_quantize(values, QParams(self.scale, self.zero_point, *self._codes))

    def extra_repr(self) -> str:
        """Return the format and the scale."""
        return f"{self.number_format}, scale={self.scale.item():.6g}"


class DynamicQuantizer(nn.Module):
    """Rounds each token to its own range.

    Args:
        number_format: bits and symmetry.
        over: what one scale covers: the ``"features"`` of a token, (..., features), or, before a
            convolution, a whole ``"image"``, (N, C, H, W).

    The scale is a constant to the gradient. A token with an infinite value becomes NaN.
    """

    def __init__(
        self, number_format: ActivationFormat, *, over: Literal["features", "image"]
    ) -> None:
        super().__init__()
        self.number_format = number_format
        self._dims = (-1,) if over == "features" else (-3, -2, -1)

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid of their token."""
        if values.numel() == 0:
            return values
        low, high = torch.aminmax(values.detach().flatten(-len(self._dims)), dim=-1, keepdim=True)
        if len(self._dims) > 1:
            low, high = low[..., None, None], high[..., None, None]
        return fake_quantize(values, _qparams(low, high, self.number_format))

    def extra_repr(self) -> str:
        """Return the format."""
        return str(self.number_format)


InputQuantizer = StaticQuantizer | DynamicQuantizer


def _qparams(low: Tensor, high: Tensor, number_format: ActivationFormat) -> QParams:
    if number_format.asymmetric:
        return choose_qparams_asymmetric(low, high, bits=number_format.bits)
    return choose_qparams_symmetric(torch.maximum(high, -low), bits=number_format.bits)
