"""Metrics on resamples: the joint between declared metrics and `clipq.stats`.

Every metric is evaluated on the same resamples of a probe, for FP32 and for each quantizer: the
weights follow from the seed and the number of samples alone. The difference of two tables'
replicates is therefore the paired difference.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np

from clipq.cluster_names import cluster_column
from clipq.errors import StatisticsError
from clipq.evaluation.kept_draws import KeptDraws
from clipq.metrics import Metric, Predictions, Statistic
from clipq.metrics.calibration import BINS
from clipq.metrics.selective import RISK
from clipq.settings import StatisticsSettings
from clipq.statistic_kinds import KINDS
from clipq.stats import (
    GroupedReplicates,
    binned_errors,
    check_paired,
    check_units,
    cluster_codes,
    effective_units,
    false_positive_rates,
    linked_codes,
    ranking,
    rates_of,
    selective_risks,
    side_strata,
    smooth_ece,
    weighted_means,
    weighted_skewness,
)

__all__ = ["Resampler", "Tables"]

_KNOWN, _OTHER = 0, 1
_KEPT = 128
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

    @cached_property
    def clusters(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Clusters (N,) of both tables' samples; None where these are independent."""
        own = _clusters(self.predictions)
        same = self.in_distribution is self.predictions
        return own, own if same else _clusters(self.in_distribution)

    @cached_property
    def linked(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Clusters of samples in (N,) and out of distribution (M,), where both sides share some."""
        if self.in_distribution is self.predictions:
            return None
        sides = [table.columns.get("cluster") for table in (self.in_distribution, self.predictions)]
        same = cluster_column(sides[0]) == cluster_column(sides[1]) != ""
        return linked_codes(*sides) if same else None

    @property
    def units(self) -> tuple[float, float]:
        """How many independent units either table's samples make: samples, or clusters."""
        own, known = self.clusters
        return (
            effective_units(own, len(self.predictions)),
            effective_units(known, len(self.in_distribution)),
        )


def _clusters(table: Predictions) -> np.ndarray | None:
    return cluster_codes(table.columns.get("cluster"), len(table))


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
        self._draws = KeptDraws(settings)
        self._found: OrderedDict[tuple[object, ...], tuple[Tables, dict[int, _Found]]]
        self._found = OrderedDict()
        self._rates: OrderedDict[
            tuple[object, ...], tuple[Predictions, GroupedReplicates, dict[int, np.ndarray]]
        ] = OrderedDict()
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
            check_units(_clusters(first), len(first), metric.name)
        if metric.needs_id:
            scores = [table.column(metric.score) for table, _ in pairs]
            if np.ptp(np.concatenate(scores)) == 0.0:
                raise StatisticsError(
                    f"metric {metric.name!r}: FP32's scores are all {scores[0][0]:g}",
                    hint="FP32 itself separates nothing: there is nothing to lose; check the model",
                )

    def replicates(self, metric: Metric, tables: Tables, *, piece: int = 0) -> np.ndarray:
        """Return the metric's value in each of the settings' number of replicates (R,).

        Args:
            metric: which.
            tables: of one model x quantizer.
            piece: 0 for the first R draws, 1 for the next R, and so on.

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
        together = self._remembered(tables, statistic, kind.family, piece)
        # Out-of-distribution as the positive class: the ranking of turned scores.
        return together["aupr" if kind.family == "reversed" else statistic.kind]

    def _of_values(self, table: Predictions, statistic: Statistic, piece: int) -> np.ndarray:
        columns = [table.samples(name) for name in statistic.columns]
        values = np.subtract(*columns) if statistic.kind == "mean-gap" else columns[0]
        if statistic.kind == "share":
            values = values < statistic.below
        over = weighted_skewness if statistic.kind == "skewness" else weighted_means
        return over(values, self._drawn(table, _KNOWN, piece), threads=self.threads)

    def _grouped(self, table: Predictions, statistic: Statistic, piece: int) -> np.ndarray:
        """Return a statistic of groups; kinds that combine the same rates share these."""
        key = (id(table), rates_of(statistic.kind), statistic.columns)
        if key not in self._rates:
            names = KINDS[statistic.kind].columns
            columns = dict(zip(names, map(table.samples, statistic.columns), strict=True))
            groups = table.samples("group")
            made = GroupedReplicates(statistic.kind, columns, groups, bins=BINS)
            _keep(self._rates, key, (table, made, {}))
        self._rates.move_to_end(key)
        _, grouped, pieces = self._rates[key]
        if piece not in pieces:
            drawn = self._drawn(table, _KNOWN, piece)
            pieces[piece] = grouped.rates(drawn, self._draws.by_sample(drawn), threads=self.threads)
        return grouped.combined(statistic.kind, pieces[piece])

    def _remembered(
        self, tables: Tables, statistic: Statistic, family: str, piece: int
    ) -> dict[str, np.ndarray]:
        """Return all statistics that share one sorting, computed once per table."""
        table, known = tables.predictions, tables.in_distribution
        alone = family in ("values", "groups")
        key = (id(table), id(known), statistic if alone else (family, statistic.columns))
        if key not in self._found:
            # With the tables: their id must stay taken.
            _keep(self._found, key, (tables, {}))
        self._found.move_to_end(key)
        pieces = self._found[key][1]
        if piece not in pieces:
            if alone:
                over = self._of_values if family == "values" else self._grouped
                pieces[piece] = {statistic.kind: over(table, statistic, piece)}
            else:
                columns = statistic.columns
                pieces[piece] = self._sorted_once(tables, columns, family, piece)
        return pieces[piece]

    def _sorted_once(
        self, tables: Tables, columns: tuple[str, ...], family: str, piece: int
    ) -> dict[str, np.ndarray]:
        table = tables.predictions
        if family in ("ranking", "reversed", "threshold"):
            drawn = self._both_drawn(tables, piece)
            inside = tables.in_distribution.column(columns[0]), drawn[0]
            outside = table.column(columns[0]), drawn[1]
            if family == "reversed":
                inside, outside = (-outside[0], outside[1]), (-inside[0], inside[1])
            if family == "threshold":
                rates = false_positive_rates(
                    inside[0], outside[0], inside[1], outside[1], threads=self.threads
                )
                return {"fpr95": rates}
            return ranking(inside[0], outside[0], inside[1], outside[1], threads=self.threads)
        confidence, correct = (table.samples(column) for column in columns)
        weights = self._drawn(table, _KNOWN, piece)
        if family == "selective":
            return selective_risks(confidence, correct, weights, risk=RISK)
        if family == "smooth":
            return {"smooth-ece": smooth_ece(confidence, correct, weights)}
        return binned_errors(confidence, correct, weights, bins=BINS, threads=self.threads)

    def _both_drawn(self, tables: Tables, piece: int) -> tuple[np.ndarray, np.ndarray]:
        """Return draws of samples in and out of distribution; of shared clusters, one for both."""
        table, known = tables.predictions, tables.in_distribution
        if tables.linked is None:
            return self._drawn(known, _KNOWN, piece), self._drawn(table, _OTHER, piece)
        clusters, sides = np.concatenate(tables.linked), side_strata(*tables.linked)
        drawn = self._draws.weights(len(clusters), _OTHER, piece, clusters, sides)
        inside, outside = np.split(drawn, [len(known)], axis=1)
        return np.ascontiguousarray(inside), np.ascontiguousarray(outside)

    def _drawn(self, table: Predictions, stream: int, piece: int) -> np.ndarray:
        clusters, strata = _clusters(table), table.columns.get("stratum")
        return self._draws.weights(len(table), stream, piece, clusters, strata)

    def _slow(self, metric: Metric, tables: Tables) -> np.ndarray:
        """Call the metric's own function on each resample: for metrics without a `Statistic`."""
        table, known = tables.predictions, tables.in_distribution
        if not metric.needs_id:
            rows = self._drawn(table, _KNOWN, 0)[:_SLOW_REPLICATES]
            return np.array([metric.compute(_resampled(table, row)) for row in rows])
        pairs = zip(*self._both_drawn(tables, 0), strict=True)
        return np.array(
            [
                metric.compute(_resampled(table, other), _resampled(known, row))
                for row, other in islice(pairs, _SLOW_REPLICATES)
            ]
        )


def _resampled(table: Predictions, counts: np.ndarray) -> Predictions:
    return table.drawn(np.repeat(np.arange(len(counts)), counts))


_Found = dict[str, np.ndarray]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _keep(store: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Remember a value and forget the oldest ones."""
    store[key] = value
    while len(store) > _KEPT:
        store.popitem(last=False)
