"""How many samples decide what, and which samples may be compared at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from clipq.errors import StatisticsError
from clipq.stats import (
    check_paired,
    check_size,
    minimum_detectable_effect,
    samples_needed,
    swap_rows,
    unpaired_accuracy_error,
)


def test_the_detectable_effect_is_detected_with_the_stated_power():
    effect = minimum_detectable_effect(0.01, tail=0.025, power=0.95)
    assert effect == pytest.approx((1.959964 + 1.644854) * 0.01)
    drawn = np.random.default_rng(0).normal(effect, 0.01, 100_000)
    assert (drawn - norm.ppf(0.975) * 0.01 > 0).mean() == pytest.approx(0.95, abs=0.003)


@given(st.integers(50, 100_000), st.floats(1e-5, 0.2), st.floats(1e-4, 0.5), st.floats(0.001, 0.1))
def test_the_needed_samples_just_suffice(samples, error, distance, tail):
    needed = samples_needed(samples, error, distance, tail=tail, power=0.9)
    if needed is None:  # more than a billion
        assert samples * (error / distance) ** 2 > 1e7
        return
    error *= 1.08  # what the pilot does not know
    shrunk = error * math.sqrt(samples / needed)
    assert minimum_detectable_effect(shrunk, tail=tail, power=0.9) <= distance * (1 + 1e-9)
    if needed > 1:
        wider = error * math.sqrt(samples / (needed - 1))
        assert minimum_detectable_effect(wider, tail=tail, power=0.9) >= distance * (1 - 1e-9)


def test_no_number_of_samples_decides_a_loss_at_the_margin():
    assert samples_needed(500, 0.01, 0.0, tail=0.025, power=0.9) is None
    with pytest.raises(StatisticsError, match="standard error of nan"):
        samples_needed(500, math.nan, 0.1, tail=0.025, power=0.9)


@given(st.integers(1, 300), st.floats(0, 1), st.integers(0, 10))
def test_a_swap_permutes_the_stated_share(size, share, seed):
    index = swap_rows(size, share, seed=seed)
    assert sorted(index.tolist()) == list(range(size))
    moved = int((index != np.arange(size)).sum())
    assert moved in (round(share * size), 0 if round(share * size) == 1 else moved)
    np.testing.assert_array_equal(index, swap_rows(size, share, seed=seed))


def test_a_share_is_a_share():
    with pytest.raises(StatisticsError, match=r"a share of 1\.5"):
        swap_rows(10, 1.5, seed=0)


def test_pairing_helps_as_much_as_models_agree():
    # 2 % of the samples change: the paired error is that of 2 % of the samples alone.
    paired = math.sqrt(0.02 / 2000)
    unpaired = unpaired_accuracy_error(0.9, 0.9, 2000)
    assert unpaired / paired == pytest.approx(math.sqrt(2 * 0.09 / 0.02))


IDS = np.array(["a", "b", "c"])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (IDS, np.array(["a", "b", "d"]), "not paired: 2 samples are in one of them only"),
        (IDS, np.array(["a", "b"]), "1 samples are in one of them only, for example 'c'"),
        (IDS, np.array(["b", "a", "c"]), "another order, first at row 0: 'a' and 'b'"),
        (np.array(["a", "a", "c"]), IDS, "'a' occurs 2 times in the first table"),
        (IDS, np.array(["a", "b", "b"]), "'b' occurs 2 times in the second table"),
    ],
)
def test_unpaired_samples_are_refused(first, second, message):
    with pytest.raises(StatisticsError, match=message):
        check_paired(first, second)


def test_the_same_samples_in_the_same_order_are_paired():
    check_paired(IDS, IDS.copy())


def test_too_few_samples_are_refused():
    check_size(50, "top1")
    with pytest.raises(StatisticsError, match=r"top1: 49 samples are too few"):
        check_size(49, "top1")
