"""Every replicate equals what the well-kept library says of the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netcal.metrics import ACE, ECE, MCE
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from clipq.errors import StatisticsError
from clipq.stats import (
    binned_errors,
    bootstrap_weights,
    false_positive_rates,
    ranking,
    weighted_means,
)
from clipq.stats.group_replicates import CellSums

NETCAL = {"ece": ECE, "ace": ACE, "mce": MCE}


def drawn(count, others, seed, *, ties=False):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(1.0, 1.0, count), rng.normal(0.0, 1.2, others)
    if ties:
        inside, outside = inside.round(1), outside.round(1)
    return (
        inside,
        outside,
        bootstrap_weights(count, replicates=25, seed=seed),
        bootstrap_weights(others, replicates=25, seed=seed, stream=1),
    )


def by_library(inside, outside, weight_id, weight_ood):
    target = np.repeat([1, 0], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    weight = np.concatenate([weight_id, weight_ood]).astype(float)
    used = weight > 0
    false, true, _ = roc_curve(
        target[used], scores[used], sample_weight=weight[used], drop_intermediate=False
    )
    return {
        "auroc": roc_auc_score(target, scores, sample_weight=weight),
        "aupr": average_precision_score(target, scores, sample_weight=weight),
        "fpr95": false[np.argmax(true >= 0.95)],
    }


def ranked(*arrays):
    return ranking(*arrays) | {"fpr95": false_positive_rates(*arrays)}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("count", "others"), [(500, 300), (40, 3), (7, 90), (1, 1), (2000, 700)])
def test_rankings_equal_scikit_learn_in_every_replicate(count, others, ties):
    inside, outside, weight_id, weight_ood = drawn(count, others, 5, ties=ties)
    found = ranked(inside, outside, weight_id, weight_ood)
    for row in range(25):
        expected = by_library(inside, outside, weight_id[row], weight_ood[row])
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), (name, row)


def test_rankings_take_fractional_weights_too():
    inside, outside, weight_id, weight_ood = drawn(200, 100, 3, ties=True)
    whole = ranked(inside, outside, weight_id, weight_ood)
    halves = ranked(inside, outside, weight_id * 0.5, weight_ood * 0.5)
    for name in whole:
        np.testing.assert_allclose(halves[name], whole[name], atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.integers(0, 1000),
)
def test_rankings_with_many_ties_and_few_samples(inside, outside, seed):
    first, second = np.array(inside, float), np.array(outside, float)
    weight_id = bootstrap_weights(len(first), replicates=4, seed=seed)
    weight_ood = bootstrap_weights(len(second), replicates=4, seed=seed, stream=1)
    found = ranked(first, second, weight_id, weight_ood)
    for row in range(4):
        for name, value in by_library(first, second, weight_id[row], weight_ood[row]).items():
            assert found[name][row] == pytest.approx(value, abs=1e-12)


def test_scores_that_are_all_equal_have_stated_values():
    found = ranked(np.ones(30), np.ones(10), np.ones((1, 30), np.uint8), np.ones((1, 10), np.uint8))
    assert {name: value[0] for name, value in found.items()} == {
        "auroc": 0.5,
        "aupr": 0.75,
        "fpr95": 1.0,
    }


@pytest.mark.parametrize("seed", range(3))
def test_binned_errors_equal_netcal_in_every_replicate(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 1.0, 400)
    correct = (rng.uniform(size=400) < confidence**1.5).astype(int)
    weights = bootstrap_weights(400, replicates=20, seed=seed)
    found = binned_errors(confidence, correct, weights, bins=15)
    for row, counts in enumerate(weights):
        rows = np.repeat(np.arange(400), counts)
        for name, metric in NETCAL.items():
            expected = metric(bins=15).measure(confidence[rows], correct[rows])
            assert found[name][row] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1 / 3, 0.2, 0.6])
def test_edges_fall_into_the_same_bin_as_netcals(confidence):
    values = np.array([confidence, max(confidence - 0.02, 0.0), min(confidence + 0.02, 1.0)])
    correct = np.array([1, 0, 1])
    found = binned_errors(values, correct, np.ones((1, 3), np.uint8), bins=15)
    for name, metric in NETCAL.items():
        assert found[name][0] == pytest.approx(metric(bins=15).measure(values, correct), abs=1e-9)


@pytest.mark.parametrize("correct", [0, 1])
def test_all_right_and_all_wrong_are_ordinary_values(correct):
    confidence = np.linspace(0.3, 0.9, 50)
    found = binned_errors(confidence, np.full(50, correct), np.ones((1, 50), np.uint8), bins=15)
    assert found["ece"][0] == pytest.approx(abs(confidence - correct).mean())


def test_means_are_weighted_means():
    values = np.random.default_rng(0).normal(size=300)
    weights = bootstrap_weights(300, replicates=40, seed=2)
    expected = [np.average(values, weights=row) for row in weights]
    np.testing.assert_allclose(weighted_means(values, weights), expected)


def test_no_result_depends_on_the_number_of_threads():
    inside, outside, _, _ = drawn(3000, 1000, 1)
    weight_id = bootstrap_weights(3000, replicates=300, seed=1)
    weight_ood = bootstrap_weights(1000, replicates=300, seed=1, stream=1)
    one = ranking(inside, outside, weight_id, weight_ood)
    two = ranking(inside, outside, weight_id, weight_ood, threads=3)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    sure = np.random.default_rng(2).uniform(size=3000)
    alone = binned_errors(sure, sure > 0.5, weight_id, bins=15)
    shared = binned_errors(sure, sure > 0.5, weight_id, bins=15, threads=3)
    np.testing.assert_array_equal(alone["ece"], shared["ece"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w: ranking(np.array([]), np.ones(3), w[:, :0], w),
            "in-distribution scores of shape",
        ),
        (lambda w: ranking(np.ones(3), np.array([]), w, w[:, :0]), "out-of-distribution scores"),
        (lambda w: ranking(np.ones(3), np.ones(3), w, np.ones((2, 3))), "1 replicates .* 2 of"),
        (lambda w: ranking(np.array([1, np.nan, 2]), np.ones(3), w, w), "1 numbers that are NaN"),
        (
            lambda w: binned_errors(np.array([0.5, 1.2, 0.1]), np.ones(3), w, bins=15),
            "never logits",
        ),
        (
            lambda w: binned_errors(np.array([0.5, 0.2]), np.ones(3), w, bins=15),
            "2 confidences for 3",
        ),
        (lambda w: weighted_means(np.array([1.0, np.inf, 0.0]), w), "NaN or infinite"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(StatisticsError, match=message):
        call(np.ones((1, 3), np.uint8))


@settings(max_examples=40)
@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_sums_of_cells_have_the_same_bits_whether_samples_are_counted_or_added_in_order(
    count, cells, columns, fractions, seed
):
    rng = np.random.default_rng(seed)
    cell, weights = rng.integers(0, cells, count), bootstrap_weights(count, replicates=9, seed=seed)
    values = rng.integers(0, 2, (columns, count)) * (0.1 if fractions else 1.0)
    expected = np.zeros((1 + columns, len(weights), cells))
    for sample in np.argsort(cell, kind="stable"):
        terms = [np.ones(()), *values[:, sample]]
        for index, term in enumerate(terms):
            expected[index, :, cell[sample]] += weights[:, sample] * term
    sums = CellSums(cell, values, cells)
    found, in_order = sums(weights), sums(weights.astype(float))  # the latter are not counted
    assert found.tobytes() == in_order.tobytes()
    assert found.flags.c_contiguous
    assert found == pytest.approx(expected, abs=1e-12)
