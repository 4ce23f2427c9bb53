"""What a metric needs of a probe, and what a probe lacks for its metrics: said before a run.

A verdict refuses what is too few (`clipq.stats.check_units`), and some values say nothing of a
small probe: one of five guesses among five classes is always right. All of that follows from the
probe alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clipq.data import SMALLEST_GROUP, Probe
from clipq.metrics import Metric
from clipq.metrics.distances import NEIGHBOURS
from clipq.metrics.retrieval import DEPTHS
from clipq.metrics.spectra import BANDS
from clipq.settings import StatisticsSettings
from clipq.stats import (
    MINIMUM_CLUSTERS,
    MINIMUM_SAMPLES,
    cluster_codes,
    effective_units,
    minimum_detectable_effect,
)

__all__ = ["Needs", "calibration_shortfalls", "needs", "seen_loss", "shortfalls"]

_UNLABELLED = ("agrees", "kl", "top2_gap_loss", "cosine_distance")
"""Columns that compare with FP32 and ask for no right answer."""
_OF_CALIBRATION = ("ts_confidence", "knn", "mahalanobis")
_OF_FEATURES = ("_energy", "_db", "effective_rank", "zero_fraction")
_HIGH_RANKS = ("sqnr-high", "top1-high", "tail-energy")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a metric needs: kinds of data, and how many samples, clusters and group members.

    >>> print(Needs(("labels", "groups"), group=10))
    labels, groups of 10; 50 samples
    """

    data: tuple[str, ...]
    samples: int = MINIMUM_SAMPLES
    clusters: int = MINIMUM_CLUSTERS
    group: int = 0

    def __str__(self) -> str:
        said = [
            f"groups of {self.group}" if what == "groups" and self.group else what
            for what in self.data
        ]
        return f"{', '.join(said)}; {self.samples} samples"


def needs(metric: Metric) -> Needs:
    """Return what a metric needs of the probe that it is computed on.

    Clusters count where the probe has some: samples that belong together count once.

    >>> from clipq.metrics import metrics
    >>> for name in ("ece", "flip-rate", "worst-group-top1", "i2t-recall-5", "auroc-knn"):
    ...     print(f"{name}: {needs(metrics.get(name))}")
    ece: labels; 50 samples
    flip-rate: images; 50 samples
    worst-group-top1: labels, groups of 10; 50 samples
    i2t-recall-5: captions; 50 samples
    auroc-knn: images in and out of distribution, calibration split; 50 samples
    """
    statistic = metric.statistic
    read = (*statistic.columns, statistic.scalar) if statistic is not None else ()
    if metric.score:
        data = ["images in and out of distribution"]
    elif metric.roles == {"retrieval"}:
        data = ["captions"]
    elif any(name in _UNLABELLED or name.endswith(_OF_FEATURES) for name in read):
        data = ["images"]
    else:
        data = ["labels"]
    if metric.needs_groups:
        data.append("groups")
    if {metric.score, *read} & {*_OF_CALIBRATION} or "temperature" in "".join(read):
        labelled = "labelled " if metric.score != "knn" else ""
        data.append(f"{labelled}calibration split")
    return Needs(tuple(data), group=SMALLEST_GROUP if metric.needs_groups else 0)


def seen_loss(probe: Probe, statistics: StatisticsSettings) -> float | None:
    """Return the smallest margin of accuracy that a harmless quantizer passes with the set power.

    None where no verdict is given at all: below 50 samples, or clusters worth fewer than 25.

    It is taken to change the answer of a share of the samples, `disagreement`, at random: its
    paired loss has a standard error of ``sqrt(disagreement / N)``, with N the samples, or the
    clusters that they come in. `clipq power` says more once there is a baseline.

    >>> from clipq.data import Images, probe_from_images
    >>> probe = probe_from_images(Images(np.zeros((100, 8, 8, 3), np.uint8)), name="n", role="ood")
    >>> round(seen_loss(probe, StatisticsSettings(disagreement=0.01)), 3)  # 3.6 * 0.01
    0.036
    """
    units = _units(probe)
    if len(probe) < MINIMUM_SAMPLES or units < MINIMUM_CLUSTERS - 1e-6:
        return None
    error = float(np.sqrt(statistics.disagreement / units))
    return minimum_detectable_effect(error, tail=statistics.tail, power=statistics.power)


