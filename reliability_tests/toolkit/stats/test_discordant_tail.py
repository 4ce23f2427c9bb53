"""The far tail of paired proportions is exact; the score test's is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, multinomial, norm

from clipq.stats import (
    Discordance,
    discordance_p_value,
    estimated_p_value,
    score_z,
)
from clipq.stats.discordant import restricted_chance

LEVELS = (1e-3, 1e-4, 1e-5)


def outcomes(samples):
    return [
        Discordance(worse, better, samples)
        for worse in range(samples + 1)
        for better in range(samples + 1 - worse)
    ]


def probabilities(samples, chance, drop):
    cells = [chance + drop, chance, 1.0 - 2 * chance - drop]
    counts = [[o.worse, o.better, samples - o.worse - o.better] for o in outcomes(samples)]
    return multinomial.pmf(counts, samples, cells)


@pytest.mark.parametrize(
    ("worse", "better", "samples", "drop"),
    [
        (9, 0, 40, 0.0),
        (12, 2, 40, 0.03),
        (3, 8, 40, -0.1),
        (5, 5, 30, 0.05),
        (0, 0, 30, 0.0),
        (30, 0, 30, 0.5),
        (0, 30, 30, -0.5),
        (3, 0, 3, 0.0),
        (20, 0, 20, 1.0),
    ],
)
def test_it_is_the_sum_over_all_outcomes_that_are_as_extreme(worse, better, samples, drop):
    counts = Discordance(worse, better, samples)
    observed = score_z(counts, drop)
    extreme = np.array([score_z(o, drop) >= observed - 1e-9 for o in outcomes(samples)])
    chances = probabilities(samples, restricted_chance(counts, drop), drop)
    assert estimated_p_value(counts, drop) == pytest.approx(chances[extreme].sum(), rel=1e-9)


@pytest.mark.parametrize(("chance", "drop"), [(0.0, 0.01), (0.0005, 0.01)])
def test_small_p_values_are_no_more_frequent_than_they_say(chance, drop):
    samples, exact, score = 2048, dict.fromkeys(LEVELS, 0.0), dict.fromkeys(LEVELS, 0.0)
    for better in range(12 if chance else 1):
        for worse in range(80):
            counts = Discordance(worse, better, samples)
            approximate = norm.sf(score_z(counts, drop))
            if approximate > 0.01:
                continue
            p_value = discordance_p_value(counts, drop)
            likely = binom.pmf(better, samples, chance) * binom.pmf(
                worse, samples - better, (chance + drop) / (1.0 - chance)
            )
            for level in LEVELS:
                exact[level] += likely * (p_value <= level)
                score[level] += likely * (approximate <= level)
    assert all(rate <= 1.05 * level for level, rate in exact.items())
    assert score[1e-5] > 3e-5  # what it is there for


def test_it_falls_as_more_samples_get_worse_across_the_border_too():
    p_values = [discordance_p_value(Discordance(worse, 5, 800), 0.01) for worse in range(80)]
    assert (np.diff(p_values) <= 0).all()
    assert p_values[0] > 0.5
    assert p_values[-1] < 1e-9


def test_above_the_border_it_is_the_score_tests():
    counts = Discordance(worse=20, better=10, samples=1000)
    assert discordance_p_value(counts, 0.005) == pytest.approx(norm.sf(score_z(counts, 0.005)))
