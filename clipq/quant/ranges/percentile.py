"""The central share of the values."""

from __future__ import annotations

from torch import Tensor

from clipq.quant.ranges.histogram import Histogram

__all__ = ["Percentile"]


class Percentile:
    """Leaves out the same share of values at both ends.

    Args:
        share: of the values that the range holds; 0.9999 in Wu et al. 2020, arXiv 2004.09602.
        symmetric: take the quantile of |x| instead, for grids without a zero point.
    """

    def __init__(self, share: float = 0.9999, *, symmetric: bool = False) -> None:
        self.share = share
        self.symmetric = symmetric
        self._seen = Histogram()

    def see(self, values: Tensor) -> None:
        """Take a batch."""
        self._seen.see(values.abs() if self.symmetric else values)

    def range(self) -> tuple[float, float]:
        """Return (low, high)."""
        if self.symmetric:
            reach = self._seen.quantile(self.share)
            return -reach, reach
        tail = (1.0 - self.share) / 2.0
        return self._seen.quantile(tail), self._seen.quantile(1.0 - tail)
