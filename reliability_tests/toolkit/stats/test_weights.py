"""Resampling weights: reproducible, paired, stratified, clustered; nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipq.errors import StatisticsError
from clipq.stats import bootstrap_weights, jackknife_weights, ranking, weighted_means


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 120), st.integers(0, 2**63))
def test_every_replicate_draws_as_many_samples_as_there_are(size, replicates, seed):
    drawn = bootstrap_weights(size, replicates=replicates, seed=seed)
    assert drawn.shape == (replicates, size)
    assert (drawn.sum(axis=1, dtype=int) == size).all()


def test_a_seed_gives_the_same_draws_and_more_replicates_begin_alike():
    drawn = bootstrap_weights(100, replicates=130, seed=7)
    np.testing.assert_array_equal(drawn, bootstrap_weights(100, replicates=130, seed=7))
    np.testing.assert_array_equal(drawn[:70], bootstrap_weights(100, replicates=70, seed=7))
    assert not np.array_equal(drawn, bootstrap_weights(100, replicates=130, seed=8))
    assert not np.array_equal(drawn, bootstrap_weights(100, replicates=130, seed=7, stream=1))


def test_the_global_random_state_is_left_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    bootstrap_weights(50, replicates=10, seed=0)
    jackknife_weights(50, groups=5, seed=0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_counts_are_those_of_a_multinomial():
    drawn = bootstrap_weights(200, replicates=2000, seed=1).astype(float)
    assert drawn.mean() == 1.0
    assert drawn.var() == pytest.approx(1 - 1 / 200, rel=0.02)
    # Two samples of one draw exclude each other a little: covariance -1 / N.
    assert np.cov(drawn[:, :40].T)[~np.eye(40, dtype=bool)].mean() == pytest.approx(
        -1 / 200, abs=2e-3
    )


def test_clusters_are_drawn_whole():
    clusters = np.repeat(np.arange(20), 5)
    drawn = bootstrap_weights(100, replicates=50, seed=1, clusters=clusters)
    by_cluster = drawn.reshape(50, 20, 5)
    assert (by_cluster == by_cluster[:, :, :1]).all()
    assert (by_cluster[:, :, 0].sum(axis=1, dtype=int) == 20).all()


def test_clustered_samples_carry_less_information():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(50), 20)
    values = rng.normal(size=50)[clusters]
    apart = weighted_means(values, bootstrap_weights(1000, replicates=400, seed=1)).std()
    together = weighted_means(
        values, bootstrap_weights(1000, replicates=400, seed=1, clusters=clusters)
    ).std()
    assert together / apart == pytest.approx(np.sqrt(20), rel=0.15)


def test_strata_keep_their_sizes():
    strata = np.array(["a"] * 30 + ["b"] * 70)
    drawn = bootstrap_weights(100, replicates=50, seed=1, strata=strata)
    assert (drawn[:, :30].sum(axis=1, dtype=int) == 30).all()
    both = bootstrap_weights(
        100, replicates=50, seed=1, strata=strata, clusters=np.arange(100) // 5
    )
    assert (both[:, :30].sum(axis=1, dtype=int) == 30).all()


def test_the_jackknife_leaves_each_sample_out_once():
    kept = jackknife_weights(103, groups=10, seed=1)
    assert (kept == 0).sum(axis=0).tolist() == [1] * 103
    clusters = np.arange(100) // 4
    by_cluster = jackknife_weights(100, groups=5, seed=1, clusters=clusters).reshape(5, 25, 4)
    assert (by_cluster == by_cluster[:, :, :1]).all()
    assert len(jackknife_weights(3, groups=10, seed=1)) == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.array([[1.0, np.nan, 1.0]]), "1 weights are NaN"),
        (np.array([[1.0, np.inf, 1.0]]), "NaN or infinite"),
        (np.array([[1.0, -0.5, 1.0]]), "smallest weight is -0.5"),
        (np.array([[1, -1, 1]]), "smallest weight is -1"),
        (np.array([[1, 1]]), "for 3 samples"),
        (np.array([["1", "1", "1"]]), "for 3 samples"),
        (np.zeros((1, 3)), "no weight on any sample"),
    ],
)
def test_what_is_no_weight_is_refused(weights, message):
    with pytest.raises(StatisticsError, match=message):
        weighted_means(np.arange(3.0), weights)
    with pytest.raises(StatisticsError, match=message):
        ranking(np.arange(3.0), np.arange(3.0), weights, np.ones((1, 3), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0, "replicates": 5}, "0 samples"),
        ({"size": 5, "replicates": 0}, "0 replicates"),
        ({"size": 5, "replicates": 5, "clusters": np.arange(4)}, "clusters of shape"),
        (
            {"size": 4, "replicates": 5, "clusters": np.zeros(4), "strata": np.arange(4)},
            "more than one stratum",
        ),
    ],
)
def test_draws_that_make_no_sense_are_refused(arguments, message):
    size = arguments.pop("size")
    with pytest.raises(StatisticsError, match=message):
        bootstrap_weights(size, seed=0, **arguments)
