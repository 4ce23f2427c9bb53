"""Losses have their error in closed form where one is known, else from as many draws as needed."""

from __future__ import annotations

import numpy as np
import pytest
from pair_evidence import evidence

from clipq.errors import StatisticsError
from clipq.evaluation.closed_forms import closed_form
from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.loss_estimator import LossEstimator
from clipq.metrics import Predictions, metrics
from clipq.settings import StatisticsSettings

SETTINGS = StatisticsSettings(replicates=100)
COUNT = 400


def pair(seed=0, **columns):
    """Tables of FP32 and of a model that is a little worse, in and out of distribution."""
    rng = np.random.default_rng(seed)
    sure, right = rng.uniform(0.2, 0.9, COUNT), rng.uniform(size=COUNT) < 0.8
    tables = []
    for noise in (0.0, 0.05):
        known = {
            "id": np.arange(COUNT),
            "confidence": np.clip(sure + rng.normal(0.02, 1.0, COUNT) * noise, 0.0, 1.0),
            "correct": (right & (rng.uniform(size=COUNT) > noise)).astype(int),
            "nll": rng.exponential(0.5 + noise, COUNT),
            "mcm": rng.normal(1.0, 1.0, COUNT) + noise,
            "t2i_1": rng.integers(0, 6, COUNT) / 5,
            "occurrences": rng.poisson(10.0, COUNT).astype(float),
        }
        other = {"id": np.arange(200), "mcm": rng.normal(0.0, 1.0, 200)}
        tables.append(Tables(Predictions(other), Predictions(known | columns)))
    return tables


class Counting(Resampler):
    """Notes which pieces of replicates were asked for."""

    def __init__(self, settings):
        super().__init__(settings)
        self.pieces = []

    def replicates(self, metric, tables, *, piece=0):
        self.pieces.append(piece)
        return super().replicates(metric, tables, piece=piece)


def estimated(case, margin, settings=SETTINGS):
    resampler = Counting(settings)
    loss = case.metric.loss(case.baseline, case.observed)
    found = LossEstimator(settings, resampler)(case, loss, margin=margin)
    return found, 1 + max(resampler.pieces, default=-1)


@pytest.mark.parametrize("name", ["nll", "t2i-recall-1", "confidence-gap", "auroc-mcm", "aupr-mcm"])
def test_a_closed_form_is_the_error_of_very_many_resamples(name):
    case = evidence(name, *pair())
    found = closed_form(case.metric, case.baseline_tables, case.observed_tables)
    many = Resampler(StatisticsSettings(replicates=4000))
    losses = case.metric.loss(
        *(many.replicates(case.metric, t) for t in (case.baseline_tables, case.observed_tables))
    )
    assert found.standard_error == pytest.approx(losses.std(), rel=0.07)
    _, pieces = estimated(case, case.observed)
    assert pieces == 0  # nothing was drawn


def test_a_gap_near_zero_is_resampled():
    first, second = pair()
    even = first.in_distribution.column("correct").mean()
    flat = Predictions(second.in_distribution.columns | {"confidence": np.full(COUNT, even)})
    case = evidence("confidence-gap", Tables(flat, flat), second)
    assert closed_form(case.metric, case.baseline_tables, case.observed_tables) is None


def test_more_replicates_are_drawn_only_where_a_line_is_near():
    case = evidence("ece", *pair())
    first, pieces = estimated(case, 1.0)
    assert pieces == 1
    near, pieces = estimated(case, first.high)
    assert pieces == 16
    assert near.standard_error == pytest.approx(first.standard_error, rel=0.2)


def test_verdicts_near_a_line_move_less_between_seeds():
    case = evidence("ece", *pair())
    margin = estimated(case, 1.0)[0].high
    seeds = [StatisticsSettings(replicates=100, seed=seed) for seed in range(8)]
    first = [estimated(case, 1.0, settings)[0].standard_error for settings in seeds]
    staged = [estimated(case, margin, settings)[0].standard_error for settings in seeds]
    assert np.std(staged) < 0.6 * np.std(first)


def test_pieces_extend_the_same_draws():
    table = pair()[0].in_distribution
    tables = Tables(table, table)
    whole = Resampler(StatisticsSettings(replicates=200)).replicates(metrics.get("ece"), tables)
    parts = Resampler(SETTINGS)
    pieces = [parts.replicates(metrics.get("ece"), tables, piece=piece) for piece in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("name", ["t2i-recall-1", "hubness", "ece"])
def test_no_change_is_not_certainty(name):
    first, _ = pair()
    found, _ = estimated(evidence(name, first, first), 0.5)
    assert found.loss == 0.0
    assert found.low < 0.0 < found.high


def test_resamples_without_a_value_are_one_clear_message():
    groups = np.repeat(["common", "counter"], [5, COUNT - 5])
    right = np.ones(COUNT, int)
    right[1:5] = 0  # one right answer in the group that all is relative to
    first, second = pair(group=groups, correct=right)
    with pytest.raises(
        StatisticsError, match=r"'relative-gap': \d+ of 100 resamples have no value"
    ):
        estimated(evidence("relative-gap", first, second), 0.05)
