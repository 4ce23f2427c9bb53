"""Means and binned calibration errors of many replicates at once, by counts and bin sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipq.errors import StatisticsError
from clipq.stats.blocks import by_blocks, rows_per_block
from clipq.stats.resampling_weights import check_totals, check_weights

__all__ = [
    "bin_of",
    "bin_resolution",
    "binned_errors",
    "finite_column",
    "skewness_resolution",
    "weighted_means",
    "weighted_skewness",
]

_NEW_BIN = 0.1 / 4.0


def weighted_skewness(values: np.ndarray, weights: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Return the weighted skewness m_3 / m_2^(3/2) (R,); 0 where all values are equal.

    >>> weighted_skewness(np.array([1.0, 5.0]), np.array([[3, 1]])).round(3).tolist()  # 1, 1, 1, 5
    [1.155]
    """
    column = finite_column(values, "values")
    centred = column - column.mean()
    first, second, third = (
        weighted_means(centred**power, weights, threads=threads) for power in (1, 2, 3)
    )
    variance = np.maximum(second - first**2, 0.0)
    moment = third - 3 * first * second + 2 * first**3
    flat = np.zeros_like(variance)
    return np.asarray(np.divide(moment, variance**1.5, out=flat, where=variance > 1e-24))


def skewness_resolution(values: np.ndarray) -> float:
    """Return what another sample in the place of one is worth in the skewness of values (N,).

    The standard deviation of the skewness's influence function (z^3 - g - 3 z - 3/2 g (z^2 - 1)),
    with z the standardised values and g their skewness, over N; 0 where all values are equal.

    >>> skewness_resolution(np.array([-1.0, 1.0, -1.0, 1.0]))  # z^3 - 3 z = +- 2, of four
    0.5
    """
    column = finite_column(values, "values")
    spread = float(column.std())
    if spread < 1e-12:
        return 0.0
    z = (column - column.mean()) / spread
    skew = float((z**3).mean())
    return float((z**3 - 3.0 * z - 1.5 * skew * z**2).std() / len(z))


