"""Whether more replicates could change what is decided: the lines that a verdict is drawn by."""

from __future__ import annotations

from clipq.settings import StatisticsSettings
from clipq.stats import SamplingError

__all__ = ["could_change"]

_FIRMLY = 4.0
_CORRECTED = 1e-3


def could_change(
    loss: float,
    error: SamplingError,
    *,
    margin: float,
    blur: float,
    settings: StatisticsSettings,
) -> bool:
    """Return whether four standard deviations of the standard error move a case over a line.

    The lines: the upper bound against the margin, and against its negative; the p-value against
    `suspicion`; and whatever a correction over up to a thousand cases may ask of a failure.

    Args:
        loss: as observed.
        error: of the loss.
        margin: that is applied.
        blur: relative standard deviation of the standard error, over seeds.
        settings: error rates.

    >>> settings, error = StatisticsSettings(), SamplingError(0.01)
    >>> [could_change(loss, error, margin=0.05, blur=0.03, settings=settings)
    ...  for loss in (0.0, 0.03, 0.063, 0.2)]  # -5, -2, 1.3 and 15 standard errors from the margin
    [False, True, True, False]
    """
    reach = min(_FIRMLY * blur, 0.5)
    ends = [error.scaled(1.0 - reach), error.scaled(1.0 + reach)]
    first, second = (_decided(loss, end, margin, settings) for end in ends)
    # What a failure asks depends on the candidate's other cases: anywhere between these two.
    firm = error.p_value(loss, margin=margin)
    might_fail = settings.tail * _CORRECTED < firm <= settings.tail
    return first != second or (might_fail and reach > 0.0)


def _decided(
    loss: float, error: SamplingError, margin: float, settings: StatisticsSettings
) -> tuple[bool, ...]:
    high = error.interval(loss, level=1.0 - settings.alpha).high
    p_value = error.p_value(loss, margin=margin)
    at = (settings.suspicion, settings.tail, settings.tail * _CORRECTED)
    return (high < margin, high < -margin, *(p_value <= line for line in at))
