"""Populations of paired predictions whose true loss is known, to draw simulated gates from.

A population is 200,000 in-distribution and 100,000 out-of-distribution samples with FP32 and
"quantized" cosines: the quantized ones are noisier, shifted and scaled. A gate draws some of them
with replacement, so the population's own value of a metric is the truth.

`population` has the columns of the metrics whose error rates are simulated. `wide_population` has
those of every resampled metric, for half as much time again: cosines to the classes stand for
features, the first samples for the calibration split, classes for captions, every third class for a
band of ranks, and every fifth for the features of an image's one caption.

Kinds: ``plain``, logit scale 20; ``skew``, logit scale 100, so that most confidences are near 1;
``rare``, logit scale 60 and class frequencies that fall with the square of the class number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipq.evaluation.resampling import Tables
from clipq.metrics import Predictions, scores
from clipq.metrics.churn import churn_columns
from clipq.metrics.classify import classification_columns
from clipq.metrics.distances import knn, mahalanobis
from clipq.metrics.retrieval import DEPTHS, captions_kept, cosine_distance
from clipq.metrics.spectra import BANDS
from clipq.metrics.temperature import fit_temperature

__all__ = ["KINDS", "Population", "population", "wide_population"]

KINDS = ("plain", "skew", "rare")
_CLASSES = 20
_SCALES = {"plain": 20.0, "skew": 100.0, "rare": 60.0}
_KNOWN = 100
_LAYERS, _FEW = 50, 50
_HUB = 0.06
_APART = 5


@dataclass(frozen=True, eq=False)
class Population:
    """FP32 and quantized tables of the same samples."""

    fp32: Predictions
    quantized: Predictions
    fp32_ood: Predictions
    quantized_ood: Predictions

    def draw(
        self, samples: int, samples_ood: int, rng: np.random.Generator, *, equal: bool = False
    ) -> dict[str, tuple[Tables, Tables]]:
        """Return (FP32, quantized) tables per probe, ``id`` and ``ood``.

        With `equal`, each sample's two predictions change places with probability 1/2: both models
        then are equally good in every respect, though they disagree as much as before.
        """
        rows = rng.integers(0, len(self.fp32), samples)
        return self._drawn(rows, samples_ood, rng, equal=equal)

    def draw_groups(
        self, sizes: Sequence[int], rng: np.random.Generator, *, equal: bool = False
    ) -> dict[str, tuple[Tables, Tables]]:
        """Return tables of groups of given sizes, equally hard all of them."""
        rows = rng.integers(0, len(self.fp32), sum(sizes))
        names = np.repeat([f"g{number}" for number in range(len(sizes))], sizes)
        return self._drawn(rows, _FEW, rng, equal=equal, group=names)

    def draw_clusters(
        self, clusters: int, members: int, rng: np.random.Generator, *, equal: bool = False
    ) -> dict[str, tuple[Tables, Tables]]:
        """Return tables of clusters whose members err together.

        Samples are ranked by how much the quantized model lost on them, and the ranking is cut in
        `_LAYERS` layers of equal size. Each cluster has a layer of its own, from which half of its
        members come; the others come from anywhere, so a sample is as likely as any other.
        With `equal`, a cluster's predictions change places together.
        """
        order = np.argsort(self.quantized.columns["nll"] - self.fp32.columns["nll"], kind="stable")
        size = len(order) // _LAYERS
        layer = np.repeat(rng.integers(0, _LAYERS, clusters), members)
        own = order[layer * size + rng.integers(0, size, len(layer))]
        rows = np.where(
            rng.random(len(layer)) < 0.5, own, rng.integers(0, _LAYERS * size, len(layer))
        )
        cluster = np.repeat(np.arange(clusters), members)
        return self._drawn(rows, _FEW, rng, equal=equal, cluster=cluster)

    def _drawn(
        self,
        rows: np.ndarray,
        samples_ood: int,
        rng: np.random.Generator,
        *,
        equal: bool,
        **columns: np.ndarray,
    ) -> dict[str, tuple[Tables, Tables]]:
        together = columns.get("cluster", np.arange(len(rows)))
        inside = _pair(self.fp32, self.quantized, rows, _swapped(together, rng, equal), columns)
        others = rng.integers(0, len(self.fp32_ood), samples_ood)
        swapped = _swapped(np.arange(samples_ood), rng, equal)
        outside = _pair(self.fp32_ood, self.quantized_ood, others, swapped, {})
        known = [Tables(table, table) for table in inside]
        other = [Tables(ood, table) for ood, table in zip(outside, inside, strict=True)]
        return {"id": (known[0], known[1]), "ood": (other[0], other[1])}


def population(
    kind: str, *, seed: int, damage: float = 1.0, samples: int = 200_000, samples_ood: int = 100_000
) -> Population:
    """Return a population; `damage` scales how much the quantized predictions differ."""
    drawn = _draw(kind, seed, damage, samples, samples_ood)
    return Population(
        _inside(drawn.fp32, drawn),
        _inside(drawn.quantized, drawn),
        Predictions(_scores(drawn.fp32_ood, drawn.scale)),
        Predictions(_scores(drawn.quantized_ood, drawn.scale)),
    )


def wide_population(kind: str, *, seed: int, samples: int, samples_ood: int) -> Population:
    """Return the same population with the columns of every resampled metric."""
    drawn = _draw(kind, seed, 1.0, samples, samples_ood)
    tables = []
    for cosine, ood in (
        (drawn.fp32, drawn.fp32_ood),
        (drawn.quantized, drawn.quantized_ood),
    ):
        near = _nearness(cosine, drawn.fp32)
        further = near | _retrieval(cosine, drawn.labels) | _distances(cosine, cosine, drawn)
        tables.append(Predictions({**_inside(cosine, drawn).columns, **further}))
        tables.append(Predictions(_scores(ood, drawn.scale) | _distances(ood, cosine, drawn)))
    return Population(tables[0], tables[2], tables[1], tables[3])


@dataclass(frozen=True, eq=False)
class _Cosines:
    """Cosines (N, C) and (M, C), labels (N,), and the logit scale."""

    labels: np.ndarray
    scale: float
    fp32: np.ndarray
    quantized: np.ndarray
    fp32_ood: np.ndarray
    quantized_ood: np.ndarray


def _draw(kind: str, seed: int, damage: float, samples: int, samples_ood: int) -> _Cosines:
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
    gain = 1.0 + 0.1 * damage
    return _Cosines(labels, _SCALES[kind], inside, worse * gain, outside, worse_ood * gain)


def _inside(cosine: np.ndarray, drawn: _Cosines) -> Predictions:
    logits, labels = cosine * drawn.scale, drawn.labels
    held_out = slice(0, 20_000)
    temperature = fit_temperature(logits[held_out], labels[held_out])
    columns = classification_columns(logits, labels, temperature=temperature)
    columns |= {"label": labels, "group": np.where(labels % 5 < 3, "common", "counter")}
    columns |= churn_columns(logits, drawn.fp32 * drawn.scale, labels)
    return Predictions(columns | _scores(cosine, drawn.scale))


def _scores(cosine: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    return {
        "mcm": scores.mcm(cosine),
        "max_logit": scores.max_logit(cosine),
        "energy": scores.energy(cosine),
        "neg_entropy": scores.neg_entropy(cosine * scale),
    }


def _distances(cosine: np.ndarray, known: np.ndarray, drawn: _Cosines) -> dict[str, np.ndarray]:
    known, labels = known[:_KNOWN], drawn.labels[:_KNOWN]
    return {"knn": knn(cosine, known), "mahalanobis": mahalanobis(cosine, known, labels)}


def _nearness(cosine: np.ndarray, fp32: np.ndarray) -> dict[str, np.ndarray]:
    """Return how near to FP32's an image is, and whether its caption, of every fifth class, is."""
    captions = [x[:, ::_APART] for x in (cosine, fp32)]
    return {
        "cosine_distance": cosine_distance(cosine, fp32),
        "captions_kept": captions_kept(*captions, np.arange(len(fp32))),
    }


