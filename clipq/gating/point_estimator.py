"""How well the loss of one number per probe is known: by the error that the table states beside it.

A candidate's table holds the paired standard errors of its scalars, made where FP32's features and
its own were both at hand (`clipq.evaluation.point_errors`). Quantiles are Student's, with the
degrees of freedom of that error.
"""

from __future__ import annotations

import math

from scipy.special import stdtr, stdtrit  # `scipy.stats` takes half a second to import

from clipq.estimate import Estimate
from clipq.gating.loss_offset import check_calibration_clusters
from clipq.gating.verdict import Evidence
from clipq.stats import check_size

__all__ = ["error_known", "error_lost", "point_estimate", "samples_behind"]


def error_known(evidence: Evidence) -> bool:
    """Return whether a case is one number per probe whose standard error the table states.

    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> stated, bare = (Tables(*[Predictions({}, found)] * 2) for found in (
    ...     {"effective_rank": 11.5, "effective_rank.error": 0.1, "effective_rank.freedom": 39},
    ...     {"effective_rank": 11.5}))
    >>> [error_known(Evidence(metrics.get("effective-rank"), 12.0, 11.5, 0.3, bare, observed))
    ...  for observed in (stated, bare)]
    [True, False]
    """
    statistic = evidence.metric.statistic
    if statistic is None or not statistic.scalar or math.isinf(evidence.observed):
        return False
    scalars = evidence.observed_tables.predictions.scalars
    return not math.isnan(scalars.get(f"{statistic.scalar}.error", math.nan))


def error_lost(evidence: Evidence) -> bool:
    """Return whether a table states an error of a finite number that is itself none.

    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> scalars = {"effective_rank": 11.5, "effective_rank.error": math.nan}
    >>> tables = Tables(*[Predictions({}, scalars)] * 2)
    >>> error_lost(Evidence(metrics.get("effective-rank"), 12.0, 11.5, 0.3, tables, tables))
    True
    """
    statistic = evidence.metric.statistic
    if statistic is None or not statistic.scalar or not math.isfinite(evidence.observed):
        return False
    scalars = evidence.observed_tables.predictions.scalars
    return math.isnan(scalars.get(f"{statistic.scalar}.error", 0.0))


def samples_behind(evidence: Evidence) -> int:
    """Return how many samples a number was made of, where its own error is known.

    A temperature is fitted on the calibration split: its degrees of freedom say how large that is,
    in clusters where its samples come in these.

    >>> import numpy as np
    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> table = Predictions({"id": np.arange(100)}, {"temperature_log_ratio.freedom": 255})
    >>> [samples_behind(Evidence(metrics.get(name), 0.0, 0.1, 0.1, *[Tables(table, table)] * 2))
    ...  for name in ("effective-rank", "temperature-log-ratio")]
    [100, 256]
    """
    statistic = evidence.metric.statistic
    table = evidence.observed_tables.predictions
    if statistic is not None and statistic.scalar == "temperature_log_ratio":
        return int(table.scalar("temperature_log_ratio.freedom")) + 1
    return len(table)


def point_estimate(evidence: Evidence, loss: float, *, margin: float, level: float) -> Estimate:
    """Return how well such a loss is known, and how surely it exceeds a margin.

    A loss in distance from zero, |x| - |x_FP32| with x_FP32 = 0, is bounded as x is: below the
    margin where both ends of the interval of x are within it (two one-sided tests).

    Raises:
        StatisticsError: fewer samples than a verdict needs are behind the number.

    >>> import numpy as np
    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> scalars = {"effective_rank.error": 0.1, "effective_rank.freedom": 39}
    >>> tables = Tables(*[Predictions({"id": np.arange(100)}, scalars)] * 2)
    >>> evidence = Evidence(metrics.get("effective-rank"), 12.0, 11.5, 0.3, tables, tables)
    >>> found = point_estimate(evidence, 0.5, margin=0.3, level=0.95)
    >>> round(found.low, 3), round(found.high, 3), round(found.p_value, 3)
    (0.298, 0.702, 0.026)
    """
    metric, table = evidence.metric, evidence.observed_tables.predictions
    scalar = metric.statistic.scalar if metric.statistic else ""
    if scalar == "temperature_log_ratio" and "log_temperature.clusters" in table.scalars:
        check_calibration_clusters(table, metric.name)
    else:
        check_size(samples_behind(evidence), metric.name)
    error = table.scalar(f"{scalar}.error")
    freedom = max(1.0, table.scalar(f"{scalar}.freedom"))
    offset = table.scalars.get(f"{scalar}.offset")
    low, high = sorted((loss, loss - (offset or 0.0)))
    reach = float(stdtrit(freedom, (1.0 + level) / 2.0)) * error
    p_value = float(stdtr(freedom, (margin - low) / error)) if error else float(low <= margin)
    return Estimate(
        loss=loss,
        low=low - reach,
        high=high + reach,
        p_value=p_value,
        standard_error=error,
        margin=margin,
        offset=offset,
    )
