"""The range whose rounded distribution diverges least from the original."""

from __future__ import annotations

import torch
from torch import Tensor

from clipq.errors import QuantizerError
from clipq.quant.formats import ActivationFormat
from clipq.quant.ranges.histogram import Histogram

__all__ = ["Entropy", "divergence"]


class Entropy:
    """Clips |x| at the threshold that minimises a Kullback-Leibler divergence.

    For a threshold of n histogram bins, P is the histogram up to n with the rest added to its last
    bin, and Q the same bins (without the rest) merged into 2^(b-1) levels, each spread evenly over
    its non-empty bins. The threshold with the smallest KL(P || Q) is taken.
    Source: Migacz 2017, "8-bit inference with TensorRT", GTC.

    Args:
        number_format: its bits give the number of levels; integers only.

    Raises:
        QuantizerError: the format is none of integers.
    """

    def __init__(self, number_format: ActivationFormat) -> None:
        if number_format.number != "int":
            raise QuantizerError(
                f"the entropy range estimator cannot serve {number_format}",
                hint="its levels are evenly spaced: use it with integers, or range=mse",
            )
        self.number_format = number_format
        self._seen = Histogram()

    def see(self, values: Tensor) -> None:
        """Take a batch."""
        self._seen.see(values)

    def range(self) -> tuple[float, float]:
        """Return (low, high): what was seen, clipped to the threshold on both sides."""
        counts, width = self._seen.absolute()
        levels = 2 ** (self.number_format.bits - 1)
        sizes = range(levels, len(counts) + 1, max(8, levels // 8))
        best = min(sizes, key=lambda size: divergence(counts, size, levels))
        reach = best * width
        return max(self._seen.low, -reach), min(self._seen.high, reach)


def divergence(counts: Tensor, size: int, levels: int) -> float:
    """Return KL(P || Q) in nats for a threshold of `size` bins of `counts` (bins,)."""
    inner = counts[:size]
    p = inner.clone()
    p[-1] += counts[size:].sum()
    level = (torch.arange(size) * levels // size).clamp_(max=levels - 1)
    filled = (inner > 0).double()
    mass = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, inner)
    members = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, filled)
    q = filled * (mass / members.clamp(min=1.0))[level]
    p, q = p / p.sum(), q / q.sum().clamp(min=1e-300)
    held = p > 0
    # A clipped tail may fall on a bin that was empty: Q gets a floor, as an infinite divergence
    # would forbid every threshold below the largest value.
    return float((p[held] * (p[held] / q[held].clamp(min=1e-12)).log()).sum())
