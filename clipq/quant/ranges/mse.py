"""The range with the smallest mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from clipq.quant.formats import ActivationFormat
from clipq.quant.grids import choose_grid
from clipq.quant.ranges.histogram import Histogram

__all__ = ["Mse", "shrink_steps"]


def shrink_steps(number: int = 100) -> Tensor:
    """Return the shares of the full range that are tried, (number,), from 1 down to 1 / number."""
    return torch.arange(number, 0, -1, dtype=torch.float32) / number


class Mse:
    """Shrinks [min, max] towards zero as long as the rounding error falls.

    Tried are hundredths of the full range; the error is that of the bins' centres.
    Source: Nagel et al. 2021, arXiv 2106.08295, equation 10.

    Args:
        number_format: whose grid is rounded to.
    """

    def __init__(self, number_format: ActivationFormat) -> None:
        self.number_format = number_format
        self._seen = Histogram()

    def see(self, values: Tensor) -> None:
        """Take a batch."""
        self._seen.see(values)

    def range(self) -> tuple[float, float]:
        """Return (low, high)."""
        shares = shrink_steps()[:, None]
        low, high = shares * min(self._seen.low, 0.0), shares * max(self._seen.high, 0.0)
        filled = self._seen.counts > 0
        centres, counts = self._seen.centres()[filled].float(), self._seen.counts[filled]
        grid = choose_grid(low, high, self.number_format)
        errors = ((grid.snap(centres[None, :]) - centres).double() ** 2 * counts).sum(1)
        best = int(errors.argmin())
        return float(low[best]), float(high[best])
