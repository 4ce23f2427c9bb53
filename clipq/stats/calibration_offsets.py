"""The finite-sample offset of a loss in calibration error, and by how much it may mislead.

A calibration error adds up absolute values of mean residuals, each with noise of its own: of a part
of the samples with the mean residual g and the standard error s, |g + s Z| is seen, with Z normal.
It exceeds |g| by s b(g / s) on average, b(u) = 2 phi(u) - 2 |u| Phi(-|u|), which is largest, 0.80,
where the part is calibrated, and vanishes where it surely is not (Broecker 2012; Kumar et al.
2019). A well calibrated FP32 is hence flattered less by its samples than a worse candidate, and the
loss between the two comes out too small.

No estimator of |g| is free of this. What is subtracted here starts from FP32's residuals, shrunken
towards 0 as far as all of them together allow (an empirical Bayes estimate of their variance, less
two standard errors of it); the candidate's are FP32's plus the paired difference, of whose noise a
quarter is taken off. Both numbers are a choice between false passes and needless doubt, made by
benchmarks/calibration_offsets.py, which measures what they achieve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from clipq.errors import StatisticsError
from clipq.stats.smooth_replicates import smooth_ece
from clipq.stats.statistics import bin_of, finite_column

__all__ = ["Answers", "Gaps", "binned_offset", "folded_excess", "loss_offset", "smooth_offset"]

_CAUTION, _TAKEN_OFF = 2.0, 0.25
_NODES = ndtri((np.arange(40) + 0.5) / 40)
_SMALLEST = 1e-12
_FINE, _GRID = 512, 128
_NARROWEST = 0.004  # the least bandwidth of `smooth_ece`


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """How sure a form of a model is of each sample, and whether it is right.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) 0 or 1.
        slope: how each confidence moves (N,) with something that was estimated elsewhere.
        variance: of that estimate.

    >>> Answers(np.array([0.9]), np.array([1])).residual.round(3).tolist()
    [-0.1]
    """

    confidence: np.ndarray
    correct: np.ndarray
    slope: np.ndarray | None = None
    variance: float = 0.0

    def __post_init__(self) -> None:
        finite_column(self.confidence, "confidence")
        finite_column(self.correct, "correct")

    @property
    def residual(self) -> np.ndarray:
        """Confidence - outcome (N,)."""
        return np.asarray(self.confidence.astype(np.float64) - self.correct)


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """What a calibration error adds up: sum of |mean|, over K parts of the samples.

    Args:
        mean: signed mean residual of each part (K,), confidence - outcome.
        error: its standard error (K,).
        mass: what it would be, were every residual 1 (K,).
        overlap: how many neighbouring parts share their samples; 1 for bins.

    >>> gaps = Gaps(np.array([0.02, -0.01]), np.array([0.01, 0.01]), np.array([0.5, 0.5]))
    >>> round(float(np.abs(gaps.mean).sum()), 3)
    0.03
    """

    mean: np.ndarray
    error: np.ndarray
    mass: np.ndarray
    overlap: float = 1.0


def folded_excess(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return E|g + s Z| - |g| (K,) of means g and standard errors s (K,), Z standard normal.

    >>> folded_excess(np.array([0.0, 1.0, 9.0]), np.ones(3)).round(3).tolist()
    [0.798, 0.167, 0.0]
    """
    away = np.abs(mean) / np.maximum(error, _SMALLEST)
    density = np.exp(-0.5 * away**2) / np.sqrt(2 * np.pi)
    return np.asarray(error * 2.0 * (density - away * ndtr(-away)))


