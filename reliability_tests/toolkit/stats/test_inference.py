"""Intervals, tests and corrections, each against its definition or another implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import bootstrap, norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from clipq.errors import StatisticsError
from clipq.stats import (
    CONDITION,
    Discordance,
    SamplingError,
    adjusted,
    bca_interval,
    bootstrap_weights,
    count_discordant,
    delong,
    jackknife_weights,
    mcnemar,
    percentile_interval,
    ranking,
    score_interval,
    score_z,
    single_step,
    weighted_means,
)

# -- intervals ----------------------------------------------------------------------------------


def test_intervals_agree_with_scipys_bootstrap():
    values = np.random.default_rng(4).lognormal(size=80)
    replicates = weighted_means(values, bootstrap_weights(80, replicates=9000, seed=1))
    left_out = weighted_means(values, jackknife_weights(80, groups=80, seed=1))
    for method, ours in (
        ("percentile", percentile_interval(replicates, level=0.9)),
        ("BCa", bca_interval(values.mean(), replicates, left_out, level=0.9)),
    ):
        theirs = bootstrap(
            (values,), np.mean, n_resamples=9000, method=method, confidence_level=0.9, rng=2
        ).confidence_interval
        assert (ours.low, ours.high) == pytest.approx(theirs, rel=0.03)


def test_an_interval_is_centred_on_the_estimate():
    found = SamplingError(0.1).interval(0.3, level=0.95)
    assert (found.low, found.high) == pytest.approx((0.3 - 0.19600, 0.3 + 0.19600), abs=1e-5)


def test_no_change_among_n_samples_is_not_certainty():
    found = SamplingError(0.0).widened(1 / 500).interval(0.0, level=0.95)
    assert found.high == pytest.approx(2.8 / 500, rel=0.02)
    assert SamplingError(0.0).widened(0.0).standard_error == 0.0


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95])
def test_a_level_is_a_probability(level):
    with pytest.raises(StatisticsError, match="a level of"):
        SamplingError(1.0).interval(0.0, level=level)


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_replicates_are_finite_and_several(values):
    with pytest.raises(StatisticsError, match="replicates of shape"):
        percentile_interval(np.array(values), level=0.9)


# -- paired proportions ---------------------------------------------------------------------------


def score_by_search(worse, better, samples, drop):
    """Tango's statistic with the nuisance probability found by maximising the likelihood."""

    def loss(chance):
        up, down, same = chance, chance + drop, 1 - 2 * chance - drop
        parts = ((better, up), (worse, down), (samples - worse - better, same))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    bounds = (max(0.0, -drop), (1 - drop) / 2)
    chance = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = samples * (2 * chance + drop - drop**2)
    return (worse - better - samples * drop) / math.sqrt(variance)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(90, 400), st.floats(-0.5, 0.5))
def test_the_score_statistic_maximises_the_likelihood(worse, better, samples, drop):
    if abs(drop) < 1e-3:
        return
    found = score_z(Discordance(worse, better, samples), drop)
    assert found == pytest.approx(score_by_search(worse, better, samples, drop), rel=1e-3, abs=1e-3)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 3000), st.floats(0.5, 0.999))
def test_the_interval_ends_where_the_score_test_just_rejects(worse, better, samples, level):
    counts = Discordance(worse, better, samples)
    found = score_interval(counts, level=level)
    z = norm.ppf((1 + level) / 2)
    assert found.low <= counts.drop <= found.high
    assert score_z(counts, found.low) == pytest.approx(z, abs=1e-4)
    assert score_z(counts, found.high) == pytest.approx(-z, abs=1e-4)
    mirrored = score_interval(Discordance(better, worse, samples), level=level)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-6)


def test_without_discordant_samples_the_interval_is_wilsons():
    found = score_interval(Discordance(0, 0, 500), level=0.95)
    z2 = norm.ppf(0.975) ** 2
    assert found.high == pytest.approx(z2 / (500 + z2)) == -found.low


def test_all_samples_changed_one_way():
    assert score_interval(Discordance(50, 0, 50), level=0.95).high == 1.0
    assert score_interval(Discordance(0, 50, 50), level=0.95).low == -1.0


def test_the_score_interval_keeps_its_level_with_few_changes():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(500, [0.012, 0.004, 0.984], size=3000)
    cache = {}
    missed = 0
    for worse, better, _ in counts.tolist():
        key = (worse, better)
        if key not in cache:
            cache[key] = score_interval(Discordance(worse, better, 500), level=0.95)
        missed += not cache[key].low <= 0.008 <= cache[key].high
    assert missed / 3000 < 0.065


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (5, 1), (12, 30), (1, 0)])
def test_mcnemar_equals_statsmodels(worse, better):
    theirs = statsmodels_mcnemar([[50, worse], [better, 30]], exact=True).pvalue
    assert mcnemar(Discordance(worse, better, 100)) == pytest.approx(theirs)


