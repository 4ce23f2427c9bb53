"""Populations of paired predictions whose true loss is known, to draw simulated gates from.

A population is 200,000 in-distribution and 100,000 out-of-distribution samples with FP32 and
"quantized" cosines: the quantized ones are noisier, shifted and scaled. A gate draws some of them
with replacement, so the population's own value of a metric is the truth.

Kinds: ``plain``, logit scale 20; ``skew``, logit scale 100, so that most confidences are near 1;
``rare``, logit scale 60 and class frequencies that fall with the square of the class number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipq.evaluation.resampling import Sample
from clipq.metrics import Predictions, scores
from clipq.metrics.churn import churn_columns
from clipq.metrics.classify import classification_columns
from clipq.metrics.temperature import fit_temperature

__all__ = ["KINDS", "Population", "population"]

KINDS = ("plain", "skew", "rare")
_CLASSES = 20
_SCALES = {"plain": 20.0, "skew": 100.0, "rare": 60.0}


@dataclass(frozen=True, eq=False)
class Population:
    """FP32 and quantized tables of the same samples."""

    fp32: Predictions
    quantized: Predictions
    fp32_ood: Predictions
    quantized_ood: Predictions

    def draw(
        self, samples: int, samples_ood: int, rng: np.random.Generator, *, equal: bool = False
    ) -> dict[str, tuple[Sample, Sample]]:
        """Return (FP32, quantized) samples per probe, ``id`` and ``ood``.

        With `equal`, each sample's two predictions change places with probability 1/2: both models
        then are equally good in every respect, though they disagree as much as before.
        """
        inside = _pair(self.fp32, self.quantized, samples, rng, equal)
        outside = _pair(self.fp32_ood, self.quantized_ood, samples_ood, rng, equal)
        known = [Sample(table, table) for table in inside]
        other = [Sample(ood, table) for ood, table in zip(outside, inside, strict=True)]
        return {"id": (known[0], known[1]), "ood": (other[0], other[1])}


def population(
    kind: str, *, seed: int, damage: float = 1.0, samples: int = 200_000, samples_ood: int = 100_000
) -> Population:
    """Return a population; `damage` scales how much the quantized predictions differ."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    frequency = np.ones(_CLASSES)
    if kind == "rare":
        frequency = 1.0 / np.arange(1, _CLASSES + 1) ** 2
    labels = rng.choice(_CLASSES, samples, p=frequency / frequency.sum())
    rows = np.arange(samples)
    inside = rng.normal(0.0, 0.04, (samples, _CLASSES))
    inside[rows, labels] += 0.09 * rng.uniform(0.3, 1.7, samples)
    outside = rng.normal(0.01, 0.045, (samples_ood, _CLASSES))
    worse = inside + rng.normal(0.0, 0.012 * damage, inside.shape)
    worse[rows, labels] -= 0.008 * damage
    worse_ood = outside + rng.normal(0.0, 0.012 * damage, outside.shape) + 0.006 * damage
    gain, scale = 1.0 + 0.1 * damage, _SCALES[kind]
    reference = inside * scale
    return Population(
        _inside(inside, labels, scale, reference),
        _inside(worse * gain, labels, scale, reference),
        _outside(outside, scale),
        _outside(worse_ood * gain, scale),
    )


def _inside(
    cosine: np.ndarray, labels: np.ndarray, scale: float, reference: np.ndarray
) -> Predictions:
    logits = cosine * scale
    held_out = slice(0, 20_000)
    temperature = fit_temperature(logits[held_out], labels[held_out])
    columns = classification_columns(logits, labels, temperature=temperature)
    columns |= {"label": labels, "group": np.where(labels % 5 < 3, "common", "counter")}
    return Predictions(columns | churn_columns(logits, reference, labels) | _scores(cosine, logits))


def _outside(cosine: np.ndarray, scale: float) -> Predictions:
    return Predictions(_scores(cosine, cosine * scale))


def _scores(cosine: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "mcm": scores.mcm(cosine),
        "max_logit": scores.max_logit(cosine),
        "energy": scores.energy(cosine),
        "neg_entropy": scores.neg_entropy(logits),
    }


def _pair(
    first: Predictions, second: Predictions, count: int, rng: np.random.Generator, equal: bool
) -> tuple[Predictions, Predictions]:
    index = rng.integers(0, len(first), count)
    swapped = rng.random(count) < 0.5 if equal else np.zeros(count, bool)
    ids = np.arange(count)
    tables: list[dict[str, np.ndarray]] = [{"id": ids}, {"id": ids}]
    for name in first.columns:
        a, b = first.columns[name][index], second.columns[name][index]
        tables[0][name] = np.where(swapped, b, a)
        tables[1][name] = np.where(swapped, a, b)
    return Predictions(tables[0]), Predictions(tables[1])