def loss_offset(reference: Gaps, observed: Gaps, difference: np.ndarray) -> float:
    """Return how much larger a loss in calibration error is expected to be than the population's.

    Negative where FP32 is nearly calibrated and the candidate is not: the loss then looks smaller
    than it is.

    Args:
        reference: FP32's gaps.
        observed: the candidate's, of the same parts.
        difference: standard error (K,) of the paired difference of both means.

    Raises:
        StatisticsError: the two have different parts.

    >>> fp32 = Gaps(np.zeros(2), np.full(2, 0.01), np.full(2, 0.5))
    >>> worse = Gaps(np.full(2, 0.1), np.full(2, 0.01), np.full(2, 0.5))
    >>> paired = np.full(2, 0.001)
    >>> round(loss_offset(fp32, worse, paired), 4), loss_offset(fp32, fp32, paired)  # -1.6 / 100
    (-0.016, 0.0)
    """
    if reference.mean.shape != observed.mean.shape:
        raise StatisticsError(
            f"{reference.mean.size} gaps against {observed.mean.size}",
            hint="both sides are divided into the same parts",
        )
    prior = reference.mass**2 * _spread(reference)
    kept = prior / (prior + np.maximum(reference.error, _SMALLEST) ** 2)
    likely = (reference.mean * kept)[..., None]
    likely = likely + (np.sqrt(kept) * reference.error)[..., None] * _NODES
    seen = observed.mean - reference.mean
    moved = np.sign(seen) * np.sqrt(np.maximum(seen**2 - _TAKEN_OFF * difference**2, 0.0))
    ours = folded_excess(likely + moved[..., None], observed.error[..., None])
    theirs = folded_excess(likely, reference.error[..., None])
    return float((ours - theirs).mean(axis=-1).sum())


def binned_offset(
    reference: Answers, observed: Answers, *, bins: int, clusters: np.ndarray | None = None
) -> float:
    """Return the offset of a loss in expected calibration error; see `loss_offset`.

    Args:
        reference: FP32's answers.
        observed: the candidate's, to the same samples.
        bins: how many of equal width, as of `binned_errors`.
        clusters: of each sample (N,); members of a cluster are no independent samples.

    >>> calibrated = Answers(np.full(100, 0.75), np.tile([1, 1, 1, 0], 25))
    >>> worse = Answers(np.full(100, 0.75), np.tile([1, 0], 50))
    >>> round(binned_offset(calibrated, worse, bins=15), 4)  # 0.8 * sqrt(0.75 * 0.25 / 100)
    -0.0345
    """
    unit = _units(observed, clusters)
    indices = [bin_of(side.confidence, bins) for side in (reference, observed)]
    theirs = _binned(reference, indices[0], unit, bins)
    ours = _binned(observed, indices[1], unit, bins)
    cell, place = np.unique(
        np.concatenate([unit * bins + at for at in indices]), return_inverse=True
    )
    moved = np.bincount(place, np.concatenate([-reference.residual, observed.residual]))
    squares = np.bincount(cell % bins, moved**2, minlength=bins)
    change = ours.mean - theirs.mean
    return loss_offset(theirs, ours, _error(squares, change, len(unit), int(unit.max()) + 1))


def smooth_offset(
    reference: Answers, observed: Answers, *, clusters: np.ndarray | None = None
) -> float:
    """Return the offset of a loss in smooth calibration error; see `loss_offset`.

    Parts are the points of a grid, at the bandwidth of each side.

    Args:
        reference: FP32's answers.
        observed: the candidate's, to the same samples.
        clusters: of each sample (N,).

    >>> calibrated = Answers(np.full(100, 0.75), np.tile([1, 1, 1, 0], 25))
    >>> worse = Answers(np.full(100, 0.75), np.tile([1, 0], 50))
    >>> -0.04 < smooth_offset(calibrated, worse) < -0.03
    True
    """
    unit = _units(observed, clusters)
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=-1))
    sides = [_smoothed(side, order, starts) for side in (reference, observed)]
    pairs = zip(*(rows for _, rows in sides), strict=True)
    squares = np.array([_squares(ours - theirs, starts) for theirs, ours in pairs])
    (theirs, _), (ours, _) = sides
    change = ours.mean - theirs.mean
    return loss_offset(theirs, ours, _error(squares, change, len(unit), len(starts)))


