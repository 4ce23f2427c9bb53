"""How well the numbers of a whole probe are known, against FP32's on the same samples.

A jackknife: `GROUPS` groups of samples (whole clusters, where samples share an image) are left out
in turn, of both forms at once, and the paired loss is computed from what is left. Its variance is
(G - 1) / G times the sum of squared deviations (Efron & Stein 1981), with G - 1 degrees of freedom.
Spectra follow from Gram matrices: that of all samples minus that of a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from clipq.metrics.calibration import BINS, bin_of
from clipq.metrics.features import decibels
from clipq.metrics.spectra import BANDS
from clipq.stats import jackknife_weights
from clipq.stats.calibration_offsets import Gaps, loss_offset

__all__ = ["GROUPS", "Sides", "classwise_errors", "feature_errors", "groups_of", "stated"]

GROUPS = 40
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """FP32's array and the candidate's, of the same samples.

    >>> Sides(np.zeros((2, 3)), np.ones((2, 3))).observed.shape
    (2, 3)
    """

    reference: np.ndarray
    observed: np.ndarray


def groups_of(size: int, clusters: np.ndarray | None = None) -> np.ndarray:
    """Return the group (N,) of each sample; a cluster lies in one.

    >>> np.bincount(groups_of(80)).tolist() == [2] * GROUPS
    True
    """
    left_out = jackknife_weights(size, groups=GROUPS, seed=_SEED, clusters=clusters)
    return np.asarray(left_out.argmin(axis=0))


def stated(name: str, error: float, freedom: float) -> dict[str, float]:
    """Return a standard error of a scalar as scalars of the same table.

    >>> stated("sqnr_db", 0.5, 39)
    {'sqnr_db.error': 0.5, 'sqnr_db.freedom': 39.0}
    """
    return {f"{name}.error": error, f"{name}.freedom": float(freedom)}


def classwise_errors(logits: Sides, labels: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Return the error and the offset of the loss in classwise calibration error.

    Args:
        logits: (N, C) of both forms.
        labels: (N,).
        groups: (N,) of `groups_of`.

    >>> rng = np.random.default_rng(0)
    >>> labels, logits = rng.integers(0, 3, 400), rng.normal(size=(400, 3))
    >>> found = classwise_errors(Sides(logits, 2 * logits), labels, groups_of(400))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'classwise_ece.error': 0.008, 'classwise_ece.freedom': 39.0, 'classwise_ece.offset': -0.009}
    """
    if not (np.isfinite(logits.reference).all() and np.isfinite(logits.observed).all()):
        return stated("classwise_ece", math.nan, 0) | {"classwise_ece.offset": math.nan}
    sides = [_classwise(side, labels, groups) for side in (logits.reference, logits.observed)]
    (theirs, their_gaps), (ours, our_gaps) = sides
    error, freedom = _jackknife(np.abs(our_gaps).sum(axis=1) - np.abs(their_gaps).sum(axis=1))
    offset = loss_offset(theirs, ours, _spread(our_gaps - their_gaps))
    return stated("classwise_ece", error, freedom) | {"classwise_ece.offset": offset}


def feature_errors(
    features: Sides, groups: np.ndarray, *, sqnr_cap: float = math.inf
) -> dict[str, float]:
    """Return the errors of every scalar that features give.

    Args:
        features: image features (N, D) of both forms.
        groups: (N,) of `groups_of`.
        sqnr_cap: the text tower's SQNR, which the whole's is at most; it is the same whichever
            images are drawn, for it is of all classes.

    >>> features = np.random.default_rng(0).normal(size=(400, 12))
    >>> found = feature_errors(Sides(features, features.round(1)), groups_of(400))
    >>> 0 < found["sqnr_db.error"] < 0.5, 0 < found["effective_rank.error"] < 0.1
    (True, True)
    """
    names = ("sqnr_db", "zero_fraction", "effective_rank")
    if not (np.isfinite(features.reference).all() and np.isfinite(features.observed).all()):
        bands = [name for band in BANDS for name in (f"sqnr_{band}_db", f"{band}_energy")]
        return {k: v for name in (*names, *bands) for k, v in stated(name, math.nan, 0).items()}
    without = _entries(features, groups, sqnr_cap)
    if np.array_equal(features.reference, features.observed):
        count = int(groups.max()) + 1
        same = ("effective_rank", *(f"{band}_energy" for band in BANDS))
        without |= {name: np.zeros(count) for name in same}
        without |= {f"sqnr_{band}_db": np.full(count, np.inf) for band in BANDS}
    else:
        without |= _spectra(features, groups)
    found = {name: _jackknife(values) for name, values in without.items()}
    # Two imagined entries, one changed each way, as `SamplingError.widened` adds samples.
    least = math.sqrt(2.0) / features.observed.size
    error, freedom = found["zero_fraction"]
    found["zero_fraction"] = math.hypot(error, least), freedom
    return {k: v for name, pair in found.items() for k, v in stated(name, *pair).items()}


