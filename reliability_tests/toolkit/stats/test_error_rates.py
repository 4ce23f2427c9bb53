"""Error rates by simulation, seeded and of moderate size; benchmarks/error_rates.py has the rest.

2,000 gates per setting are in the benchmark; with 60, a rate of 5 % is known to +- 8.5 points per
metric, and to +- 2 over all metrics together.
"""

from __future__ import annotations

import numpy as np
import pytest
from error_rates import (
    MEANS,
    UNEVEN,
    clusters_of,
    detection,
    false_alarms,
    groups_of,
    samples_of,
    sized,
)

from clipq.settings import StatisticsSettings

ALPHA = StatisticsSettings().alpha
GATES = 60


@pytest.fixture(scope="module")
def people():
    return sized("skew", 20_000, 1)


@pytest.mark.parametrize("equal", [False, True])
def test_null_pairs_are_seldom_judged_wrongly(people, equal):
    found = false_alarms(people, samples_of(500), GATES, equal=equal, seed=1)
    _seldom_wrong(found, GATES)
    slack = 3 * np.sqrt(ALPHA * (1 - ALPHA) / GATES)
    assert (found["covered"] >= 1 - ALPHA - slack).all()


def test_skewed_means_of_few_samples_pass_seldom_that_lie_at_their_margin(people):
    found = false_alarms(people, samples_of(100, MEANS), 200, equal=False, seed=2)
    _seldom_wrong(found, 200)


def test_clustered_samples_are_seldom_judged_wrongly(people):
    _seldom_wrong(false_alarms(people, clusters_of(30), 80, equal=False, seed=3), 80)


def test_few_clusters_are_refused(people):
    found = false_alarms(people, clusters_of(10), 2, equal=False, seed=3)
    assert (found["refused"] == 1.0).all()


@pytest.mark.parametrize("sizes", UNEVEN[:1])
def test_uneven_groups_are_seldom_judged_wrongly(people, sizes):
    _seldom_wrong(false_alarms(people, groups_of(sizes), 30, equal=False, seed=4), 30)


def _seldom_wrong(found, gates):
    wrong = found["passed"] + found["failed"]
    slack = 3 * np.sqrt(ALPHA * (1 - ALPHA) / gates)
    assert (wrong <= ALPHA + slack).all(), dict(zip(found["names"], wrong, strict=True))
    assert wrong.mean() <= ALPHA
    assert found["any_fail"] <= ALPHA / 2 + 3 * np.sqrt(ALPHA / 2 / gates)


def test_twice_the_margin_fails_at_the_promised_number_of_samples():
    rows = detection("skew", 60, only=("top1", "nll", "brier", "auroc-max-logit"))
    assert len(rows) == 4
    rates = [rate for *_, rate, reason in rows if not reason]
    assert len(rates) == 4
    assert np.mean(rates) >= 0.95
    assert min(rates) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 60)
