"""What is known of a loss in calibration error beside its spread over samples.

Its offset from the population's loss, and the error of the temperatures that were fitted on the
calibration split, which no resample of the probe shows.
"""

from __future__ import annotations

import math

import numpy as np

from clipq.errors import StatisticsError
from clipq.evaluation.resampling import Tables
from clipq.gating.verdict import Evidence
from clipq.metrics import Predictions, Statistic
from clipq.metrics.calibration import BINS
from clipq.stats import MINIMUM_CLUSTERS
from clipq.stats.calibration_offsets import Answers, binned_offset, smooth_offset
from clipq.stats.statistics import bin_of

__all__ = ["calibration_offset", "check_calibration_clusters", "temperature_error"]


def calibration_offset(evidence: Evidence) -> float | None:
    """Return how much larger the loss is expected to be than the population's; None for others.

    >>> from clipq.metrics import metrics
    >>> sure = np.tile([0.85, 0.95], 200)
    >>> fp32, ours = (
    ...     Tables(*[Predictions({"confidence": sure, "correct": np.arange(400) % n != 0})] * 2)
    ...     for n in (9, 3))
    >>> found = [calibration_offset(Evidence(metrics.get(name), 0.0, 0.2, 0.01, fp32, ours))
    ...          for name in ("ece", "top1")]
    >>> round(found[0], 4), found[1]
    (-0.0038, None)
    """
    statistic = evidence.metric.statistic
    if statistic is None or statistic.kind not in ("ece", "smooth-ece"):
        return None
    sides = (
        _answers(statistic, evidence.baseline_tables, evidence, "fp32_"),
        _answers(statistic, evidence.observed_tables, evidence, ""),
    )
    clusters = evidence.observed_tables.clusters[0]
    if statistic.kind == "smooth-ece":
        return smooth_offset(*sides, clusters=clusters)
    return binned_offset(*sides, bins=BINS, clusters=clusters)


def temperature_error(evidence: Evidence) -> float:
    """Return the part of a loss's standard error that the fitted temperatures add; 0 for others.

    With g how either side's error moves with its log T, at the bins and signs that were seen, and
    S the covariance of both, it is the root of g' S g.

    >>> from clipq.metrics import metrics
    >>> sure, right = np.full(100, 0.9), np.repeat([1, 0], 50)
    >>> fp32 = Predictions({"ts_confidence": sure, "correct": right})
    >>> columns = {**fp32.columns, "ts_slope": np.full(100, -0.2), "fp32_ts_slope": np.zeros(100)}
    >>> scalars = {"variance": 0.01, "fp32_variance": 0.01, "covariance": 0.0}
    >>> ours = Predictions(columns, {f"log_temperature.{k}": v for k, v in scalars.items()})
    >>> tables = Tables(fp32, fp32), Tables(ours, ours)
    >>> round(temperature_error(Evidence(metrics.get("ts-ece"), 0.4, 0.4, 0.01, *tables)), 6)
    0.02
    """
    statistic, table = evidence.metric.statistic, evidence.observed_tables.predictions
    if statistic is None or not _temperature_known(statistic, evidence):
        return 0.0
    check_calibration_clusters(table, evidence.metric.name)
    ours = _slope(statistic, table, table.column(statistic.slope))
    reference = evidence.baseline_tables.predictions
    theirs = _slope(statistic, reference, table.column(f"fp32_{statistic.slope}"))
    variance = (
        ours**2 * table.scalar("log_temperature.variance")
        + theirs**2 * table.scalar("log_temperature.fp32_variance")
        - 2.0 * ours * theirs * table.scalar("log_temperature.covariance")
    )
    return math.sqrt(max(variance, 0.0))


def check_calibration_clusters(table: Predictions, what: str) -> None:
    """Refuse temperatures that were fitted on too few clusters of calibration samples.

    Args:
        table: a candidate's, which says how many they were where samples came in clusters.
        what: the metric, for the message.

    Raises:
        StatisticsError: they are fewer than 25, counted as `clipq.stats.effective_units` does.

    >>> check_calibration_clusters(Predictions({}, {"log_temperature.clusters": 7.5}), "ts-ece")
    Traceback (most recent call last):
    clipq.errors.StatisticsError: ts-ece: a calibration split worth 7.5 clusters of equal size ...
    ...
    """
    units = table.scalars.get("log_temperature.clusters", math.inf)
    if units < MINIMUM_CLUSTERS - 1e-6:
        raise StatisticsError(
            f"{what}: a calibration split worth {units:.3g} clusters of equal size is too little "
            "to say how well its temperature is known",
            hint=f"give it at least {MINIMUM_CLUSTERS} clusters: samples of one cluster err "
            "together and count once",
        )


def _answers(statistic: Statistic, tables: Tables, evidence: Evidence, side: str) -> Answers:
    confidence, correct = (tables.predictions.samples(name) for name in statistic.columns)
    if not _temperature_known(statistic, evidence):
        return Answers(confidence, correct)
    table = evidence.observed_tables.predictions
    return Answers(
        confidence,
        correct,
        slope=table.column(f"{side}{statistic.slope}"),
        variance=table.scalar(f"log_temperature.{side}variance"),
    )


def _temperature_known(statistic: Statistic, evidence: Evidence) -> bool:
    """Return whether the candidate's table says how well both temperatures are known.

    It says so against FP32 only: a baseline's table that has slopes itself is another candidate's.
    """
    table, reference = (
        tables.predictions for tables in (evidence.observed_tables, evidence.baseline_tables)
    )
    return (
        bool(statistic.slope)
        and statistic.slope in table.columns
        and statistic.slope not in reference.columns
        and math.isfinite(table.scalar("log_temperature.covariance"))
    )


def _slope(statistic: Statistic, table: Predictions, slope: np.ndarray) -> float:
    """Return d ECE / d log T at the bins and signs that were seen."""
    confidence, correct = (table.samples(name) for name in statistic.columns)
    bin_index = bin_of(confidence, BINS)
    signs = np.sign(np.bincount(bin_index, confidence - correct, minlength=BINS))
    return float((signs * np.bincount(bin_index, slope, minlength=BINS)).sum()) / len(slope)
