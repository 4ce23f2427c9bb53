"""Intervals over samples and seeds hold as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from seed_coverage import coverage
from study_records import OVER, UNDER

from clipq.study.confidence_bias import confidence_bias
from clipq.study.effects import Effect, Point, Series, difference, mean_of, summarise, total


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("drawn", [0.0, 1.0, 5.0])
def test_intervals_cover_at_least_as_often_as_they_state(seeds, shared, drawn):
    if seeds == 1:
        drawn = 0.0
    found = coverage(seeds=seeds, shared=shared, drawn=drawn, repeats=4000)
    assert found > 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / 4000)
    if seeds == 1:
        assert found < 0.95 + 3.5 * math.sqrt(0.95 * 0.05 / 4000)


def test_without_seeds_the_p_value_is_a_normal_one():
    effect = Effect(0.02, sampling=0.01)
    assert effect.p_above(0.0) == pytest.approx(stats.norm.sf(2.0), rel=1e-6)
    assert effect.p_below(0.03) == pytest.approx(stats.norm.sf(1.0), rel=1e-6)
    low, high = effect.interval(0.01)
    assert effect.p_above(low) == pytest.approx(0.01, rel=1e-6)
    assert effect.p_below(high) == pytest.approx(0.01, rel=1e-6)
    assert Effect(0.0, 0.0).interval() == (0.0, 0.0)
    assert Effect(0.1, 0.0).p_above(0.0) < 1e-12


def test_without_errors_of_samples_it_is_student_s():
    effect = Effect(0.02, sampling=0.0, drawn=0.005**2, seeds=4)
    assert effect.p_above(0.0) == pytest.approx(stats.t.sf(4.0, 3), rel=1e-6)


def test_what_configurations_share_of_a_seed_is_neither_lost_nor_counted_twice():
    """Two quantizers that a seed moves alike differ by a constant, and their mean moves as each."""
    seeds = {seed: Point(value, 0.001) for seed, value in enumerate((0.01, 0.03, 0.08))}
    one = Series(seeds, draws=True)
    other = Series({s: Point(p.value - 0.02, p.error) for s, p in seeds.items()}, draws=True)
    apart, mean = summarise(difference(one, other)), summarise(mean_of([one, other]))
    assert (apart.value, apart.drawn) == (pytest.approx(0.02), pytest.approx(0.0, abs=1e-20))
    assert apart.sampling == pytest.approx(0.002)
    assert mean.drawn == pytest.approx(summarise(one).drawn)
    assert mean.sampling == pytest.approx(0.001)


def test_seeds_that_are_not_common_are_left_out():
    one = Series({0: Point(1.0, 0.0), 1: Point(2.0, 0.0)}, draws=True)
    other = Series({1: Point(1.0, 0.0), 2: Point(5.0, 0.0)}, draws=True)
    assert list(total([(1, one), (-1, other)]).points) == [1]
    assert summarise(difference(one, other)) is None
    assert total([(1, one), (1, Series({7: Point(0.0, 0.0)}, draws=True))]) is None


@pytest.mark.parametrize("bias", [OVER, UNDER, 0.0])
def test_the_bias_of_fp32_is_found_from_its_bins_and_its_interval_is_wide_enough(bias):
    rng = np.random.default_rng(0)
    held, repeats, samples, bins = 0, 200, 600, 15
    for _ in range(repeats):
        confidence = rng.beta(6, 2, samples)
        correct = rng.uniform(size=samples) < np.clip(confidence - bias, 0, 1)
        truth = float((confidence - np.clip(confidence - bias, 0, 1)).mean())
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        counts = np.bincount(place, minlength=bins)
        means = [
            [float(values[place == b].mean()) if counts[b] else None for b in range(bins)]
            for values in (confidence, correct)
        ]
        drawn = {"samples": counts.tolist(), "confidence": means[0], "accuracy": means[1]}
        found = confidence_bias(drawn)
        assert found.value == pytest.approx(confidence.mean() - correct.mean())
        low, high = found.interval()
        held += low <= truth <= high
    assert held / repeats >= 0.92
    exact = np.std(confidence - correct) / math.sqrt(samples)
    assert exact < found.sampling < 1.25 * exact
