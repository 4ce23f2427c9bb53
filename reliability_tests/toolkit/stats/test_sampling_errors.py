"""Errors in closed form are those of very many resamples; skewness and clusters keep the level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, skew, t, ttest_1samp

from clipq.errors import StatisticsError
from clipq.stats import (
    SamplingError,
    bootstrap_weights,
    changing_share,
    check_units,
    cluster_codes,
    delong,
    effective_units,
    linear_error,
    placements,
    precision_influence,
    ranking,
    skewness_resolution,
    weighted_means,
    weighted_skewness,
)


def test_the_error_of_a_mean_is_that_of_a_t_test():
    values = np.random.default_rng(0).normal(0.2, 1.0, 60)
    found = linear_error([(values, None)])
    theirs = ttest_1samp(values, 0.1, alternative="greater")
    plain = SamplingError(found.standard_error, freedom=found.freedom)
    assert plain.p_value(values.mean(), margin=0.1) == pytest.approx(theirs.pvalue)
    interval, expected = plain.interval(values.mean(), level=0.9), theirs.confidence_interval(0.95)
    assert interval.low == pytest.approx(expected.low)
    assert found.skewness == pytest.approx(skew(values) / math.sqrt(60), rel=0.03)


def test_clusters_have_the_error_of_very_many_resampled_clusters():
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    values = rng.normal(size=40)[codes] + rng.normal(size=len(codes))
    drawn = bootstrap_weights(len(codes), replicates=8000, seed=2, clusters=codes)
    found = linear_error([(values, codes)])
    unbiased = weighted_means(values, drawn).std() * math.sqrt(40 / 39)
    assert found.standard_error == pytest.approx(unbiased, rel=0.04)
    assert found.freedom == pytest.approx(effective_units(codes, len(codes)) - 1)
    assert found.standard_error > 1.5 * linear_error([(values, None)]).standard_error


def test_strata_have_the_freedom_of_welchs_test():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=30), 3 * rng.normal(size=12)
    found = linear_error([(first, None), (second, None)])
    a, b = first.var(ddof=1) / 30, second.var(ddof=1) / 12
    assert found.standard_error == pytest.approx(math.sqrt(a + b))
    assert found.freedom == pytest.approx((a + b) ** 2 / (a**2 / 29 + b**2 / 11))


def test_equal_numbers_have_no_error():
    for codes in (None, np.repeat([0, 1, 2], 2)):
        found = linear_error([(np.full(6, 0.1), codes)])
        assert (found.standard_error, found.skewness) == (0.0, 0.0)
    assert [SamplingError(0.0).p_value(0.1, margin=margin) for margin in (0.1, 0.0)] == [1.0, 0.0]


@pytest.mark.parametrize("third", [-1.2, -0.3, 0.0, 0.2, 1.5])
def test_an_interval_holds_the_margins_that_its_p_values_do_not_reject(third):
    error = SamplingError(0.02, skewness=third, freedom=40)
    found = error.interval(0.1, level=0.95)
    assert error.p_value(0.1, margin=found.low) == pytest.approx(0.025)
    # Skewness may only widen: a loss that surely lies within is as far from failing, or farther.
    assert error.p_value(0.1, margin=found.high) >= 0.975 - 1e-9
    margins = np.linspace(-0.5, 0.7, 200)
    p_values = [error.p_value(0.1, margin=float(margin)) for margin in margins]
    assert (np.diff(p_values) >= 0).all()
    mirrored = SamplingError(0.02, skewness=-third, freedom=40).interval(-0.1, level=0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_without_skewness_it_is_students_t_and_with_many_samples_the_normal():
    assert SamplingError(2.0, freedom=9).p_value(3.0, margin=1.0) == pytest.approx(t.sf(1.0, 9))
    assert SamplingError(2.0).p_value(3.0, margin=1.0) == pytest.approx(norm.sf(1.0))


def test_halls_transformation_is_the_papers():
    # Hall 1992, equation 3.1, for a mean: g(T) + skewness / (6 sqrt(n)); ours with l (1 + l) for l.
    ratio, ours = -1.7, -0.12
    twist = -0.12 * 1.12
    expected = ratio + twist * ratio**2 / 3 + twist**2 * ratio**3 / 27 + twist / 6
    assert SamplingError(1.0, skewness=ours).p_value(ratio, margin=0.0) == pytest.approx(
        norm.sf(expected)
    )


@pytest.mark.parametrize("count", [100, 250])
def test_means_of_a_heavy_tail_pass_seldom_that_lie_at_their_margin(count):
    rng = np.random.default_rng(count)
    corrected = plain = 0
    for _ in range(2000):
        values = rng.lognormal(sigma=1.0, size=count)
        error = linear_error([(values, None)])
        high = error.interval(values.mean(), level=0.95).high
        corrected += high < math.exp(0.5)
        plain += values.mean() + 1.96 * error.standard_error < math.exp(0.5)
    assert plain / 2000 > 0.05
    assert corrected / 2000 < 0.045


def test_auroc_has_delongs_error():
    rng = np.random.default_rng(3)
    first = rng.normal(1, 1, 200).round(1), rng.normal(0, 1, 120).round(1)
    second = first[0] + rng.normal(0, 0.3, 200), first[1] + rng.normal(0, 0.3, 120)
    theirs = delong(first[0], first[1], second[0], second[1])
    a, b = placements(*first), placements(*second)
    found = linear_error([(a[0] - b[0], None), (a[1] - b[1], None)])
    assert found.standard_error == pytest.approx(theirs.standard_error)


def test_average_precision_has_the_influence_of_its_derivatives_by_weight():
    rng = np.random.default_rng(4)
    inside, outside = rng.normal(1, 1, 30).round(1), rng.normal(0, 1, 20).round(1)
    above, below = precision_influence(inside, outside)

    def precision(weights):
        return ranking(inside, outside, weights[:30], weights[30:])["aupr"][0]

    step, influence = 1e-6, np.concatenate([above / 30, below / 20])
    for sample in range(50):
        more = np.ones(50)
        more[sample] += step
        slope = (precision(more) - precision(np.ones(50))) / step
        assert influence[sample] == pytest.approx(slope, abs=1e-5)


def test_average_precision_has_the_error_of_very_many_resamples():
    rng = np.random.default_rng(5)
    inside, outside = rng.normal(1, 1, 400), rng.normal(0, 1, 300)
    noisy = inside + rng.normal(0, 0.3, 400), outside + rng.normal(0, 0.3, 300)
    drawn = (
        bootstrap_weights(400, replicates=4000, seed=1),
        bootstrap_weights(300, replicates=4000, seed=1, stream=1),
    )
    losses = ranking(inside, outside, *drawn)["aupr"] - ranking(*noisy, *drawn)["aupr"]
    a, b = precision_influence(inside, outside), precision_influence(*noisy)
    found = linear_error([(a[0] - b[0], None), (a[1] - b[1], None)])
    assert found.standard_error == pytest.approx(losses.std(), rel=0.06)


def test_a_skewness_is_resolved_by_its_influence_function():
    values = np.random.default_rng(6).exponential(size=400)
    found = skewness_resolution(values)
    # As many independent exchanges as samples have the variance of a whole resample.
    drawn = bootstrap_weights(400, replicates=4000, seed=1)
    assert found * math.sqrt(400) == pytest.approx(weighted_skewness(values, drawn).std(), rel=0.3)
    moved = [weighted_skewness(np.append(values, x), np.ones((1, 401)))[0] for x in values]
    assert np.std(moved) == pytest.approx(found, rel=0.1)
    assert skewness_resolution(np.ones(9)) == 0.0


# -- clusters -------------------------------------------------------------------------------------


def test_clusters_are_counted_at_what_they_are_worth():
    assert cluster_codes(None, 3) is None
    assert cluster_codes(np.array([5, 7, 6]), 3) is None
    assert cluster_codes(np.array(["y", "x", "y"]), 3).tolist() == [1, 0, 1]
    assert effective_units(np.repeat(np.arange(48), 80), 3840) == pytest.approx(48)
    with pytest.raises(StatisticsError, match=r"clusters of shape \(2,\) for 3 samples"):
        cluster_codes(np.array([1, 1]), 3)


def test_too_few_clusters_are_too_few_samples():
    check_units(None, 50, "top1")
    check_units(np.repeat(np.arange(25), 4), 100, "top1")
    with pytest.raises(StatisticsError, match="96 samples of 24 independent clusters"):
        check_units(np.repeat(np.arange(24), 4), 96, "top1")
    with pytest.raises(StatisticsError, match="49 samples are too few"):
        check_units(np.arange(49), 49, "top1")


def test_a_cluster_that_was_never_seen_to_change_may_change_as_a_whole():
    codes = np.repeat(np.arange(4), 5)
    changes = np.zeros(20)
    assert changing_share(changes, codes) == 1.0
    changes[[0, 5, 10]] = 1.0
    assert changing_share(changes, codes) == pytest.approx(math.sqrt((1 + 3 / 25) / 4))
    assert changing_share(np.ones(20), codes) == 1.0


@pytest.mark.parametrize(("samples", "changed"), [(50, 2), (200, 1), (1000, 5)])
def test_a_few_large_differences_of_either_sign_decide_nothing(samples, changed):
    """The true loss is the margin; the skewness that so few show is chance, not evidence."""
    rng = np.random.default_rng(samples)
    passed = failed = 0
    for _ in range(1000):
        signs = rng.choice([-1.0, 1.0], samples) * (rng.random(samples) < changed / samples)
        values = signs + rng.normal(0.0, 0.01, samples)
        error, loss = linear_error([(values, None)]), float(values.mean())
        failed += error.p_value(loss, margin=0.0) <= 0.025
        passed += error.interval(loss, level=0.95).high < 0.0
    assert max(passed, failed) <= 50  # of 1,000, at a nominal 25
