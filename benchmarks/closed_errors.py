"""Standard errors of paired losses in closed form, for many draws from one table at once.

A draw is a row of counts over the table's samples, so a table is sorted once for all draws. Most
statistics are differentiated by the weight of each sample (the infinitesimal jackknife, Efron 1982,
chapter 6; for the AUROC this is DeLong's variance): that is what the bootstrap's standard error
tends to with many replicates and samples. Sums of absolute values are no smooth functions where a
bin's gap is near 0: their bin sums are drawn from the normal distribution that they tend to, and
the absolute values taken of that. Statistics of groups depend on counts of few kinds of samples,
and are resampled exactly, kind by kind.

`benchmarks/candidate_decisions.py` compares all of it with the bootstrap of a real gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clipq.evaluation.resampling import Tables
from clipq.metrics import Predictions, Statistic
from clipq.metrics.calibration import BINS
from clipq.statistic_kinds import KINDS
from clipq.stats import grouped_statistic
from clipq.stats.statistics import bin_of

__all__ = ["Pair", "closed_error"]

_REPLICATES = 200


@dataclass(frozen=True, eq=False)
class Pair:
    """FP32's and the quantized model's tables of one probe, and the draws' counts.

    Args:
        fp32, quantized: tables of the same samples.
        counts: (D, N) of the probe's samples.
        counts_id: (D, M) of the in-distribution probe's.
    """

    fp32: Tables
    quantized: Tables
    counts: np.ndarray
    counts_id: np.ndarray

    @property
    def tables(self) -> tuple[Predictions, Predictions]:
        return self.fp32.predictions, self.quantized.predictions

    def slopes(self, influence: Callable[[Tables], tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        """Return the quantized model's influences minus FP32's, for each kind of sample."""
        both = zip(influence(self.quantized), influence(self.fp32), strict=True)
        return [np.subtract(*pair) for pair in both]


def closed_error(statistic: Statistic, pair: Pair, rng: np.random.Generator) -> np.ndarray | None:
    """Return standard errors (D,), without the least that the data resolve; None if there is none.

    The sign of a loss does not matter to its error, so neither does the metric's direction.
    """
    kind, columns = statistic.kind, statistic.columns
    if kind in ("mean", "share"):
        first, second = (_values(statistic, table) for table in pair.tables)
        return _spread(pair.counts, (second - first)[None])
    if kind == "skewness":
        return _spread(pair.counts, *pair.slopes(lambda t: _skewness(t, columns, pair.counts)))
    if kind in ("auroc", "aupr"):
        found = pair.slopes(
            lambda t: _RANKED[kind](
                t.in_distribution.column(columns[0]),
                t.predictions.column(columns[0]),
                pair.counts_id,
                pair.counts,
            )
        )
        return np.hypot(_spread(pair.counts_id, found[0]), _spread(pair.counts, found[1]))
    if kind in ("aurc", "augrc"):
        return _spread(
            pair.counts, *pair.slopes(lambda t: (_selective(t, columns, pair.counts)[kind],))
        )
    if kind in ("ece", "mean-gap"):
        return _folded(pair, columns, BINS if kind == "ece" else 1, rng)
    if KINDS[kind].family == "groups" and kind != "group-ece-range":
        return _by_groups(statistic, pair, rng)
    return None


def _spread(counts: np.ndarray, influence: np.ndarray) -> np.ndarray:
    """Return the standard error (D,) of a sum of influences (D or 1, N) over drawn samples."""
    weights = counts.astype(np.float64)
    size = weights.sum(axis=1)
    if len(influence) == 1:
        mean, square = weights @ influence[0] / size, weights @ influence[0] ** 2 / size
    else:
        mean = np.einsum("ij,ij->i", weights, influence) / size
        square = np.einsum("ij,ij,ij->i", weights, influence, influence) / size
    return np.sqrt(np.maximum(square - mean**2, 0.0) / size)


def _values(statistic: Statistic, table: Predictions) -> np.ndarray:
    values = np.asarray(table.column(statistic.columns[0]), np.float64)
    return values if statistic.below is None else (values < statistic.below).astype(np.float64)


def _skewness(tables: Tables, columns: tuple[str, ...], counts: np.ndarray) -> tuple[np.ndarray]:
    values = np.asarray(tables.predictions.column(columns[0]), np.float64)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    off = values - mean[:, None]
    unit = off / np.sqrt((share * off**2).sum(axis=1, keepdims=True))
    skew = (share * unit**3).sum(axis=1, keepdims=True)
    return (unit**3 - 3.0 * unit - 1.5 * skew * unit**2,)


# -- rankings ------------------------------------------------------------------------------------


def _auroc(
    inside: np.ndarray, outside: np.ndarray, counts_in: np.ndarray, counts_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return (
        _below(inside, outside, counts_out),
        1.0 - _below(outside, inside, counts_in),
    )


def _below(at: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the share (D, len(at)) of drawn scores below each threshold, ties as half."""
    order = np.argsort(scores)
    running = _running(counts[:, order])
    left, right = (np.searchsorted(scores[order], at, side=side) for side in ("left", "right"))
    return 0.5 * (running[:, left] + running[:, right]) / running[:, -1:]


