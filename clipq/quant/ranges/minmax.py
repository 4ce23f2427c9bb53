"""The smallest and the largest value seen."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MinMax"]


class MinMax:
    """Keeps everything: no value of the calibration data is clamped."""

    def __init__(self) -> None:
        self._low, self._high = torch.inf, -torch.inf

    def see(self, values: Tensor) -> None:
        """Take a batch."""
        low, high = (float(x) for x in torch.aminmax(values.float()))
        self._low, self._high = min(low, self._low), max(high, self._high)

    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest value."""
        return self._low, self._high
