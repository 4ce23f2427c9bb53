"""Modules that round the input of a linear layer: static per tensor, or dynamic per token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from clipq.errors import QuantizerError
from clipq.quant.formats import ActivationFormat
from clipq.quant.grids import Grid, choose_grid, fake_quantize

__all__ = ["DynamicQuantizer", "InputQuantizer", "StaticQuantizer"]


class StaticQuantizer(nn.Module):
    """Rounds a tensor to one calibrated scale; values outside the range saturate.

    Args:
        number_format: number and symmetry.
        low: lower end of the calibrated range.
        high: its upper end.

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
        self._take(choose_grid(torch.tensor(low), torch.tensor(high), number_format))

    @classmethod
    def on(cls, grid: Grid, number_format: ActivationFormat) -> StaticQuantizer:
        """Return a quantizer that rounds to a grid which was not calibrated but learnt.

        Args:
            grid: of one scale, 0-dimensional.
            number_format: that the grid is of.
        """
        quantizer = cls(number_format, low=0.0, high=0.0)
        quantizer._take(grid)
        return quantizer

    def _take(self, grid: Grid) -> None:
        self._grid: Any = grid
        self.register_buffer("scale", grid.scale)
        self.register_buffer("zero_point", getattr(grid, "zero_point", None))

    @property
    def grid(self) -> Grid:
        """The grid, from the buffers as they are now."""
        parts = {"scale": self.scale}
        if self.zero_point is not None:
            parts["zero_point"] = self.zero_point
        grid: Grid = replace(self._grid, **parts)
        return grid

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid."""
        return fake_quantize(values, self.grid)

    def extra_repr(self) -> str:
        """Return the format and the scale."""
        return f"{self.number_format}, scale={self.scale.item():.6g}"


class DynamicQuantizer(nn.Module):
    """Rounds each token, or each group of its features, to its own range.

    Args:
        number_format: number, symmetry and group.
        over: what one scale covers: the ``"features"`` of a token, (..., features), or, before a
            convolution, a whole ``"image"``, (N, C, H, W).

    The scale is a constant to the gradient. A token with an infinite value becomes NaN. Groups of a
    convolution's input run along its channels; a last, shorter group has a scale of its own.
    """

    def __init__(
        self, number_format: ActivationFormat, *, over: Literal["features", "image"]
    ) -> None:
        super().__init__()
        self.number_format = number_format
        self.over = over

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid of their token."""
        if values.numel() == 0:
            return values
        if self.number_format.group is None:
            dims = 1 if self.over == "features" else 3
            low, high = torch.aminmax(values.detach().flatten(-dims), dim=-1, keepdim=True)
            shape = (*low.shape[:-1], *[1] * dims)
            return self._round(values, low.reshape(shape), high.reshape(shape))
        if self.over == "image":
            return self._round_groups(values.movedim(1, -1)).movedim(-1, 1)
        return self._round_groups(values)

    def _round_groups(self, values: Tensor) -> Tensor:
        width = values.shape[-1]
        size = min(self.number_format.group or width, width)
        # Zeros fill up the last group: they change no range that contains zero.
        filled = pad(values, (0, -width % size))
        groups = filled.reshape(*filled.shape[:-1], -1, size)
        low, high = torch.aminmax(groups.detach(), dim=-1, keepdim=True)
        return self._round(groups, low, high).flatten(-2)[..., :width]

    def _round(self, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
        # Before choosing: half precision would overflow where a range is doubled or divided.
        return fake_quantize(values, choose_grid(low.float(), high.float(), self.number_format))

    def extra_repr(self) -> str:
        """Return the format."""
        return str(self.number_format)


InputQuantizer = StaticQuantizer | DynamicQuantizer
