"""The error of a fitted temperature is that of refitting; slopes are those of moving it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from clipq.metrics.temperature import TEMPERATURE_RANGE, fit_temperature
from clipq.metrics.temperature_error import confidence_slope, temperature_influence


def split(size, seed):
    """Logits three times too large for their labels, and a noisy other form's."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (size, 5))
    labels = (
        (rng.random((size, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=4)
    )
    return 3.0 * logits, 2.0 * logits + rng.normal(0.0, 1.0, logits.shape), labels


def test_the_variance_is_that_of_refitting_on_other_splits():
    refitted, stated = [], []
    for seed in range(150):
        ours, theirs, labels = split(120, seed)
        fits = [fit_temperature(logits, labels) for logits in (ours, theirs)]
        influence = [
            temperature_influence(logits, labels, fit)
            for logits, fit in zip((ours, theirs), fits, strict=True)
        ]
        refitted.append(np.log(fits))
        stated.append(np.cov(influence, ddof=0) / len(labels))
    expected, mean = np.cov(np.array(refitted).T), np.mean(stated, axis=0)
    assert mean == pytest.approx(expected, rel=0.25)
    assert mean[0, 1] > 0.5 * mean[0, 0]  # the same labels move both


def test_leaving_a_sample_out_moves_the_fit_by_its_influence():
    logits, _, labels = split(200, seed=0)
    temperature = fit_temperature(logits, labels)
    influence = temperature_influence(logits, labels, temperature)
    for index in np.argsort(-np.abs(influence))[:5]:
        rest = np.delete(np.arange(200), index)
        moved = np.log(fit_temperature(logits[rest], labels[rest]) / temperature)
        assert moved == pytest.approx(-influence[index] / 200, rel=0.1)


def test_at_an_end_of_the_range_nothing_is_known():
    sure = 10.0 * np.eye(3)
    assert fit_temperature(sure, np.arange(3)) == pytest.approx(TEMPERATURE_RANGE[0], rel=1e-4)
    assert np.isinf(temperature_influence(sure, np.arange(3), TEMPERATURE_RANGE[0])).all()


def test_equal_logits_say_nothing_of_a_temperature():
    assert np.isinf(temperature_influence(np.ones((4, 3)), np.zeros(4, int), 1.0)).all()


def test_slopes_are_those_of_moving_the_temperature():
    logits, _, _ = split(50, seed=1)
    step = 1e-6
    at = [softmax(logits / (1.7 * np.exp(h)), axis=1).max(axis=1) for h in (-step, step)]
    assert confidence_slope(logits, 1.7) == pytest.approx((at[1] - at[0]) / (2 * step), abs=1e-6)


def test_a_logit_that_is_no_number_has_no_slope():
    slopes = confidence_slope(np.array([[1.0, np.nan], [2.0, 0.0]]), 1.0)
    assert np.isnan(slopes[0])
    assert slopes[1] < 0
