"""Moving averages of the batches' extremes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Ema"]


class Ema:
    """Exponential moving average of each batch's smallest and largest value.

        low <- (1 - m) low + m min(batch),    started with the first batch

    Args:
        momentum: m; 0.1 in the follow-up code of the study and in torch's observer it stems from.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        self.momentum = momentum
        self._range: tuple[float, float] | None = None

    def see(self, values: Tensor) -> None:
        """Take a batch."""
        new = [float(x) for x in torch.aminmax(values.float())]
        old = new if self._range is None else self._range
        low, high = (a + self.momentum * (b - a) for a, b in zip(old, new, strict=True))
        self._range = low, high

    def range(self) -> tuple[float, float]:
        """Return the averages."""
        return (torch.inf, -torch.inf) if self._range is None else self._range
