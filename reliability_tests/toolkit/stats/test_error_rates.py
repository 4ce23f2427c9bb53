"""Error rates by simulation, seeded and of moderate size; benchmarks/error_rates.py has the rest.

2,000 gates per setting are in the benchmark; with 150, a rate of 5 % is known to +- 5 points per
metric, and to +- 1.5 over all metrics together.
"""

from __future__ import annotations

import numpy as np
import pytest
from error_rates import detection, false_alarms

from clipq.settings import StatisticsSettings

ALPHA = StatisticsSettings().alpha
GATES = 150


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("kind", ["skew", "rare"])
def test_null_pairs_are_seldom_judged_wrongly(kind, equal):
    _seldom_wrong(false_alarms(kind, 500, GATES, equal=equal, seed=1, suite=False), GATES)


def test_null_pairs_of_the_wider_suite_are_seldom_judged_wrongly():
    _seldom_wrong(false_alarms("plain", 500, 60, equal=True, seed=2, suite=True), 60)


def _seldom_wrong(found, gates):
    wrong = found["passed"] + found["failed"]
    slack = 3 * np.sqrt(ALPHA * (1 - ALPHA) / gates)
    assert (wrong <= ALPHA + slack).all(), dict(zip(found["names"], wrong, strict=True))
    assert wrong.mean() <= ALPHA
    assert found["any_fail"] <= ALPHA / 2 + 3 * np.sqrt(ALPHA / 2 / gates)
    assert (found["covered"] >= 1 - ALPHA - slack).all()


def test_twice_the_margin_fails_at_the_promised_number_of_samples():
    rows = detection("skew", 60, only=("top1", "nll", "brier", "auroc-max-logit"))
    assert len(rows) == 4
    rates = [rate for *_, rate, reason in rows if not reason]
    assert len(rates) == 4
    assert np.mean(rates) >= 0.95
    assert min(rates) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 60)
