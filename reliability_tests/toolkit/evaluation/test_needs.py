"""What a probe lacks for its metrics is said before a run, and is what a run then refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipq.data import Images, Probe, probe_from_images
from clipq.errors import StatisticsError
from clipq.evaluation.cluster_facts import cluster_remarks
from clipq.evaluation.needs import calibration_shortfalls, needs, seen_loss, shortfalls
from clipq.evaluation.resampling import Resampler, Tables
from clipq.metrics import Predictions, metrics
from clipq.settings import StatisticsSettings

TOP1, GROUPS, DETECTION = (metrics.get(n) for n in ("top1", "worst-group-top1", "auroc-mcm"))


def probe(labels: list[int], role: str = "in-distribution", classes: int = 2) -> Probe:
    pixels = np.zeros((len(labels), 4, 4, 3), np.uint8)
    names = tuple(f"c{at}" for at in range(classes))
    given = Images(pixels, labels if role != "ood" else None, names if role != "ood" else ())
    return probe_from_images(given, name="mine", role=role)


def test_nothing_is_said_of_a_probe_that_suffices():
    assert shortfalls(probe([0, 1] * 25), [TOP1]) == []
    assert calibration_shortfalls(probe([0, 1] * 25, "calibration")) == []


@pytest.mark.parametrize("size", [30, 49, 50])
def test_too_few_samples_are_those_that_a_verdict_refuses(size):
    said = shortfalls(probe([0, 1] * (size // 2) + [0] * (size % 2)), [TOP1])
    table = Predictions({"id": np.arange(size), "rank": np.zeros(size, np.int64)})
    tables = Tables(table, table)
    if size < 50:
        assert said == [
            f"{size} samples are too few for a verdict, which takes 50: every case of 1 metric "
            "('top1') will end in an error"
        ]
        with pytest.raises(StatisticsError, match="too few"):
            Resampler(StatisticsSettings()).check(tables, tables, TOP1)
    else:
        assert said == []
        Resampler(StatisticsSettings()).check(tables, tables, TOP1)


def test_clusters_count_once():
    clustered = replace(probe([0, 1] * 150), clusters=tuple(str(at // 10) for at in range(300)))
    assert list(cluster_remarks(clustered)) == []
    independent = seen_loss(probe([0, 1] * 150), StatisticsSettings())
    assert seen_loss(clustered, StatisticsSettings()) == pytest.approx(independent * 10**0.5)


@pytest.mark.parametrize("clusters", [None, 24, 25])
def test_no_margin_is_named_where_no_verdict_is_given(clusters):
    size = 49 if clusters is None else 24 * 25
    few = probe([0, *[1] * (size - 1)])
    if clusters is not None:
        names = (np.arange(size) * clusters // size).astype(str).tolist()
        few = replace(few, clusters=tuple(names))
    said = [*shortfalls(few, [TOP1]), *cluster_remarks(few)]
    refused = any("too few for a verdict" in one and "end in an error" in one for one in said)
    assert (seen_loss(few, StatisticsSettings()) is None) is refused is (clusters != 25)


def test_classes():
    (said,) = shortfalls(probe([0] * 60, classes=1), [TOP1])
    assert said.startswith("one class is no classification")
    narrowed = replace(probe([0, 1] * 30), classnames=("c0", "c1", "c2"))
    said = shortfalls(narrowed, [TOP1, metrics.get("top5")])
    assert said == [
        "3 classes: top5 is always 1",
        "no sample of 1 class ('c2'): only wrong answers can name it",
    ]


def test_groups():
    grouped = replace(probe([0, 1] * 50), groups=("a",) * 100)
    (said,) = shortfalls(grouped, [GROUPS])
    assert "all samples are of group 'a'" in said
    small = replace(grouped, groups=("a",) * 80 + ("b",) * 16 + ("",) * 4)
    nameless, few = shortfalls(small, [GROUPS])
    assert nameless == "4 samples name no group: together they are one group more"
    assert "2 groups ('', 'b') below 50 samples" in few
    assert "one of the 4 of '' is worth 0.25 of worst-group-top1" in few
    assert shortfalls(small, [TOP1]) == []  # whose value no group decides


def test_detection_needs_both_kinds():
    outside = probe([0] * 60, "ood")
    (said,) = shortfalls(outside, [DETECTION], probe([0, 1] * 20))
    assert "contrasted with 'mine', whose 40 samples are too few" in said
    assert shortfalls(outside, [DETECTION], probe([0, 1] * 25)) == []


def test_ranks_that_few_images_do_not_have():
    few = probe([0, 1] * 32)
    (said,) = shortfalls(few, [metrics.get("top1-high"), metrics.get("top1-low")])
    assert "64 samples span fewer than 64 directions" in said
    assert "top1-high look" in said


def test_a_probe_that_no_metric_is_computed_on():
    assert "no metric is computed" in shortfalls(probe([0, 1] * 30), [])[0]


def test_a_small_calibration_split():
    said = calibration_shortfalls(probe([0, 0, 0, 0, 1], "calibration"))
    assert len(said) == 3
    assert "ts-ece" in said[0]
    assert "10th nearest" in said[1]
    assert "1 class ('c1') of one sample" in said[2]
    assert calibration_shortfalls(probe([0] * 60, "calibration")) == [
        "all samples are of one class: a temperature cannot be told from it"
    ]


def test_every_metric_states_what_it_needs():
    stated = {name: needs(metrics.get(name)) for name in metrics.names()}
    assert all(one.samples == 50 and one.data for one in stated.values())
    assert {name for name, one in stated.items() if "groups" in one.data} == {
        name for name in stated if metrics.get(name).needs_groups
    }
    without_labels = {name for name, one in stated.items() if one.data == ("images",)}
    assert {"flip-rate", "kl-to-fp32", "sqnr", "effective-rank", "tail-energy"} <= without_labels
    assert not without_labels & {"top1", "nll", "ece", "top1-high", "classwise-ece"}
    needing = {name for name, one in stated.items() if "calibration" in " ".join(one.data)}
    assert {"ts-ece", "temperature-log-ratio", "auroc-knn", "fpr95-mahalanobis"} <= needing
    assert "ece" not in needing