def test_discordant_samples_are_counted_from_outcomes():
    found = count_discordant(np.array([1, 1, 0, 0, 1]), np.array([0, 1, 1, 0, 0]))
    assert found == Discordance(worse=2, better=1, samples=5)
    assert found.drop == pytest.approx(0.2)
    with pytest.raises(StatisticsError, match="not paired"):
        count_discordant(np.ones(3), np.ones(4))
    with pytest.raises(StatisticsError, match="add up"):
        Discordance(5, 6, 10)
    with pytest.raises(StatisticsError, match="no samples"):
        Discordance(0, 0, 0)


# -- areas ----------------------------------------------------------------------------------------


def scores(seed, count=300, others=200):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(1, 1, count), rng.normal(0, 1, others)
    return inside, outside, inside + rng.normal(0, 0.4, count), outside + rng.normal(0, 0.4, others)


def test_delong_equals_its_definition():
    columns = scores(1, 40, 30)

    def kernel(inside, outside):
        return (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)

    first, second = kernel(*columns[:2]), kernel(*columns[2:])
    found = delong(*columns)
    assert (found.first, found.second) == pytest.approx((first.mean(), second.mean()))
    difference = first - second
    variance = difference.mean(1).var(ddof=1) / 40 + difference.mean(0).var(ddof=1) / 30
    assert found.standard_error == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize("seed", range(3))
def test_the_paired_bootstrap_agrees_with_delong(seed):
    columns = scores(seed)
    weights = (
        bootstrap_weights(300, replicates=2000, seed=9),
        bootstrap_weights(200, replicates=2000, seed=9, stream=1),
    )
    replicates = ranking(*columns[:2], *weights)["auroc"] - ranking(*columns[2:], *weights)["auroc"]
    assert replicates.std() == pytest.approx(delong(*columns).standard_error, rel=0.06)


def test_delong_needs_paired_samples_of_both_kinds():
    first, second, third, fourth = scores(0)
    with pytest.raises(StatisticsError, match=r"scores of \[300, 200\] and \[299, 200\]"):
        delong(first, second, third[:-1], fourth)
    with pytest.raises(StatisticsError, match="at least two of each"):
        delong(first[:1], second, third[:1], fourth)


# -- many cases -----------------------------------------------------------------------------------

NAMES = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from(sorted(NAMES)))
def test_corrections_equal_statsmodels(p_values, correction):
    theirs = multipletests(p_values, method=NAMES[correction])[1]
    np.testing.assert_allclose(adjusted(p_values, correction=correction), theirs, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from(sorted(NAMES)))
def test_what_fails_alone_fails_among_all(p_values, correction):
    rate = single_step(0.05, len(p_values), correction=correction)
    alone = np.array(p_values) <= rate
    together = adjusted(p_values, correction=correction) <= 0.05 + 1e-12
    assert not (alone & ~together).any()


def test_no_correction_changes_nothing():
    assert adjusted([0.01, 0.2], correction="none").tolist() == [0.01, 0.2]
    assert single_step(0.025, 1000, correction="none") == 0.025
    assert adjusted([], correction="holm").tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adjusted([0.1, 1.2], correction="holm"), "no probabilities"),
        (lambda: adjusted([math.nan], correction="holm"), "no probabilities"),
        (lambda: adjusted([0.1], correction="bonferroni"), "unknown correction 'bonferroni'"),
        (lambda: single_step(0.05, 0, correction="holm"), "a family of 0 cases"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(StatisticsError, match=message):
        call()


def test_conditioning_sets_aside_what_lies_within_its_margin():
    """By hand: of 0.004, 0.02 and 0.7, two are kept and doubled, then corrected by Holm."""
    found = adjusted([0.7, 0.02, 0.004], correction="conditional")
    np.testing.assert_allclose(found, [1.0, 0.04, 0.016])
    assert adjusted([0.9] * 99 + [0.01], correction="conditional")[-1] == pytest.approx(0.02)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 50))
def test_what_is_not_known_counts_as_what_makes_alarms_hardest(p_values, unknown):
    """At its worst: never an alarm itself, and among those that are kept."""
    worst = [*p_values, *[1.0] * unknown]
    for correction in ("holm", "benjamini-hochberg"):
        np.testing.assert_allclose(
            adjusted(p_values, correction=correction, unknown=unknown),
            adjusted(worst, correction=correction)[: len(p_values)],
        )
    kept = [*p_values, *[CONDITION] * unknown]
    np.testing.assert_allclose(
        adjusted(p_values, correction="conditional", unknown=unknown),
        adjusted(kept, correction="conditional")[: len(p_values)],
    )
