"""One loss, one estimate."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from clipq.estimate import NOTHING_ESTIMATED, Estimate, loss, number


@pytest.mark.parametrize(
    ("direction", "baseline", "observed", "expected"),
    [
        ("higher", 0.9, 0.7, 0.2),
        ("lower", 0.9, 0.7, -0.2),
        ("zero", -0.1, 0.3, 0.2),
        ("zero", 0.3, -0.1, -0.2),
    ],
)
def test_a_loss_is_positive_where_it_is_worse(direction, baseline, observed, expected):
    assert loss(direction, baseline, observed) == pytest.approx(expected)
    arrays = np.full(3, baseline), np.full(3, observed)
    assert loss(direction, *arrays) == pytest.approx(np.full(3, expected))


def test_only_finite_built_in_numbers_leave_an_estimate():
    odd = Estimate(loss=np.float32(0.5), low=-math.inf, high=math.nan, samples_needed=7)
    strict = odd.finite()
    assert strict == Estimate(loss=0.5, samples_needed=7)
    assert type(strict.loss) is float
    assert json.loads(json.dumps(strict.to_plain(), allow_nan=False))["low"] is None


def test_an_interval_has_both_bounds_or_is_none():
    assert Estimate(low=0.0, high=0.5).interval == (0.0, 0.5)
    assert Estimate(low=0.0).interval is None
    assert NOTHING_ESTIMATED.interval is None


def test_a_loss_counts_in_margins():
    assert Estimate(loss=0.03, margin=0.02).margins == pytest.approx(1.5)
    assert Estimate(loss=0.03, margin=0.0).margins is None
    assert Estimate(margin=0.02).margins is None


def test_what_is_not_finite_is_no_number():
    assert [number(x) for x in (None, math.nan, math.inf, 1)] == [None, None, None, 1.0]
