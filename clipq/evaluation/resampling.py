"""Metrics on resamples: the joint between declared metrics and `clipq.stats`.

Every metric is evaluated on the same resamples of a probe, for FP32 and for each quantizer: the
weights follow from the seed and the number of samples alone. The difference of two tables'
replicates is therefore the paired difference.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from clipq.errors import StatisticsError
from clipq.metrics import Metric, Predictions, Statistic
from clipq.metrics.calibration import BINS
from clipq.metrics.selective import RISK
from clipq.provenance import digest
from clipq.settings import StatisticsSettings
from clipq.statistic_kinds import KINDS
from clipq.stats import (
    bin_resolution,
    binned_errors,
    bootstrap_weights,
    check_paired,
    check_size,
    grouped_statistic,
    ranking,
    selective_risks,
    smooth_ece,
    weighted_means,
    weighted_skewness,
)

__all__ = ["Resampler", "Tables", "resolution"]

_KNOWN, _OTHER = 0, 1
_KEPT = 64
_SLOW_REPLICATES = 200


@dataclass(frozen=True, eq=False)
class Tables:
    """What one model x quantizer predicts on a probe, and on the in-distribution probe.

    For the in-distribution probe itself both are the same table.

    >>> known = Predictions({"mcm": np.array([0.9, 0.8])})
    >>> tables = Tables(predictions=Predictions({"mcm": np.array([0.2])}), in_distribution=known)
    >>> len(tables.predictions), len(tables.in_distribution)
    (1, 2)
    """

    predictions: Predictions
    in_distribution: Predictions


def resolution(metric: Metric, tables: Tables) -> float:
    """Return what one sample is worth in a metric that counts samples, in its unit.

    1 / N for shares and ECE, with N the smaller kind of samples, and 1 / N of the smallest group
    for statistics of groups; 1 over all samples for areas, where one sample moves only its own
    place; more for ACE and MCE, where the fullness of the bins
    decides (`clipq.stats.bin_resolution`); 0 for means of continuous columns, which do not move in
    steps.

    >>> from clipq.metrics import metrics
    >>> table = Predictions({"rank": np.zeros(200), "nll": np.ones(200)})
    >>> [resolution(metrics.get(name), Tables(table, table)) for name in ("top1", "nll")]
    [0.005, 0.0]
    """
    statistic = metric.statistic
    if statistic is None or not KINDS[statistic.kind].counts:
        return 0.0
    sizes = len(tables.predictions), len(tables.in_distribution)
    if statistic.kind in ("auroc", "aupr", "aupr-out"):
        return 1.0 / sum(sizes)
    if statistic.kind in ("ace", "mce"):
        return bin_resolution(tables.predictions.samples(statistic.columns[0]), bins=BINS)
    if KINDS[statistic.kind].family == "groups":
        _, members = np.unique(tables.predictions.column("group"), return_counts=True)
        return 1.0 / int(members.min())
    return 1.0 / min(sizes)


class Resampler:
    """Replicates of metrics, remembered for as long as their tables are.

    Args:
        settings: how many replicates, from which seed.
        threads: for one resample of a large probe.

    >>> from clipq.metrics import metrics
    >>> top1, resampler = metrics.get("top1"), Resampler(StatisticsSettings(replicates=100))
    >>> tables = [Predictions({"rank": np.repeat([0, 1], [n, 200 - n])}) for n in (190, 180)]
    >>> fp32, worse = (resampler.replicates(top1, Tables(table, table)) for table in tables)
    >>> bool((fp32 >= worse).all())  # the same draws for both: ten samples were lost in each
    True
    """

    def __init__(self, settings: StatisticsSettings, *, threads: int = 1) -> None:
        self.settings = settings
        self.threads = threads
        self._weights: OrderedDict[tuple[object, ...], np.ndarray] = OrderedDict()
        self._found: OrderedDict[tuple[object, ...], tuple[Tables, dict[str, np.ndarray]]]
        self._found = OrderedDict()
        self._paired: OrderedDict[tuple[int, int], tuple[Predictions, Predictions]] = OrderedDict()

    def check(self, baseline: Tables, observed: Tables, metric: Metric) -> None:
        """Refuse what no paired statement can be made from.

        Raises:
            StatisticsError: samples differ, are too few, or FP32's scores are all equal.
        """
        pairs = [(baseline.predictions, observed.predictions)]
        if metric.needs_id:
            pairs.append((baseline.in_distribution, observed.in_distribution))
        for first, second in pairs:
            key = (id(first), id(second))
            if key not in self._paired:
                check_paired(first.column("id"), second.column("id"))
                _keep(self._paired, key, (first, second))
            check_size(len(first), metric.name)
        if metric.needs_id:
            scores = [table.column(metric.score) for table, _ in pairs]
            if np.ptp(np.concatenate(scores)) == 0.0:
                raise StatisticsError(
                    f"metric {metric.name!r}: FP32's scores are all {scores[0][0]:g}",
                    hint="FP32 itself separates nothing: there is nothing to lose; check the model",
                )

    def replicates(self, metric: Metric, tables: Tables) -> np.ndarray:
        """Return the metric's value in each replicate (R,).

        Raises:
            StatisticsError: a column holds no finite numbers.
        """
        statistic = metric.statistic
        if statistic is None:
            return self._slow(metric, tables)
        kind = KINDS[statistic.kind]
        if kind.family == "point":
            raise StatisticsError(
                f"metric {metric.name!r} is one number per probe", hint="judge its value itself"
            )
        if kind.family == "values":
            return self._of_values(tables.predictions, statistic)
        if kind.family == "groups":
            return self._grouped(tables.predictions, statistic)
        together = self._remembered(tables, statistic.columns, kind.family)
        # Out-of-distribution as the positive class: the ranking of turned scores.
        return together["aupr" if kind.family == "reversed" else statistic.kind]

    def _of_values(self, table: Predictions, statistic: Statistic) -> np.ndarray:
        columns = [table.samples(name) for name in statistic.columns]
        values = np.subtract(*columns) if statistic.kind == "mean-gap" else columns[0]
        if statistic.kind == "share":
            values = values < statistic.below
        over = weighted_skewness if statistic.kind == "skewness" else weighted_means
        return over(values, self._drawn(table, _KNOWN), threads=self.threads)

    def _grouped(self, table: Predictions, statistic: Statistic) -> np.ndarray:
        names = KINDS[statistic.kind].columns
        return grouped_statistic(
            statistic.kind,
            dict(zip(names, map(table.samples, statistic.columns), strict=True)),
            table.samples("group"),
            self._drawn(table, _KNOWN),
            bins=BINS,
            threads=self.threads,
        )

    def _remembered(
        self, tables: Tables, columns: tuple[str, ...], family: str
    ) -> dict[str, np.ndarray]:
        """Return all statistics that share one sorting, computed once per table."""
        table, known = tables.predictions, tables.in_distribution
        key = (id(table), id(known), family, columns)
        if key not in self._found:
            found = self._sorted_once(table, known, columns, family)
            _keep(self._found, key, (tables, found))  # with the tables: their id must stay taken
        self._found.move_to_end(key)
        return self._found[key][1]

    def _sorted_once(
        self, table: Predictions, known: Predictions, columns: tuple[str, ...], family: str
    ) -> dict[str, np.ndarray]:
        if family in ("ranking", "reversed"):
            inside = known.column(columns[0]), self._drawn(known, _KNOWN)
            outside = table.column(columns[0]), self._drawn(table, _OTHER)
            if family == "reversed":
                inside, outside = (-outside[0], outside[1]), (-inside[0], inside[1])
            return ranking(inside[0], outside[0], inside[1], outside[1], threads=self.threads)
        confidence, correct = (table.samples(column) for column in columns)
        weights = self._drawn(table, _KNOWN)
        if family == "selective":
            return selective_risks(confidence, correct, weights, risk=RISK)
        if family == "smooth":
            return {"smooth-ece": smooth_ece(confidence, correct, weights)}
        return binned_errors(confidence, correct, weights, bins=BINS, threads=self.threads)

    def _drawn(self, table: Predictions, stream: int) -> np.ndarray:
        clusters, strata = (table.columns.get(name) for name in ("cluster", "stratum"))
        given = [None if column is None else column.tolist() for column in (clusters, strata)]
        key = (len(table), stream, None if given == [None, None] else digest(given))
        if key not in self._weights:
            drawn = bootstrap_weights(
                len(table),
                replicates=self.settings.replicates,
                seed=self.settings.seed,
                stream=stream,
                clusters=clusters,
                strata=strata,
            )
            _keep(self._weights, key, drawn)
        return self._weights[key]

    def _slow(self, metric: Metric, tables: Tables) -> np.ndarray:
        """Call the metric's own function on each resample: for metrics without a `Statistic`."""
        table, known = tables.predictions, tables.in_distribution
        if not metric.needs_id:
            rows = self._drawn(table, _KNOWN)[:_SLOW_REPLICATES]
            return np.array([metric.compute(_resampled(table, row)) for row in rows])
        pairs = zip(self._drawn(known, _KNOWN), self._drawn(table, _OTHER), strict=True)
        return np.array(
            [
                metric.compute(_resampled(table, other), _resampled(known, row))
                for row, other in islice(pairs, _SLOW_REPLICATES)
            ]
        )


def _resampled(table: Predictions, counts: np.ndarray) -> Predictions:
    return table.drawn(np.repeat(np.arange(len(counts)), counts))


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _keep(store: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Remember a value and forget the oldest ones."""
    store[key] = value
    while len(store) > _KEPT:
        store.popitem(last=False)