def _squares(values: np.ndarray, starts: np.ndarray) -> float:
    """Return the sum over units of the squared sum of each one's values (N,), in their order."""
    alone = len(starts) == len(values)  # a sum of one value is that value
    return float(np.square(values if alone else np.add.reduceat(values, starts)).sum())


def _units(answers: Answers, clusters: np.ndarray | None) -> np.ndarray:
    if clusters is None:
        return np.arange(len(answers.confidence))
    return np.asarray(np.unique(clusters, return_inverse=True)[1])


def _error(squares: np.ndarray, mean: np.ndarray, size: int, units: int) -> np.ndarray:
    """Return the standard error of means over samples, from squares summed over their units."""
    return np.asarray(np.sqrt(np.maximum(squares - (size * mean) ** 2 / units, 0.0)) / size)


def _binned(answers: Answers, bin_index: np.ndarray, unit: np.ndarray, bins: int) -> Gaps:
    size = len(unit)
    mean = np.bincount(bin_index, answers.residual, minlength=bins) / size
    cell, place = np.unique(unit * bins + bin_index, return_inverse=True)
    sums = np.bincount(place, answers.residual)
    error = _error(
        np.bincount(cell % bins, sums**2, minlength=bins), mean, size, int(unit.max()) + 1
    )
    if answers.slope is not None:
        slope = np.bincount(bin_index, answers.slope, minlength=bins) / size
        error = np.hypot(error, np.sqrt(answers.variance) * slope)
    return Gaps(mean, error, np.bincount(bin_index, minlength=bins) / size)


def _smoothed(
    answers: Answers, order: np.ndarray, starts: np.ndarray
) -> tuple[Gaps, list[np.ndarray]]:
    """Return the gaps on the grid, and what each sample adds to each point, in that order."""
    size, sure, residual = len(order), answers.confidence[order], answers.residual[order]
    fine = np.minimum((sure * _FINE).astype(np.int64), _FINE - 1)
    width = float(smooth_ece(sure, answers.correct[order], np.ones((1, size)))[0])
    wide = max(width, _NARROWEST)
    total = np.bincount(fine, residual, minlength=_FINE) / size
    kernel = _kernel(wide)
    rows = [heights[fine] * residual for heights in kernel]
    squares = np.array([_squares(row, starts) for row in rows])
    mean = kernel @ total
    mass = kernel @ (np.bincount(fine, minlength=_FINE) / size)
    # Squared correlations of neighbours fall as exp(-d^2 / (2 s^2)).
    overlap = max(1.0, float(np.sqrt(2 * np.pi)) * wide * _GRID)
    return Gaps(mean, _error(squares, mean, size, len(starts)), mass, overlap), rows


def _spread(gaps: Gaps) -> float:
    """Return the variance of residuals that the gaps' own noise does not explain, cautiously."""
    variance = gaps.error**2
    beyond = float((gaps.mean**2 - variance).sum())
    uncertain = float(np.sqrt(2.0 * gaps.overlap * (variance**2).sum()))
    return max(0.0, beyond - _CAUTION * uncertain) / max(float((gaps.mass**2).sum()), _SMALLEST)


def _kernel(width: float) -> np.ndarray:
    """Return a Gaussian kernel with reflecting ends, from fine bins to the grid, over the grid."""
    to = ((np.arange(_GRID) + 0.5) / _GRID)[:, None]
    at = ((np.arange(_FINE) + 0.5) / _FINE)[None, :]
    images = [sign * at + 2.0 * shift for sign in (1, -1) for shift in (-1, 0, 1)]
    heights = sum(np.exp(-0.5 * ((to - image) / width) ** 2) for image in images)
    return np.asarray(heights / (np.sqrt(2 * np.pi) * width * _GRID))