def weighted_means(values: np.ndarray, weights: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Return the weighted mean (R,) of values (N,) for each row of weights (R, N).

    >>> weighted_means(np.array([1.0, 2.0, 3.0]), np.array([[1, 1, 1], [0, 1, 3]])).tolist()
    [2.0, 2.75]
    """
    column = finite_column(values, "values")
    rows = check_weights(weights, len(column))

    def worker() -> Callable[[slice], np.ndarray]:
        wide = np.empty((rows_per_block(len(column)), len(column)))

        def work(block: slice) -> np.ndarray:
            taken = wide[: block.stop - block.start]
            np.copyto(taken, rows[block])
            # einsum, not a matrix product: BLAS would start threads of its own.
            sums = np.einsum("ij,j->i", taken, column)
            return np.asarray(sums / check_totals(np.einsum("ij->i", taken)))

        return work

    return by_blocks(worker, len(rows), len(column), threads=threads)


def binned_errors(
    confidence: np.ndarray,
    correct: np.ndarray,
    weights: np.ndarray,
    *,
    bins: int,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return calibration errors ``ece``, ``ace`` and ``mce``, each (R,), for weights (R, N).

    With C_b the weight in bin b and G_b = sum of w (confidence - correct) in it: ECE is
    sum |G_b| / sum C_b, ACE the mean and MCE the maximum of |G_b| / C_b over bins that hold weight.
    Bins have equal width over [0, 1]; an edge belongs to the upper bin, 1 to the last.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) 0 or 1.
        weights: (R, N), finite and not negative.
        bins: how many.

    Raises:
        StatisticsError: a confidence lies outside [0, 1], or shapes do not fit.

    >>> sure, right = np.array([0.9, 0.9, 0.9, 0.7]), np.array([1, 1, 1, 0])
    >>> found = binned_errors(sure, right, np.ones((1, 4)), bins=15)
    >>> {name: values.round(6).tolist() for name, values in found.items()}
    {'ece': [0.25], 'ace': [0.4], 'mce': [0.7]}
    """
    sure, right = finite_column(confidence, "confidence"), finite_column(correct, "correct")
    if len(sure) != len(right):
        raise StatisticsError(
            f"{len(sure)} confidences for {len(right)} outcomes", hint="one of each per sample"
        )
    if sure.min() < 0.0 or sure.max() > 1.0:
        raise StatisticsError(
            f"confidences go from {sure.min()} to {sure.max()}",
            hint="confidences are probabilities in [0, 1], never logits",
        )
    rows = check_weights(weights, len(sure))
    bin_index = bin_of(sure, bins)
    order = np.argsort(bin_index, kind="stable")
    starts = np.searchsorted(bin_index[order], np.unique(bin_index))
    residual = (sure - right)[order]

    def worker() -> Callable[[slice], np.ndarray]:
        shape = (rows_per_block(len(sure)), len(sure))
        weight, wide = np.empty(shape, rows.dtype), np.empty(shape)

        def work(block: slice) -> np.ndarray:
            drawn, product = weight[: block.stop - block.start], wide[: block.stop - block.start]
            np.take(rows[block], order, axis=1, out=drawn, mode="clip")
            np.copyto(product, drawn)
            count = np.add.reduceat(product, starts, axis=1)
            product *= residual
            gap = np.abs(np.add.reduceat(product, starts, axis=1))
            filled = count > 0
            per_bin = np.divide(gap, count, out=np.zeros_like(gap), where=filled)
            return np.stack(
                [
                    gap.sum(axis=1) / check_totals(count.sum(axis=1)),
                    per_bin.sum(axis=1) / filled.sum(axis=1),
                    per_bin.max(axis=1),
                ]
            )

        return work

    errors = by_blocks(worker, len(rows), len(sure), threads=threads)
    return dict(zip(("ece", "ace", "mce"), errors, strict=True))


def bin_resolution(confidence: np.ndarray, *, bins: int) -> float:
    """Return what one sample per bin is worth in an unweighted mean over bins, such as ACE.

    A bootstrap sees only (n - 1) / n of the variance of a bin of n samples, and nothing of a bin
    with a single one, which ACE and MCE count like any other. The missing part of a bin's gap is
    c (1 - c) / n^2, with c its mean confidence. Nor does it see that an empty bin beside a filled
    one might have held a sample, with a gap of about 1/2: 1/10, the variance of a chance of 1 in 9,
    times 1/4 for each. `standard_error` adds twice the square of what is returned, so that is half
    the missing variance of the mean over bins, as a standard deviation.

    Args:
        confidence: (N,) in [0, 1].
        bins: how many of equal width, as in `binned_errors`.

    >>> round(bin_resolution(np.array([0.5, 0.5]), bins=1), 4)  # sqrt(0.5 * 0.5 / 2**2 / 2)
    0.1768
    """
    sure = finite_column(confidence, "confidence")
    bin_index = bin_of(sure, bins)
    size = np.bincount(bin_index, minlength=bins).astype(np.float64)
    filled = size > 0
    mean = np.bincount(bin_index, sure, minlength=bins)[filled] / size[filled]
    missing = (mean * (1.0 - mean) / size[filled] ** 2).sum() / filled.sum() ** 2
    beside = np.append(filled[1:], False) | np.append(False, filled[:-1])
    missing += _NEW_BIN * (beside & ~filled).sum() / (filled.sum() + 1) ** 2
    return float(np.sqrt(missing / 2.0))


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin (N,) of each confidence; an edge belongs to the upper bin, 1 to the last.

    >>> bin_of(np.array([0.0, 0.25, 0.3, 1.0]), 4).tolist()
    [0, 1, 1, 3]
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.asarray(np.minimum(np.searchsorted(edges, confidence, side="right") - 1, bins - 1))


def finite_column(values: np.ndarray, what: str) -> np.ndarray:
    """Return numbers of samples (N,) as float64, refused where one is not finite.

    Raises:
        StatisticsError: there is none, or one is NaN or infinite.

    >>> finite_column(np.array([0.5, np.nan]), "scores")
    Traceback (most recent call last):
    clipq.errors.StatisticsError: scores hold 1 numbers that are NaN or infinite
      fix: a statistic of them means nothing; find out which samples they are
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise StatisticsError(
            f"{what} of shape {column.shape}", hint="give one number per sample, at least one"
        )
    if not np.isfinite(column).all():
        raise StatisticsError(
            f"{what} hold {int((~np.isfinite(column)).sum())} numbers that are NaN or infinite",
            hint="a statistic of them means nothing; find out which samples they are",
        )
    return column