def shortfalls(probe: Probe, chosen: Sequence[Metric], known: Probe | None = None) -> list[str]:
    """Return what will go wrong or say nothing in metrics of a probe, a sentence each.

    What is to be said of its clusters, `cluster_remarks` says.

    Args:
        probe: any but the calibration split.
        chosen: metrics that are computed on it.
        known: the in-distribution probe, for those that contrast the two.
    """
    found = [*_too_few(probe, chosen), *_of_classes(probe, chosen), *_of_groups(probe, chosen)]
    names = {metric.name for metric in chosen}
    ranks = BANDS["high"][0]
    if len(probe) <= ranks and (high := [name for name in _HIGH_RANKS if name in names]):
        found.append(
            f"{len(probe)} samples span fewer than {ranks} directions: nothing is in the ranks "
            f"that {', '.join(high)} look at"
        )
    shallow = [k for k in DEPTHS if k >= len(probe)]
    if probe.role == "retrieval" and shallow:
        asked = " and ".join(f"recall at {k}" for k in shallow)
        found.append(f"{len(probe)} images: {asked} is always 1")
    if probe.role == "ood" and known is not None and len(known) < MINIMUM_SAMPLES:
        found.append(
            f"it is contrasted with {known.name!r}, whose {len(known)} samples are too few for a "
            f"verdict, which takes {MINIMUM_SAMPLES}"
        )
    return found


def calibration_shortfalls(probe: Probe) -> list[str]:
    """Return what a calibration split is too small for, a sentence each."""
    found = []
    counts = Counter(probe.labels.tolist())
    if len(probe) < MINIMUM_SAMPLES:
        found.append(
            f"{len(probe)} samples: the temperature, and so ts-ece, hangs on few answers, and a "
            f"verdict on temperature-log-ratio takes {MINIMUM_SAMPLES}: its cases will end in an "
            "error"
        )
    if len(probe) < NEIGHBOURS:
        found.append(
            f"{len(probe)} samples: the *-knn metrics look at the {NEIGHBOURS}th nearest, and fall "
            "back on the farthest there is"
        )
    alone = [probe.classnames[label] for label, count in sorted(counts.items()) if count == 1]
    if alone and len(counts) > 1:
        found.append(
            f"{_listed(alone, 'class')} of one sample: its mean, which the *-mahalanobis metrics "
            "measure from, is that sample"
        )
    if len(counts) == 1:
        found.append("all samples are of one class: a temperature cannot be told from it")
    return found


def _too_few(probe: Probe, chosen: Sequence[Metric]) -> Iterator[str]:
    if not chosen:
        yield f"no metric is computed on it: no metric of role {probe.role!r} is asked for"
        return
    short = [metric.name for metric in chosen if len(probe) < needs(metric).samples]
    if short:
        yield (
            f"{len(probe)} samples are too few for a verdict, which takes {MINIMUM_SAMPLES}: every "
            f"case of {_listed(short, 'metric')} will end in an error"
        )


def _of_classes(probe: Probe, chosen: Sequence[Metric]) -> Iterator[str]:
    if probe.role in ("ood", "retrieval"):
        return
    classes = len(probe.classnames)
    names = {metric.name for metric in chosen}
    if classes == 1:
        yield (
            "one class is no classification: every answer is right, every confidence 1, and MCM "
            "scores all images alike"
        )
    elif classes <= 5 and "top5" in names:
        yield f"{classes} classes: top5 is always 1"
    absent = [
        name
        for at, name in enumerate(probe.classnames)
        if at not in set(np.unique(probe.labels).tolist())
    ]
    if absent:
        yield f"no sample of {_listed(absent, 'class')}: only wrong answers can name it"


def _of_groups(probe: Probe, chosen: Sequence[Metric]) -> Iterator[str]:
    grouped = [metric.name for metric in chosen if metric.needs_groups]
    if not grouped or not any(probe.groups):
        return
    sizes = Counter(probe.groups)
    if len(sizes) == 1:
        yield (
            f"all samples are of group {probe.groups[0]!r}: {_listed(grouped, 'metric')} "
            "compare groups, and will end in an error"
        )
        return
    if nameless := sizes.get("", 0):
        yield f"{nameless:,} samples name no group: together they are one group more"
    small = sorted((count, name) for name, count in sizes.items() if count < MINIMUM_SAMPLES)
    if small:
        members, name = small[0]
        yield (
            f"{_listed([name for _, name in small], 'group')} below {MINIMUM_SAMPLES} samples: one "
            f"of the {members} of {name!r} is worth {1 / members:.2g} of {', '.join(grouped[:2])}"
        )


def _units(probe: Probe) -> float:
    clusters = None if probe.clusters is None else np.asarray(probe.clusters)
    return effective_units(cluster_codes(clusters, len(probe)), len(probe))


def _listed(names: Sequence[str], what: str) -> str:
    """Return names for a sentence, the first three and how many there are.

    >>> _listed(["a", "b"], "class"), _listed(["a", "b", "c", "d"], "metric")
    ("2 classes ('a', 'b')", "4 metrics ('a', 'b', 'c' ...)")
    """
    plural = {"class": "classes"}.get(what, f"{what}s")
    quoted = ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} {plural if len(names) > 1 else what} ({quoted})"