def _retrieval(cosine: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of retrieval and of bands, each from a part of the classes."""
    rows = np.arange(len(labels))
    nearer = cosine >= cosine[rows, labels][:, None]
    nearer[rows, labels] = False
    halves = [nearer[:, start::2].sum(axis=1) for start in (0, 1)]
    return {
        "i2t_rank": nearer.sum(axis=1),
        "occurrences": (cosine > _HUB).sum(axis=1).astype(np.float64),
        **{f"t2i_{k}": np.mean([rank < k for rank in halves], axis=0) for k in DEPTHS},
        **{
            f"{band}_band_wrong": nearer[:, start :: len(BANDS)].any(axis=1).astype(np.int64)
            for start, band in enumerate(BANDS)
        },
    }


def _swapped(together: np.ndarray, rng: np.random.Generator, equal: bool) -> np.ndarray:
    """Return which samples' predictions change places (N,), a whole cluster's at once."""
    return (rng.random(int(together.max()) + 1) < 0.5)[together] & equal


def _pair(
    first: Predictions,
    second: Predictions,
    rows: np.ndarray,
    swapped: np.ndarray,
    columns: Mapping[str, np.ndarray],
) -> tuple[Predictions, Predictions]:
    tables: list[dict[str, np.ndarray]] = [{"id": np.arange(len(rows))} for _ in range(2)]
    for name in first.columns:
        a, b = first.columns[name][rows], second.columns[name][rows]
        tables[0][name] = np.where(swapped, b, a)
        tables[1][name] = np.where(swapped, a, b)
    return Predictions(tables[0] | columns), Predictions(tables[1] | columns)
