"""Metrics of groups: fairness between subgroups, spurious cues, kinds of corruption.

A group is a value of the probe's attribute. Accuracy of a group is the share of its samples that
are right; FP32's is read from the column `fp32_correct` of the same table.
"""

from __future__ import annotations

import numpy as np

from clipq.errors import ClipqError
from clipq.metrics.calibration import ece
from clipq.metrics.predictions import Predictions

__all__ = [
    "added_vulnerability",
    "corruption_error",
    "ece_range",
    "relative_gap",
    "top1_range",
    "top1_std",
    "tpr_range",
    "worst_group_top1",
]


def worst_group_top1(predictions: Predictions) -> float:
    """Smallest accuracy of a group (Sagawa et al. 2020); in [0, 1].

    >>> group, right = np.array(["a", "a", "b", "b"]), np.array([1, 1, 1, 0])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(4, 0.7)})
    >>> worst_group_top1(table)
    0.5
    """
    return float(np.min(_accuracies(predictions)))


def top1_range(predictions: Predictions) -> float:
    """Largest minus smallest accuracy of a group; in [0, 1].

    >>> group, right = np.array(["a", "a", "b", "b"]), np.array([1, 1, 1, 0])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(4, 0.7)})
    >>> top1_range(table)
    0.5
    """
    return float(np.ptp(_accuracies(predictions)))


def top1_std(predictions: Predictions) -> float:
    """Standard deviation of the groups' accuracies, each counted once; in [0, 1/2].

    >>> group, right = np.array(["a", "a", "b", "b"]), np.array([1, 1, 1, 0])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(4, 0.7)})
    >>> top1_std(table)
    0.25
    """
    return float(np.std(_accuracies(predictions)))


def ece_range(predictions: Predictions) -> float:
    """Largest minus smallest expected calibration error of a group; in [0, 1].

    >>> group, right = np.array(["a", "a", "b", "b"]), np.array([1, 1, 1, 0])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(4, 0.7)})
    >>> round(ece_range(table), 6)  # |1 - 0.7| - |0.5 - 0.7|
    0.1
    """
    return float(np.ptp([ece(part) for part in _parts(predictions).values()]))


def tpr_range(predictions: Predictions) -> float:
    """Largest minus smallest true-positive rate of a group; in [0, 1].

    The rate of a group is the mean, over the classes that occur in it, of the share of the class's
    samples that are recognised: equal opportunity (Hardt et al. 2016) over many classes.

    >>> group, label = np.array(["a", "b", "b", "b"]), np.array([0, 0, 0, 1])
    >>> table = Predictions({"group": group, "label": label, "correct": np.array([1, 1, 1, 0])})
    >>> tpr_range(table)  # of b: the mean of 1 (class 0) and 0 (class 1)
    0.5
    """
    rates = []
    for part in _parts(predictions).values():
        labels, right = part.samples("label"), part.samples("correct")
        rates.append(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
    return float(np.ptp(rates))


def relative_gap(predictions: Predictions) -> float:
    """Relative spurious gap (A_common - A_counter) / A_common; at most 1.

    The groups are called ``common`` and ``counter``, as in CounterAnimal. Its loss against FP32 is
    the study's delta RSG.

    >>> group, right = np.repeat(["common", "counter"], 4), np.array([1, 1, 1, 1, 1, 1, 1, 0])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(8, 0.7)})
    >>> relative_gap(table)
    0.25
    """
    accuracies = {name: _accuracy(part) for name, part in _parts(predictions).items()}
    common, counter = _named(accuracies, "common"), _named(accuracies, "counter")
    return (common - counter) / common if common else float("nan")


def added_vulnerability(predictions: Predictions) -> float:
    """How much more the model degrades on ``counter`` than on ``common`` samples; 0 for FP32.

    The degradation of a group is (A_FP32 - A) / A_FP32.

    >>> group, right = np.repeat(["common", "counter"], 4), np.array([1, 1, 1, 1, 1, 1, 1, 0])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(8, 0.7),
    ...                      "fp32_correct": np.ones(8)})
    >>> added_vulnerability(table)  # FP32 is right throughout
    0.25
    """
    drops = {}
    for name, part in _parts(predictions).items():
        reference = float(part.samples("fp32_correct").mean())
        accuracy = _accuracy(part)
        drops[name] = (reference - accuracy) / reference if reference else float("nan")
    common, counter = _named(drops, "common"), _named(drops, "counter")
    return counter - common


def corruption_error(predictions: Predictions) -> float:
    """Mean corruption error relative to FP32 (Hendrycks & Dietterich 2019); 1 for FP32.

    The mean over kinds of corruption of the model's errors divided by FP32's, severities taken
    together. Counts below half a sample are taken for half a sample.

    >>> group, right = np.array(["blur", "blur", "fog", "fog"]), np.array([0, 0, 0, 1])
    >>> table = Predictions({"group": group, "correct": right, "confidence": np.full(4, 0.7),
    ...                      "fp32_correct": np.array([0, 1, 0, 1])})
    >>> corruption_error(table)  # blur: two errors for one of FP32's; fog: one for one
    1.5
    """
    if np.isnan(predictions.samples("confidence")).any():
        return float("nan")
    ratios = []
    for part in _parts(predictions).values():
        ours = max(float((1 - part.samples("correct")).sum()), 0.5)
        reference = max(float((1 - part.samples("fp32_correct")).sum()), 0.5)
        ratios.append(ours / reference)
    return float(np.mean(ratios))


def _parts(predictions: Predictions) -> dict[str, Predictions]:
    """Return the samples of each group."""
    groups = predictions.samples("group")
    names = np.unique(groups)
    if len(names) < 2:
        raise ClipqError(
            f"samples of {len(names)} group ({', '.join(names.tolist()) or 'none'})",
            hint="name the attribute that divides the probe's samples: group = '...'",
        )
    return {str(name): predictions.drawn(np.flatnonzero(groups == name)) for name in names}


def _accuracy(part: Predictions) -> float:
    # A sample without a finite logit is not right, but nor is its answer known to be wrong.
    known = np.isfinite(part.samples("confidence")).all()
    return float(part.samples("correct").mean()) if known else float("nan")


def _accuracies(predictions: Predictions) -> list[float]:
    return [_accuracy(part) for part in _parts(predictions).values()]


def _named(by_group: dict[str, float], name: str) -> float:
    if name not in by_group:
        raise ClipqError(
            f"no group {name!r} among {', '.join(sorted(by_group))}",
            hint="spurious cues are judged between the groups 'common' and 'counter'",
        )
    return by_group[name]
