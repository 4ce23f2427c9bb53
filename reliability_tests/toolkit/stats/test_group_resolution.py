"""What one sample is worth in a statistic of groups, against changing it by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.verdict import Evidence
from clipq.metrics import Predictions, metrics
from clipq.settings import StatisticsSettings
from clipq.statistic_kinds import KINDS
from clipq.stats import group_resolution

NAMES = {
    "group-min": "worst-group-top1",
    "group-range": "group-top1-range",
    "group-std": "group-top1-std",
    "group-ece-range": "group-ece-range",
    "group-tpr-range": "group-tpr-range",
    "relative-gap": "relative-gap",
    "added-vulnerability": "added-vulnerability",
    "corruption-error": "corruption-error",
}


def table(groups, seed=0):
    rng = np.random.default_rng(seed)
    count = len(groups)
    return {
        "group": groups,
        "label": rng.integers(0, 3, count),
        "correct": (rng.uniform(size=count) < 0.8).astype(int),
        "fp32_correct": (rng.uniform(size=count) < 0.9).astype(int),
        "confidence": rng.uniform(0.3, 1.0, count),
    }


@pytest.mark.parametrize("kind", NAMES)
def test_it_is_what_the_metric_moves_by_when_one_answer_changes(kind):
    groups = np.repeat(["common", "counter"], [60, 90])
    columns = table(groups)
    metric = metrics.get(NAMES[kind])
    before = metric.compute(Predictions(columns))
    cell = np.zeros(len(groups), int)
    if kind == "group-ece-range":
        cell = np.floor(columns["confidence"] * 15).astype(int)
    if kind == "group-tpr-range":
        cell = columns["label"]
    total = 0.0
    for group in ("common", "counter"):
        inside = groups == group
        for part in np.unique(cell[inside]):
            effects = [0.0]
            members = np.flatnonzero(inside & (cell == part))
            for value in (0, 1):
                changeable = members[columns["correct"][members] == value]
                if len(changeable):
                    right = columns["correct"].copy()
                    right[changeable[0]] = 1 - value
                    moved = metric.compute(Predictions(columns | {"correct": right}))
                    effects.append(abs(moved - before))
            total += len(members) / inside.sum() * max(effects) ** 2
    found = group_resolution(kind, {name: columns[name] for name in KINDS[kind].columns}, groups)
    assert found == pytest.approx(math.sqrt(total), rel=1e-9)
    assert found > 0


def test_a_mean_over_groups_moves_by_a_share_of_one_groups_sample():
    groups = np.repeat(list("abcdefghij"), 100)
    right = np.tile(np.repeat([1, 0], [80, 20]), 10)
    right[:20] = 0  # one group differs, so that the deviation does
    found = group_resolution("group-std", {"correct": right}, groups)
    assert found < 1 / 100  # not what one sample is worth in its own group


def test_where_clusters_change_they_change_at_once():
    groups = np.tile(["a", "b"], 200)
    right = {"correct": np.tile([1, 1, 0, 1], 100)}
    clusters = np.repeat(np.arange(20), 20)
    alone = group_resolution("group-range", right, groups)
    together = group_resolution("group-range", right, groups, clusters=clusters)
    half = group_resolution("group-range", right, groups, clusters=clusters, together=0.5)
    assert (together, half) == pytest.approx((10 * alone, 5 * alone))


def judged(name, columns):
    metric = metrics.get(name)
    tables = [Tables(p, p) for p in (Predictions(columns), Predictions(dict(columns)))]
    value = metric.compute(tables[0].predictions)
    settings = StatisticsSettings(replicates=200)
    evidence = Evidence(metric, value, value, 0.05, *tables)
    return LossEstimator(settings, Resampler(settings))(evidence, 0.0, margin=0.05)


def test_a_small_group_that_does_not_decide_leaves_an_identical_model_sure():
    groups = np.repeat(list("abcde"), [500, 500, 500, 500, 5])
    columns = table(groups) | {"correct": np.arange(2005) % 4 > 0}
    columns["correct"][-5:] = True
    found = judged("worst-group-top1", columns)
    assert found.high < 0.02
    assert judged("group-top1-range", columns).high > 0.2  # there it does decide


@pytest.mark.parametrize("name", ["worst-group-top1", "group-top1-range", "group-top1-std"])
def test_a_group_of_one_is_judged_without_being_sure(name):
    groups = np.repeat(["a", "b", "c"], [300, 300, 1])
    columns = table(groups)
    columns["correct"][-1] = 0
    found = judged(name, columns)
    assert found.loss == 0.0
    assert found.high > 0.05