def _jackknife(without: np.ndarray) -> tuple[float, int]:
    """Return the standard error from values (G,) that leave out one group each, and G - 1."""
    count = len(without)
    known = np.isfinite(without).all()
    return float(_spread(without)) if known else math.nan, count - 1


def _spread(without: np.ndarray) -> np.ndarray:
    """Return the standard error of each column of values (G, ...) that leave out a group each."""
    count = len(without)
    deviation = without - without.mean(axis=0)
    return np.asarray(np.sqrt((count - 1) / count * (deviation**2).sum(axis=0)))


def _summed(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the sums of values (N,) of all groups but one, for each group (G,)."""
    sums = np.bincount(groups, values)
    return np.asarray(sums.sum() - sums)


def _classwise(
    logits: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[Gaps, np.ndarray]:
    """Return the gaps of all classes' bins, and their means without each group (G, C * bins)."""
    probability = softmax(logits, axis=1)
    size, count = len(labels), int(groups.max()) + 1
    left = _summed(np.ones(size), groups)[:, None]
    means, without, masses = [], [], []
    classes = probability.shape[1]
    for index in range(classes):
        of_class = probability[:, index]
        cell = groups * BINS + bin_of(of_class)
        sums = np.bincount(cell, of_class - (labels == index), minlength=count * BINS)
        sums = sums.reshape(count, BINS)
        means.append(sums.sum(axis=0) / size)
        without.append((sums.sum(axis=0) - sums) / left)
        masses.append(np.bincount(cell % BINS, minlength=BINS) / size)
    mean, mass = (np.concatenate(part) / classes for part in (means, masses))
    gaps = np.concatenate(without, axis=1) / classes
    return Gaps(mean, _spread(gaps), mass), gaps


def _entries(features: Sides, groups: np.ndarray, sqnr_cap: float) -> dict[str, np.ndarray]:
    """Return, without each group, what follows from sums over single entries."""
    wide = features.reference.astype(np.float64)
    signal = _summed((wide**2).sum(axis=1), groups)
    noise = _summed(((features.observed - wide) ** 2).sum(axis=1), groups)
    ratios = [
        min(decibels(float(s), float(n)), sqnr_cap) for s, n in zip(signal, noise, strict=True)
    ]
    zeros = [_summed((side == 0).mean(axis=1), groups) for side in (features.observed, wide)]
    return {
        "sqnr_db": np.array(ratios),
        "zero_fraction": (zeros[0] - zeros[1]) / _summed(np.ones(len(groups)), groups),
    }


def _spectra(features: Sides, groups: np.ndarray) -> dict[str, np.ndarray]:
    """Return, without each group, what follows from spectra."""
    wide = features.reference.astype(np.float64)
    own = [np.linalg.eigvalsh(gram) for gram in _Grams(features.observed, groups)]
    residual = _Grams(features.observed - wide, groups, centred=False)
    found: dict[str, list[float]] = {}
    for energies, gram, noise in zip(own, _Grams(wide, groups), residual, strict=True):
        theirs, basis = np.linalg.eigh(gram)
        ours, theirs, basis = energies[::-1], theirs[::-1], basis[:, ::-1]
        of_noise = np.einsum("ij,ij->j", basis, noise @ basis)
        row = {"effective_rank": _rank(ours) - _rank(theirs)}
        for band, ranks in BANDS.items():
            part = slice(*ranks)
            row[f"{band}_energy"] = _share(ours, part) - _share(theirs, part)
            ratio = float(theirs[part].sum()), float(of_noise[part].sum())
            row[f"sqnr_{band}_db"] = decibels(*ratio) if len(theirs[part]) else math.nan
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


class _Grams:
    """The Gram matrix (D, D) of all samples but a group's, for each group in turn."""

    def __init__(self, values: np.ndarray, groups: np.ndarray, *, centred: bool = True) -> None:
        count, width = int(groups.max()) + 1, values.shape[1]
        self._grams = np.empty((count, width, width))
        self._sums, self._sizes = np.empty((count, width)), np.bincount(groups, minlength=count)
        self._centred = centred
        for group in range(count):
            part = values[groups == group].astype(np.float64)
            self._grams[group], self._sums[group] = part.T @ part, part.sum(axis=0)
        self._total = self._grams.sum(axis=0)

    def __iter__(self) -> Iterator[np.ndarray]:
        total, size = self._sums.sum(axis=0), self._sizes.sum()
        for gram, own, count in zip(self._grams, self._sums, self._sizes, strict=True):
            left = self._total - gram
            if self._centred:
                left -= np.outer(total - own, total - own) / (size - count)
            yield left


def _rank(energies: np.ndarray) -> float:
    share = energies[energies > 0] / energies[energies > 0].sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _share(energies: np.ndarray, part: slice) -> float:
    total = float(energies.sum())
    return float(energies[part].sum()) / total if total > 0 else 0.0
