"""OOD scores and detection: orientation, positive class, ties, independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch_uncertainty.metrics.classification.fpr import _fprx_compute
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from clipq.errors import ClipqError
from clipq.metrics import scores
from clipq.metrics.ood import aupr, auroc, fpr95


class TestScores:
    cosine = np.array([[0.3, 0.1], [-0.2, -0.2]])

    def test_mcm_has_no_logit_scale(self):
        expected = [np.exp(0.3) / (np.exp(0.3) + np.exp(0.1)), 0.5]
        np.testing.assert_allclose(scores.mcm(self.cosine), expected)

    def test_max_logit_is_a_cosine(self):
        np.testing.assert_array_equal(scores.max_logit(self.cosine), [0.3, -0.2])

    def test_energy(self):
        expected = [np.log(np.exp(0.3) + np.exp(0.1)), -0.2 + np.log(2)]
        np.testing.assert_allclose(scores.energy(self.cosine), expected)
        np.testing.assert_allclose(
            scores.energy(self.cosine, temperature=0.5),
            0.5 * np.log(np.exp(self.cosine / 0.5).sum(axis=1)),
        )

    def test_neg_entropy_equals_torch(self):
        logits = np.random.default_rng(0).normal(0, 30, (50, 7))
        expected = -torch.distributions.Categorical(logits=torch.tensor(logits)).entropy()
        np.testing.assert_allclose(scores.neg_entropy(logits), expected, atol=1e-12)

    def test_neg_entropy_of_a_saturated_and_of_a_uniform_softmax(self):
        logits = np.array([[1e4, 0.0, 0.0], [5.0, 5.0, 5.0]])
        np.testing.assert_allclose(scores.neg_entropy(logits), [0.0, -np.log(3)], atol=1e-12)

    @pytest.mark.parametrize("score", [scores.mcm, scores.max_logit, scores.energy])
    def test_a_closer_class_raises_the_score(self, score):
        near, far = np.array([[0.9, 0.1, 0.1]]), np.array([[0.2, 0.1, 0.1]])
        assert score(near) > score(far)

    @pytest.mark.parametrize(
        "score", [scores.mcm, scores.max_logit, scores.energy, scores.neg_entropy]
    )
    def test_a_nan_stays_with_its_sample(self, score):
        values = score(np.array([[np.nan, 0.1], [0.3, 0.1]]))
        assert np.isnan(values[0])
        assert np.isfinite(values[1])


def test_hand_computed():
    inside, outside = np.array([0.9, 0.8, 0.4]), np.array([0.6, 0.1])
    # pairs won: 2 + 2 + 1 of 6; precision at the three positives: 1, 1, 3/4
    assert auroc(inside, outside) == pytest.approx(5 / 6)
    assert aupr(inside, outside) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert fpr95(inside, outside) == 0.5  # keeping 3 of 3 means a threshold of 0.4


def test_fpr95_may_drop_five_percent_of_in_distribution():
    inside = np.concatenate([[0.0], np.linspace(1, 2, 19)])  # 19 of 20 is exactly 95 %
    assert fpr95(inside, np.array([0.5, 0.5])) == 0.0
    assert fpr95(inside[:-1], np.array([0.5, 0.5])) == 1.0  # 18 of 19 is not


def test_swapping_the_positive_class_would_show():
    inside, outside = np.array([0.9, 0.9, 0.2]), np.array([0.5, 0.1, 0.1, 0.1])
    assert fpr95(inside, outside) == 0.25
    assert fpr95(-outside, -inside) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("better", "expected"), [(1, (1.0, 1.0, 0.0)), (-1, (0.0, 3 / 7, 1.0))])
def test_perfect_and_reversed_separation(better, expected):
    inside, outside = better * np.arange(10, 13.0), better * np.arange(4.0)
    values = auroc(inside, outside), aupr(inside, outside), fpr95(inside, outside)
    assert values[0] == expected[0]
    assert values[2] == expected[2]
    assert (values[1] == 1.0) if better > 0 else (values[1] < 3 / 7)


def test_constant_scores_separate_nothing():
    inside, outside = np.full(30, 0.7), np.full(10, 0.7)
    assert auroc(inside, outside) == 0.5
    assert aupr(inside, outside) == 0.75
    assert fpr95(inside, outside) == 1.0


@pytest.mark.parametrize("metric", [auroc, aupr, fpr95])
@pytest.mark.parametrize("empty", ["inside", "outside"])
def test_one_class_is_an_error(metric, empty):
    both = {"inside": np.arange(3.0), "outside": np.arange(3.0)}
    both[empty] = np.array([])
    with pytest.raises(ClipqError, match="both kinds of samples"):
        metric(both["inside"], both["outside"])


def drawn(seed, *, ties):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(1, 1, 400), rng.normal(0, 1.2, 150)
    return (np.round(inside, 1), np.round(outside, 1)) if ties else (inside, outside)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_other_libraries(seed, ties):
    inside, outside = drawn(seed, ties=ties)
    stacked = torch.tensor(np.concatenate([inside, outside]))
    target = torch.tensor([1] * len(inside) + [0] * len(outside))
    # torchmetrics passes scores outside [0, 1] through a float32 sigmoid: map monotonically first
    unit = (stacked - stacked.min()) / (stacked.max() - stacked.min())
    assert auroc(inside, outside) == pytest.approx(float(binary_auroc(unit, target)), abs=1e-6)
    assert aupr(inside, outside) == pytest.approx(
        float(binary_average_precision(unit, target)), abs=1e-6
    )
    theirs = _fprx_compute(stacked, target, recall_level=0.95, pos_label=1)
    assert fpr95(inside, outside) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_auroc_is_the_share_of_pairs_won(seed):
    inside, outside = drawn(seed, ties=True)
    won = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
    assert auroc(inside, outside) == pytest.approx(won)


samples = arrays(np.int64, st.integers(1, 30), elements=st.integers(-20, 20))


@settings(deadline=None, derandomize=True, max_examples=80)
@given(samples, samples, st.randoms(use_true_random=False))
def test_invariant_to_order_and_to_monotone_transforms(inside, outside, random):
    first, second = inside.astype(float), outside.astype(float)
    values = np.array([auroc(first, second), aupr(first, second), fpr95(first, second)])
    assert ((values >= 0) & (values <= 1)).all()

    order = random.sample(range(len(first)), len(first))
    moved = first[order] ** 3 + 5, second**3 + 5  # exact on small whole numbers
    transformed = [auroc(*moved), aupr(*moved), fpr95(*moved)]
    np.testing.assert_allclose(transformed, values, atol=1e-12)
    assert auroc(second, first) == pytest.approx(1 - values[0])
