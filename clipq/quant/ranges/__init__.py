"""Range estimators: which interval of a streamed tensor a static scale should span.

Each takes batches with `see` and answers with `range`. Minimum and maximum keep everything;
the others give up rare, large values for a finer step.

| name | range |
|---|---|
| `minmax` | smallest and largest value seen |
| `ema` | exponential moving average of each batch's smallest and largest value |
| `percentile` | the central 99.99 % of the values |
| `mse` | smallest mean squared rounding error |
| `entropy` | smallest Kullback-Leibler divergence of the rounded distribution (integers only) |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from clipq.errors import QuantizerError, did_you_mean
from clipq.quant.formats import ActivationFormat
from clipq.quant.ranges.ema import Ema
from clipq.quant.ranges.entropy import Entropy
from clipq.quant.ranges.histogram import Histogram
from clipq.quant.ranges.minmax import MinMax
from clipq.quant.ranges.mse import Mse
from clipq.quant.ranges.percentile import Percentile

__all__ = [
    "RANGES",
    "Ema",
    "Entropy",
    "Histogram",
    "MinMax",
    "Mse",
    "Percentile",
    "RangeEstimator",
    "range_estimator",
]


class RangeEstimator(Protocol):
    """Watches a tensor's batches and chooses an interval."""

    def see(self, values: Tensor) -> None:
        """Take a batch of finite values of any shape."""

    def range(self) -> tuple[float, float]:
        """Return (low, high) of what was seen; at least one batch must have been."""


RANGES: dict[str, Callable[[ActivationFormat], RangeEstimator]] = {
    "ema": lambda _: Ema(),
    "entropy": Entropy,
    "minmax": lambda _: MinMax(),
    "mse": Mse,
    "percentile": lambda number_format: Percentile(symmetric=not number_format.asymmetric),
}


def range_estimator(name: str, number_format: ActivationFormat) -> RangeEstimator:
    """Return a fresh estimator.

    Raises:
        QuantizerError: no estimator of that name, or it cannot serve the format.
    """
    if name not in RANGES:
        raise QuantizerError(
            f"range estimator {name!r} is unknown", hint=did_you_mean(name, sorted(RANGES))
        )
    return RANGES[name](number_format)