def _running(values: np.ndarray) -> np.ndarray:
    total = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=total[:, 1:])
    return total


def _accepted(
    inside: np.ndarray, outside: np.ndarray, counts_in: np.ndarray, counts_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the order of falling scores, drawn weights, and what each threshold accepts (D, N)."""
    order = np.argsort(-inside, kind="stable")
    falling = -inside[order]
    drawn = counts_in[:, order].astype(np.float64)
    true = _running(drawn)[:, np.searchsorted(falling, falling, side="right")]
    other = np.argsort(-outside, kind="stable")
    accepted = np.searchsorted(-outside[other], falling, side="right")
    return order, drawn, true, _running(counts_out[:, other])[:, accepted]


def _aupr(
    inside: np.ndarray, outside: np.ndarray, counts_in: np.ndarray, counts_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    order, drawn, true, false = _accepted(inside, outside, counts_in, counts_out)
    positives, every = true[:, -1:], np.maximum(true + false, 0.5)
    falling = -inside[order]
    # A sample more of either kind changes the precision at every threshold at or below its score.
    gain, harm = (_running((drawn * x / every**2)[:, ::-1])[:, ::-1] for x in (false, true))
    first = np.searchsorted(falling, falling, side="left")
    own = np.empty_like(drawn)
    own[:, order] = true / every + gain[:, first]
    at = np.searchsorted(falling, -outside, side="left")
    # Both kinds are weighed by their own number, and the average precision by that of positives.
    return own, -harm[:, at] * counts_out.sum(axis=1, keepdims=True) / positives


_RANKED = {"auroc": _auroc, "aupr": _aupr}


def _selective(
    tables: Tables, columns: tuple[str, ...], counts: np.ndarray
) -> dict[str, np.ndarray]:
    sure, right = (np.asarray(tables.predictions.column(name), np.float64) for name in columns)
    order = np.lexsort((right, -sure))
    wrong, drawn = 1.0 - right[order], counts[:, order].astype(np.float64)
    size = drawn.sum(axis=1, keepdims=True)
    covered = np.maximum(np.cumsum(drawn, axis=1), 0.5)
    errors = np.cumsum(drawn * wrong, axis=1)

    def after(values: np.ndarray) -> np.ndarray:
        return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]

    slopes = {
        "aurc": errors / covered
        + wrong * after(drawn / covered)
        - after(drawn * errors / covered**2),
        "augrc": (errors + wrong * after(drawn)) / size,
    }
    back = np.argsort(order)
    return {name: values[:, back] for name, values in slopes.items()}


# -- absolute values, and groups -----------------------------------------------------------------


def _folded(
    pair: Pair, columns: tuple[str, ...], bins: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the spread of a difference of sums of absolute bin sums."""
    parts = []
    for table in pair.tables:
        sure, right = (np.asarray(table.column(name), np.float64) for name in columns)
        cell = bin_of(sure, bins) if bins > 1 else np.zeros(len(sure), np.int64)
        parts.append(np.eye(bins)[cell] * (sure - right)[:, None])
    every, sign = np.hstack(parts), np.repeat([-1.0, 1.0], bins)
    filled = every.any(axis=0)
    every, sign = every[:, filled], sign[filled]
    products = (every[:, :, None] * every[:, None, :]).reshape(len(every), -1)
    share = _shares(pair.counts)
    mean = share @ every
    square = (share @ products).reshape(len(share), every.shape[1], every.shape[1])
    error = np.empty(len(share))
    size = pair.counts.sum(axis=1)
    normal = rng.standard_normal
    for row in range(len(share)):
        covariance = (square[row] - np.outer(mean[row], mean[row])) / size[row]
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn = mean[row] + normal((_REPLICATES, len(values))) @ root.T
        error[row] = (np.abs(drawn) @ sign).std(ddof=1)
    return error


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)


def _by_groups(statistic: Statistic, pair: Pair, rng: np.random.Generator) -> np.ndarray:
    """Return the spread of a statistic that depends on how many samples of each kind there are."""
    names = statistic.columns
    columns = [np.asarray(table.column(name)) for table in pair.tables for name in names]
    groups = pair.tables[1].column("group")
    codes = [np.unique(values, return_inverse=True)[1] for values in (groups, *columns)]
    _, first, kind = np.unique(
        np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True
    )
    share = _shares(pair.counts) @ np.eye(len(first))[kind.ravel()]
    size = pair.counts.sum(axis=1)
    weights = np.concatenate(
        [
            rng.multinomial(size[row], chances / chances.sum(), size=_REPLICATES)
            for row, chances in enumerate(share)
        ]
    )
    standing = KINDS[statistic.kind].columns
    values = [
        grouped_statistic(
            statistic.kind,
            {a: np.asarray(table.column(b))[first] for a, b in zip(standing, names, strict=True)},
            groups[first],
            weights,
        )
        for table in pair.tables
    ]
    losses = np.subtract(*values).reshape(len(share), _REPLICATES)
    return np.asarray(losses.std(axis=1, ddof=1))
