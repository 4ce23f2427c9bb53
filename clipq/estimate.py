"""How much worse than FP32, and how sure that is: one value, from the judge to every report."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from clipq.shapes import Number

__all__ = ["NOTHING_ESTIMATED", "Direction", "Estimate", "loss", "number"]

Direction = Literal["lower", "higher", "zero"]
"""Which values are better: lower, higher, or nearer to zero."""

_Value = TypeVar("_Value", bound=Any)  # a number, or an array of replicates


def loss(direction: str, baseline: _Value, observed: _Value) -> _Value:
    """Return how much worse `observed` is than `baseline`; positive = worse.

    Takes two numbers, or two arrays of replicates.

    >>> loss("higher", 0.9, 0.8) > 0, loss("lower", 0.9, 0.8) > 0, loss("zero", -0.1, 0.05) > 0
    (True, False, False)
    """
    worse: _Value
    if direction == "zero":
        worse = abs(observed) - abs(baseline)
    else:
        worse = observed - baseline if direction == "lower" else baseline - observed
    return worse


def number(value: float | None) -> float | None:
    """Return a built-in float, or None where the value is missing, NaN or infinite.

    >>> number(0.5), number(float("nan"))
    (0.5, None)
    """
    return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A loss and its uncertainty, in the metric's unit. What was not estimated is None.

    Args:
        loss: how much worse than what it is compared with; positive = worse.
        low: lower confidence bound of the loss.
        high: upper bound.
        p_value: chance of such a loss were the true one at the margin, one-sided.
        adjusted_p: the same, corrected for all cases that are judged together.
        standard_error: of the loss.
        margin: the one that was applied.
        samples_needed: how many would decide what these samples cannot.
        offset: how much larger the loss is expected to be than the population's, at this number of
            samples; negative where it flatters. None where the two do not differ. The bounds and
            the p-value hold for both.

    >>> Estimate(loss=0.02, low=0.01, high=0.03).interval
    (0.01, 0.03)
    """

    loss: Number | None = None
    low: Number | None = None
    high: Number | None = None
    p_value: Number | None = None
    adjusted_p: Number | None = None
    standard_error: Number | None = None
    margin: Number | None = None
    samples_needed: int | None = None
    offset: Number | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both confidence bounds; None where nothing was resampled."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def margins(self) -> float | None:
        """The loss in margins; None where one of the two is missing, or the margin is 0."""
        return self.loss / self.margin if self.loss is not None and self.margin else None

    def finite(self) -> Estimate:
        """Return it in built-in numbers, with None for what is NaN or infinite."""
        return Estimate(
            loss=number(self.loss),
            low=number(self.low),
            high=number(self.high),
            p_value=number(self.p_value),
            adjusted_p=number(self.adjusted_p),
            standard_error=number(self.standard_error),
            margin=number(self.margin),
            samples_needed=self.samples_needed,
            offset=number(self.offset),
        )

    def to_plain(self) -> dict[str, float | int | None]:
        """Return it as a mapping, for strict JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


NOTHING_ESTIMATED = Estimate()
"""Of a case that could not be measured."""
