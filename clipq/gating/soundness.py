"""Is FP32 itself sound? Its headline numbers per probe, and what makes them meaningless.

A gate compares with FP32, so that a model at chance, with swapped labels or another model's
preprocessing passes every case: it has nothing to lose. Four things are looked for, each against
how well the number is known, at the level of 95 %:

- an accuracy or a recall whose interval includes chance. Chance is what the model's own answers
  would get if they were dealt out to the samples at random, ``sum_c share(label c) * share(answer
  c)``, the expected agreement of Cohen's kappa (1960): a model that always gives one answer is at
  chance, however common the class; of image-to-text recall at 1 it is 1 / images;
- an AUROC below 0.5: what is out of distribution looks more familiar than what is in. Where not
  even the best score's interval lies above 0.5, none tells a thing;
- an ECE that temperature scaling makes worse instead of better: more than `FAR_ABOVE` times as
  large, and larger by more than `SURELY` standard errors of an accuracy (at most 0.5 / sqrt(N), N
  counting what the samples are worth where they come in clusters).
  Calibration labels that are not the head's, for one, look like that;
- a fitted temperature at an end of its range: nothing was calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clipq.errors import ClipqError
from clipq.gating.baseline import Baseline
from clipq.gating.known_numbers import Known, known_auroc, known_share
from clipq.metrics import Predictions, metrics
from clipq.metrics.temperature import TEMPERATURE_RANGE

__all__ = ["FAR_ABOVE", "SURELY", "Headline", "headlines", "remarks"]

FAR_ABOVE = 2.0
SURELY = 3.0
_SCORES = ("mcm", "max_logit", "energy", "neg_entropy", "knn", "mahalanobis")
_NAMES = {"max_logit": "max-logit", "neg_entropy": "entropy"}


@dataclass(frozen=True, slots=True)
class Headline:
    """What FP32 reaches on one probe; None or empty for what is not measured there.

    >>> Headline("id", 100, top1=Known(0.5, 0.4, 0.6, chance=0.1, worth=100)).recall is None
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
    all-corruptions 0.524 [0.472, 0.575]
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
    if {"rank", "label", "prediction"} <= set(held):
        return Headline(
            name,
            len(table),
            top1=known_share(
                held["rank"] < 1, table, chance=_chance(held["label"], held["prediction"])
            ),
            ece=_computed("ece", table),
            ts_ece=_computed("ts-ece", table) if "ts_confidence" in held else None,
        )
    if {"i2t_rank", "t2i_1"} <= set(held):
        recall = known_share(held["i2t_rank"] < 1, table, chance=1 / len(table))
        return Headline(name, len(table), recall=recall, text_recall=float(held["t2i_1"].mean()))
    if "mcm" in held:
        pairs = ((score, known_auroc(score, table, inside)) for score in _SCORES)
        named = tuple((_NAMES.get(score, score), known) for score, known in pairs if known)
        return Headline(name, len(table), aurocs=named)
    return found


def _chance(labels: np.ndarray, answers: np.ndarray) -> float:
    """Return the share of hits that is expected where answers have nothing to do with labels."""
    return float(sum((labels == c).mean() * (answers == c).mean() for c in np.unique(labels)))


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
                f"top-1 of {one.probe} is {one.top1}, {_how(one.top1)} better than its answers "
                f"dealt out at random ({one.top1.chance:.3f}): {so}"
            )
        if one.recall is not None and one.recall.by_chance:
            yield (
                f"image-to-text recall at 1 of {one.probe} is {one.recall}, {_how(one.recall)} "
                f"better than chance ({one.recall.chance:.2g}): check captions and tokenizer"
            )


def _how(known: Known) -> str:
    return "no" if known.value <= known.chance else "not surely"


def _indistinct(found: Sequence[Headline]) -> Iterator[str]:
    for one in found:
        best = one.best_auroc
        if best is not None and best[1].by_chance:
            surely = "" if best[1].value <= 0.5 else "surely "
            yield (
                f"no score {surely}tells {one.probe} from what is in distribution: the best AUROC "
                f"is {best[1]} ({best[0]})"
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
        if one.top1 is None or one.ece is None or one.ts_ece is None:
            continue
        noise = SURELY * 0.5 / math.sqrt(one.top1.worth)
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
