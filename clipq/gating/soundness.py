"""Is FP32 itself sound? Its headline numbers per probe, and what makes them meaningless.

A gate compares with FP32, so that a model at chance, with swapped labels or another model's
preprocessing passes every case: it has nothing to lose. Four things are looked for, each against
how well the number is known, at the level of 95 %:

- an accuracy or a recall whose interval (Wilson 1927; of clusters, where samples belong together)
  includes chance. Chance is what the model's own answers would get if they were dealt out to the
  samples at random, ``sum_c share(label c) * share(answer c)``, the expected agreement of Cohen's
  kappa (1960): a model that always gives one answer is at chance, however common the class; of
  image-to-text recall at 1 it is 1 / images;
- an AUROC below 0.5: what is out of distribution looks more familiar than what is in. The interval
  is that of DeLong et al. 1988; where not even the best score's lies above 0.5, none tells a thing;
- an ECE that temperature scaling makes worse instead of better: more than `FAR_ABOVE` times as
  large, and larger by more than `SURELY` standard errors of an accuracy (at most 0.5 / sqrt(N)).
  Calibration labels that are not the head's, for one, look like that;
- a fitted temperature at an end of its range: nothing was calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from clipq.errors import ClipqError
from clipq.gating.baseline import Baseline
from clipq.metrics import Predictions, metrics
from clipq.metrics.temperature import TEMPERATURE_RANGE
from clipq.stats import cluster_codes, effective_units, placements

__all__ = ["FAR_ABOVE", "SURELY", "Headline", "Known", "headlines", "remarks"]

FAR_ABOVE = 2.0
SURELY = 3.0
_Z = float(norm.ppf(0.975))
_SCORES = ("mcm", "max_logit", "energy", "neg_entropy", "knn", "mahalanobis")
_NAMES = {"max_logit": "max-logit", "neg_entropy": "entropy"}


@dataclass(frozen=True, slots=True)
class Known:
    """A number, its interval, and what it would be by chance.

    >>> print(Known(0.25, 0.2, 0.31, chance=0.1))
    0.250 [0.200, 0.310]
    """

    value: float
    low: float
    high: float
    chance: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def by_chance(self) -> bool:
        """Whether it is not surely better than chance."""
        return self.low <= self.chance


@dataclass(frozen=True, slots=True)
class Headline:
    """What FP32 reaches on one probe; None or empty for what is not measured there.

    >>> Headline("id", 100, top1=Known(0.5, 0.4, 0.6, 0.1)).recall is None
    True
    """

    probe: str
    samples: int
    top1: Known | None = None
    ece: float | None = None
    ts_ece: float | None = None
    aurocs: tuple[tuple[str, Known], ...] = ()
    recall: Known | None = None
    text_recall: float | None = None

    @property
    def best_auroc(self) -> tuple[str, Known] | None:
        """The score that tells best what is out of distribution, with its AUROC."""
        return max(self.aurocs, key=lambda pair: pair[1].value, default=None)


def headlines(baseline: Baseline, known: str) -> list[Headline]:
    """Return the headline numbers of each probe that has images of its own.

    They follow from the stored columns, whichever metrics the matrix has.

    Args:
        baseline: of an FP32 model.
        known: the in-distribution probe.

    >>> from pathlib import Path
    >>> from clipq.gating.baseline import load_baseline
    >>> first = headlines(load_baseline(Path("baselines"), "vit-clean"), "id")[0]
    >>> print(first.probe, first.top1)
    all-corruptions 0.524 [0.439, 0.608]
    """
    tables = baseline.predictions
    return [
        _headline(name, tables[name], tables.get(known, Predictions({})))
        for name in sorted(tables)
        if name not in baseline.pooled
    ]


def remarks(baseline: Baseline, known: str) -> list[str]:
    """Return what makes FP32's numbers meaningless, a sentence each; none where it is sound.

    >>> from pathlib import Path
    >>> from clipq.gating.baseline import load_baseline
    >>> for remark in remarks(load_baseline(Path("baselines"), "siglip"), "id"):
    ...     print(remark)
    the energy score has an AUROC below 0.5 on digits (0.080), near-ood (0.246): what is out of ...
    """
    found = headlines(baseline, known)
    inside = baseline.predictions.get(known, Predictions({}))
    return [
        *_at_chance(found, known),
        *_indistinct(found),
        *_inverted(found),
        *_miscalibrated(found),
        *_unfitted(inside.scalars.get("temperature")),
    ]


def _headline(name: str, table: Predictions, inside: Predictions) -> Headline:
    held, found = table.columns, Headline(name, len(table))
    if not len(table):
        return found
    units = effective_units(cluster_codes(held.get("cluster"), len(table)), len(table))
    if {"rank", "label", "prediction"} <= set(held):
        return Headline(
            name,
            len(table),
            top1=_share(held["rank"] < 1, units, _chance(held["label"], held["prediction"])),
            ece=_computed("ece", table),
            ts_ece=_computed("ts-ece", table) if "ts_confidence" in held else None,
        )
    if {"i2t_rank", "t2i_1"} <= set(held):
        recall = _share(held["i2t_rank"] < 1, units, 1 / len(table))
        return Headline(name, len(table), recall=recall, text_recall=float(held["t2i_1"].mean()))
    if "mcm" in held:
        pairs = ((score, _auroc(score, table, inside)) for score in _SCORES)
        named = tuple((_NAMES.get(score, score), known) for score, known in pairs if known)
        return Headline(name, len(table), aurocs=named)
    return found


def _share(hits: np.ndarray, units: float, chance: float) -> Known:
    """Return a share with its Wilson score interval, of `units` independent samples."""
    share = float(hits.mean())
    low, high = wilson(share, units)
    return Known(share, low, high, chance)


def wilson(share: float, units: float) -> tuple[float, float]:
    """Return the Wilson score interval (95 %) of a share of independent units.

    >>> [round(end, 4) for end in wilson(0.5, 100)]
    [0.4038, 0.5962]
    """
    spread = _Z * math.sqrt(share * (1 - share) / units + _Z**2 / (4 * units**2))
    centre, scale = share + _Z**2 / (2 * units), 1 + _Z**2 / units
    return (centre - spread) / scale, (centre + spread) / scale


def _chance(labels: np.ndarray, answers: np.ndarray) -> float:
    """Return the share of hits that is expected where answers have nothing to do with labels."""
    return float(sum((labels == c).mean() * (answers == c).mean() for c in np.unique(labels)))


def _auroc(score: str, table: Predictions, inside: Predictions) -> Known | None:
    ours, theirs = inside.columns.get(score), table.columns.get(score)
    if ours is None or theirs is None or min(len(ours), len(theirs)) < 2:
        return None
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    above, below = placements(ours, theirs)
    error = math.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    value = float(above.mean())
    low, high = max(0.0, value - _Z * error), min(1.0, value + _Z * error)
    return Known(value, low, high, 0.5)


def _computed(name: str, table: Predictions) -> float | None:
    try:
        value = metrics.get(name).compute(table)
    except ClipqError:
        return None  # a confidence that is no probability: the metric's own case says so
    return value if math.isfinite(value) else None


def _at_chance(found: Sequence[Headline], known: str) -> Iterator[str]:
    for one in found:
        if one.top1 is not None and one.top1.by_chance:
            so = (
                "check classes, labels, templates and preprocessing"
                if one.probe == known
                else "a quantized model has nothing to lose there"
            )
            yield (
                f"top-1 of {one.probe} is {one.top1}, no better than its answers dealt out at "
                f"random ({one.top1.chance:.3f}): {so}"
            )
        if one.recall is not None and one.recall.by_chance:
            yield (
                f"image-to-text recall at 1 of {one.probe} is {one.recall}, no better than chance "
                f"({one.recall.chance:.2g}): check captions and tokenizer"
            )


def _indistinct(found: Sequence[Headline]) -> Iterator[str]:
    for one in found:
        best = one.best_auroc
        if best is not None and best[1].by_chance:
            yield (
                f"no score tells {one.probe} from what is in distribution: the best AUROC is "
                f"{best[1]} ({best[0]})"
            )


def _inverted(found: Sequence[Headline]) -> Iterator[str]:
    below: dict[str, list[str]] = {}
    for one in found:
        for score, auroc in one.aurocs:
            if auroc.value < 0.5:
                sure = "" if auroc.high < 0.5 else ", not surely"
                below.setdefault(score, []).append(f"{one.probe} ({auroc.value:.3f}{sure})")
    for score, probes in below.items():
        yield (
            f"the {score} score has an AUROC below 0.5 on {', '.join(probes)}: what is out of "
            "distribution looks more familiar to it than what is in"
        )


def _miscalibrated(found: Sequence[Headline]) -> Iterator[str]:
    for one in found:
        if one.ece is None or one.ts_ece is None:
            continue
        noise = SURELY * 0.5 / math.sqrt(one.samples)
        if one.ts_ece > FAR_ABOVE * one.ece and one.ts_ece - one.ece > noise:
            yield (
                f"temperature scaling makes {one.probe} worse: ECE is {one.ece:.3f}, and "
                f"{one.ts_ece:.3f} after it: check that the calibration split has the classes and "
                "labels of the head"
            )


def _unfitted(temperature: float | None) -> Iterator[str]:
    low, high = TEMPERATURE_RANGE
    if temperature is not None and not low * 1.01 < temperature < high / 1.01:
        why = "every" if temperature < 1 else "hardly any"
        yield (
            f"the fitted temperature, {temperature:.3g}, is at the end of its range: {why} answer "
            "on the calibration split is right"
        )
