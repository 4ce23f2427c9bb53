"""Errors of numbers of a whole probe are the jackknife's, by the metrics' own functions."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from clipq.evaluation.point_errors import (
    GROUPS,
    Sides,
    classwise_errors,
    feature_errors,
    groups_of,
)
from clipq.metrics.calibration import classwise_error
from clipq.metrics.features import effective_rank, sqnr_db, zero_fraction
from clipq.metrics.spectra import spectra_scalars

SIZE = 240


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(SIZE, 70)) / np.sqrt(1.0 + np.arange(70))
    observed = 1.05 * reference + 0.05 * rng.normal(size=reference.shape)
    observed[rng.random(observed.shape) < 0.1] = 0.0
    with threadpool_limits(1):  # matrices this small wait for a second thread
        yield Sides(reference.astype(np.float32), observed.astype(np.float32))


def brute(value, groups):
    """The jackknife's standard error of what `value` returns of the samples that are kept."""
    count = groups.max() + 1
    found = np.array([value(groups != group) for group in range(count)])
    return np.sqrt((count - 1) / count * ((found - found.mean(axis=0)) ** 2).sum(axis=0))


OF_FEATURES = {
    "sqnr_db": lambda f, kept: sqnr_db(f.reference[kept], f.observed[kept]),
    "effective_rank": lambda f, kept: (
        effective_rank(f.observed[kept]) - effective_rank(f.reference[kept])
    ),
    "sqnr_low_db": lambda f, kept: spectra_scalars(f.reference[kept], f.observed[kept])[
        "sqnr_low_db"
    ],
    "sqnr_high_db": lambda f, kept: spectra_scalars(f.reference[kept], f.observed[kept])[
        "sqnr_high_db"
    ],
    "low_energy": lambda f, kept: (
        spectra_scalars(f.reference[kept], f.observed[kept])["low_energy"]
        - spectra_scalars(f.reference[kept], f.reference[kept])["low_energy"]
    ),
    "high_energy": lambda f, kept: (
        spectra_scalars(f.reference[kept], f.observed[kept])["high_energy"]
        - spectra_scalars(f.reference[kept], f.reference[kept])["high_energy"]
    ),
    "zero_fraction": lambda f, kept: (
        zero_fraction(f.observed[kept]) - zero_fraction(f.reference[kept])
    ),
}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_it_is_what_computing_it_anew_without_each_group_gives(name, features):
    groups = groups_of(SIZE)
    expected = brute(lambda kept: OF_FEATURES[name](features, kept), groups)
    found = feature_errors(features, groups)
    if name == "zero_fraction":  # and two imagined entries
        expected = np.hypot(expected, np.sqrt(2) / features.observed.size)
    assert found[f"{name}.error"] == pytest.approx(expected, rel=1e-4)
    assert found[f"{name}.freedom"] == GROUPS - 1


def test_so_is_the_classwise_error():
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 4, SIZE), rng.normal(size=(SIZE, 4))
    sides = Sides(logits, 2.0 * logits + 0.1 * rng.normal(size=logits.shape))
    groups = groups_of(SIZE)

    def loss(kept):
        ours, theirs = (
            classwise_error(side[kept], labels[kept]) for side in (sides.observed, sides.reference)
        )
        return ours - theirs

    found = classwise_errors(sides, labels, groups)
    assert found["classwise_ece.error"] == pytest.approx(brute(loss, groups))


def test_clusters_are_left_out_as_a_whole():
    clusters = np.repeat(np.arange(60), 4)
    groups = groups_of(SIZE, clusters)
    assert all(len(set(groups[clusters == cluster])) == 1 for cluster in range(60))
    assert groups.max() == GROUPS - 1


def test_samples_that_share_an_image_count_once(features):
    twice = Sides(np.repeat(features.reference, 2, axis=0), np.repeat(features.observed, 2, axis=0))
    groups = groups_of(SIZE)
    alone, together = feature_errors(features, groups), feature_errors(twice, np.repeat(groups, 2))
    for name in ("sqnr_db", "effective_rank", "sqnr_mid_db", "low_energy"):
        assert together[f"{name}.error"] == pytest.approx(alone[f"{name}.error"])


def test_a_tower_that_was_not_quantized_loses_nothing_surely(features):
    same = Sides(features.reference, features.reference)
    found = feature_errors(same, groups_of(SIZE), sqnr_cap=31.0)
    assert found["effective_rank.error"] == found["low_energy.error"] == 0.0
    assert found["sqnr_db.error"] == 0.0  # the text tower's, of all classes whatever is drawn
    assert np.isnan(found["sqnr_low_db.error"])  # infinite, and compared as it stands


def test_two_entries_that_might_change_are_never_nothing():
    features = np.ones((100, 5))
    found = feature_errors(Sides(features, features + 0.1), groups_of(100))
    assert found["zero_fraction.error"] == pytest.approx(np.sqrt(2) / 500)


def test_nothing_is_known_of_features_that_are_no_numbers(features):
    broken = features.observed.copy()
    broken[0, 0] = np.nan
    found = feature_errors(Sides(features.reference, broken), groups_of(SIZE))
    assert all(np.isnan(v) for name, v in found.items() if name.endswith(".error"))
    assert np.isnan(
        classwise_errors(Sides(features.reference, broken), np.zeros(SIZE, int), groups_of(SIZE))[
            "classwise_ece.error"
        ]
    )
