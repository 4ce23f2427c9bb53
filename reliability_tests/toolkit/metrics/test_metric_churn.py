"""Churn: what changed sample by sample, however equal the averages are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import kl_div

from clipq.errors import ClipqError
from clipq.metrics import Predictions, metrics
from clipq.metrics.churn import churn_columns
from clipq.metrics.classify import classification_columns

CHURN = ("flip-rate", "negative-flips", "kl-to-fp32", "top2-gap-shrinkage")


def pair(seed=0, count=200, classes=7, noise=1.0):
    rng = np.random.default_rng(seed)
    reference = rng.normal(0, 3, (count, classes))
    return (
        reference + rng.normal(0, noise, reference.shape),
        reference,
        rng.integers(0, classes, count),
    )


def values(logits, reference, labels):
    table = Predictions(churn_columns(logits, reference, labels))
    return {name: metrics.get(name).compute(table) for name in CHURN}


def test_by_hand():
    reference = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]))
    logits = np.log(np.array([[0.5, 0.4, 0.1], [0.3, 0.6, 0.1], [0.5, 0.2, 0.3]]))
    found = values(logits, reference, np.array([0, 0, 0]))
    assert found["flip-rate"] == pytest.approx(2 / 3)
    assert found["negative-flips"] == pytest.approx(1 / 3)  # the second; the third became right
    assert found["top2-gap-shrinkage"] == pytest.approx(
        ((0.5 - 0.1) + (0.3 - 0.3) + (0.2 - 0.2)) / 3
    )
    first = 0.7 * np.log(0.7 / 0.5) + 0.2 * np.log(0.2 / 0.4)
    second = 0.6 * np.log(0.6 / 0.3) + 0.3 * np.log(0.3 / 0.6)
    third = 0.2 * np.log(0.2 / 0.5) + 0.5 * np.log(0.5 / 0.2)
    assert found["kl-to-fp32"] == pytest.approx((first + second + third) / 3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 20))
def test_equals_torch_and_the_classification_columns(seed, noise):
    logits, reference, labels = pair(seed, noise=noise)
    found = values(logits, reference, labels)
    ours, theirs = (torch.tensor(x).log_softmax(1) for x in (logits, reference))
    expected = kl_div(ours, theirs, reduction="batchmean", log_target=True)
    assert found["kl-to-fp32"] == pytest.approx(float(expected), abs=1e-10)
    now = classification_columns(logits, labels, temperature=1.0)
    then = classification_columns(reference, labels, temperature=1.0)
    assert found["flip-rate"] == (now["prediction"] != then["prediction"]).mean()
    assert found["negative-flips"] == ((then["correct"] == 1) & (now["correct"] == 0)).mean()
    shrunk = then["top2_gap"].mean() - now["top2_gap"].mean()
    assert found["top2-gap-shrinkage"] == pytest.approx(shrunk, abs=1e-12)


def test_fp32_has_no_churn():
    _, reference, labels = pair()
    assert values(reference, reference, labels) == dict.fromkeys(CHURN, 0.0)


def test_equal_accuracy_hides_flips_and_churn_shows_them():
    reference = np.array([[2.0, 0.0], [2.0, 0.0]] * 50)
    logits = np.array([[2.0, 0.0], [0.0, 2.0]] * 50)
    labels = np.array([0, 1] * 50)
    labels[1::4] = 0
    found = values(logits, reference, labels)
    assert found["flip-rate"] == 0.5
    assert found["negative-flips"] == 0.25


def test_a_sample_without_a_finite_logit_is_not_a_number():
    logits, reference, labels = pair()
    logits[3, 2] = np.nan
    assert all(np.isnan(value) for value in values(logits, reference, labels).values())


def test_other_samples_or_classes_are_refused():
    logits, reference, labels = pair()
    with pytest.raises(ClipqError, match="cannot be compared"):
        churn_columns(logits[:, :3], reference, labels)
