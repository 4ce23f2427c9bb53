"""A histogram of a stream whose range is not known before: it doubles where values fall outside."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Histogram"]


class Histogram:
    """Counts of a streamed tensor in bins of equal width.

    When a value falls outside, the covered interval doubles towards it and each two neighbouring
    bins become one, so counts stay exact; the bins are at most twice as wide as the range needs.

    Args:
        bins: how many; even.
    """

    def __init__(self, bins: int = 2048) -> None:
        self.counts = torch.zeros(bins, dtype=torch.float64)
        self.low, self.high = torch.inf, -torch.inf
        self._origin, self._width = 0.0, 0.0

    def see(self, values: Tensor) -> None:
        """Take a batch of finite values; an empty one changes nothing."""
        if not values.numel():
            return
        flat = values.detach().flatten().double().cpu()
        low, high = (float(x) for x in torch.aminmax(flat))
        if self._width == 0.0:
            self._start(low, high)
        self.low, self.high = min(low, self.low), max(high, self.high)
        self._reach(low, high)
        at = ((flat - self._origin) / self._width).long().clamp_(0, len(self.counts) - 1)
        self.counts += torch.bincount(at, minlength=len(self.counts))

    def centres(self) -> Tensor:
        """Return the middle of each bin (bins,), float64."""
        steps = torch.arange(len(self.counts), dtype=torch.float64)
        return self._origin + (steps + 0.5) * self._width

    def absolute(self) -> tuple[Tensor, float]:
        """Return counts of |x| in bins of equal width from 0, and that width."""
        largest = max(abs(self.low), abs(self.high))
        width = largest / len(self.counts) or 1.0
        at = (self.centres().abs() / width).long().clamp_(0, len(self.counts) - 1)
        return torch.zeros_like(self.counts).index_add_(0, at, self.counts), width

    def quantile(self, share: float) -> float:
        """Return the value below which `share` of the values lie, interpolated within its bin."""
        edges = torch.cumsum(self.counts, 0)
        return self._at(edges, share)

    def _at(self, edges: Tensor, share: float) -> float:
        target = share * float(edges[-1])
        index = min(int(torch.searchsorted(edges, target)), len(edges) - 1)
        before = float(edges[index - 1]) if index else 0.0
        inside = (target - before) / max(float(self.counts[index]), 1e-300)
        value = self._origin + (index + min(max(inside, 0.0), 1.0)) * self._width
        return min(max(value, self.low), self.high)

    def _start(self, low: float, high: float) -> None:
        span = high - low or max(abs(low), 1.0)
        self._origin, self._width = low, span / len(self.counts)

    def _reach(self, low: float, high: float) -> None:
        size = len(self.counts)
        while low < self._origin or high > self._origin + size * self._width:
            halves = self.counts.reshape(-1, 2).sum(1)
            empty = torch.zeros(size // 2, dtype=torch.float64)
            if low < self._origin:
                self.counts = torch.cat([empty, halves])
                self._origin -= size * self._width
            else:
                self.counts = torch.cat([halves, empty])
            self._width *= 2.0
