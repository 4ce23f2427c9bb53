"""Classification columns, temperature and feature sanity."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from netcal.scaling import TemperatureScaling
from scipy.special import log_softmax, softmax
from torch_uncertainty.metrics.classification import BrierScore, CategoricalNLL
from torch_uncertainty.post_processing import TemperatureScaler

from clipq.errors import ClipqError
from clipq.metrics.churn import churn_columns
from clipq.metrics.classify import classification_columns
from clipq.metrics.features import effective_rank, sqnr_db, zero_fraction
from clipq.metrics.temperature import TEMPERATURE_RANGE, fit_temperature


def drawn(count=400, classes=7, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return rng.normal(0, spread, (count, classes)) + 3 * np.eye(classes)[labels], labels


class TestClassification:
    def test_hand_computed(self):
        logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
        columns = classification_columns(logits, np.array([0, 1]), temperature=1.0)
        assert columns["prediction"].tolist() == [0, 2]
        assert columns["correct"].tolist() == [1, 0]
        assert columns["rank"].tolist() == [0, 2]  # of the two at 0.25 the first stands first
        np.testing.assert_allclose(columns["confidence"], [0.7, 0.5])
        np.testing.assert_allclose(columns["top2_gap"], [0.5, 0.25])
        np.testing.assert_allclose(columns["nll"], -np.log([0.7, 0.25]))
        np.testing.assert_allclose(
            columns["brier"], [0.3**2 + 0.2**2 + 0.1**2, 0.25**2 + 0.75**2 + 0.5**2]
        )

    def test_ties_are_broken_as_argmax_and_a_stable_sort_do(self):
        """So a model that says the same of all classes is right where chance is."""
        rng = np.random.default_rng(4)
        logits = rng.integers(0, 4, (300, 9)).astype(float)  # ties everywhere, at the top too
        labels = rng.integers(0, 9, 300)
        columns = classification_columns(logits, labels, temperature=1.0)
        first = torch.tensor(logits).argmax(dim=1).numpy()
        assert np.array_equal(columns["prediction"], first)
        assert np.array_equal(columns["correct"], first == labels)
        order = np.argsort(-logits, axis=1, kind="stable")
        assert np.array_equal(columns["rank"], (order == labels[:, None]).argmax(axis=1))
        other = np.roll(logits, 1, axis=0)
        churn = churn_columns(other, logits, labels)
        theirs = np.roll(first, 1)
        assert np.array_equal(churn["agrees"], first == theirs)
        assert np.array_equal(churn["fp32_correct"], first == labels)
        assert np.array_equal(churn["stays_correct"], (first != labels) | (theirs == labels))

    def test_nll_and_brier_equal_torch_uncertainty(self):
        logits, labels = drawn()
        columns = classification_columns(logits, labels, temperature=1.0)
        probabilities, target = torch.tensor(softmax(logits, axis=1)), torch.tensor(labels)
        nll, brier = CategoricalNLL(), BrierScore(num_classes=7)
        nll.update(probabilities, target)
        brier.update(probabilities, target)
        assert columns["nll"].mean() == pytest.approx(float(nll.compute()), rel=1e-6)
        assert columns["brier"].mean() == pytest.approx(float(brier.compute()), rel=1e-6)

    def test_scaled_twins_are_the_columns_of_scaled_logits(self):
        logits, labels = drawn()
        twins = classification_columns(logits, labels, temperature=2.5)
        plain = classification_columns(logits / 2.5, labels, temperature=1.0)
        for name in ("confidence", "nll", "brier"):
            np.testing.assert_array_equal(twins[f"ts_{name}"], plain[name])

    def test_saturated_logits_stay_finite(self):
        columns = classification_columns(
            np.array([[1e4, 0.0], [1e4, 0.0]]), np.array([0, 1]), temperature=1.0
        )
        assert columns["confidence"].tolist() == [1.0, 1.0]
        assert columns["nll"].tolist() == [0.0, 1e4]

    def test_a_non_finite_logit_spoils_its_own_sample_only(self):
        columns = classification_columns(
            np.array([[np.nan, 1.0], [1.0, 0.0]]), np.array([1, 0]), temperature=1.0
        )
        assert columns["correct"].tolist() == [0, 1]
        assert columns["prediction"].tolist() == [-1, 0]
        assert columns["rank"].tolist() == [2, 0]
        for name in ("confidence", "nll", "brier", "top2_gap", "ts_confidence", "ts_nll"):
            assert np.isnan(columns[name]).tolist() == [True, False]

    @pytest.mark.parametrize(
        ("logits", "labels"),
        [
            (np.zeros((2, 1)), [0, 0]),
            (np.zeros((2, 3)), [0]),
            (np.zeros((2, 3)), [0, 3]),
            (np.zeros((2, 3)), [0, -1]),
            (np.zeros(3), [0, 0, 0]),
        ],
    )
    def test_shapes_and_labels_are_checked(self, logits, labels):
        with pytest.raises(ClipqError):
            classification_columns(logits, np.array(labels), temperature=1.0)


class TestTemperature:
    @pytest.mark.parametrize("spread", [1.5, 3.0, 12.0])
    def test_equals_netcal_and_torch_uncertainty(self, spread):
        logits, labels = drawn(600, 5, seed=4, spread=spread)
        ours = fit_temperature(logits, labels)
        dataset = torch.utils.data.TensorDataset(torch.tensor(logits), torch.tensor(labels))
        scaler = TemperatureScaler(
            model=torch.nn.Identity(), lr=0.1, max_iter=200, init_temperature=ours * 1.3
        )
        logging.disable(logging.WARNING)
        try:
            scaler.fit(torch.utils.data.DataLoader(dataset, batch_size=600), progress=False)
        finally:
            logging.disable(logging.NOTSET)
        assert ours == pytest.approx(scaler.temperature[0].item(), rel=2e-3)
        # netcal takes probabilities and scales their logarithm: the same up to a constant.
        fitted = TemperatureScaling()
        fitted.fit(softmax(logits, axis=1), labels)
        assert ours == pytest.approx(float(np.ravel(1 / fitted.weights)[0]), rel=2e-2)

    @pytest.mark.parametrize("factor", [0.1, 7.0])
    def test_scales_with_the_logits(self, factor):
        logits, labels = drawn(600, 5, seed=4, spread=3.0)
        expected = factor * fit_temperature(logits, labels)
        assert fit_temperature(factor * logits, labels) == pytest.approx(expected, rel=1e-4)

    def test_is_the_minimum(self):
        logits, labels = drawn(300, 5, seed=5)
        best = fit_temperature(logits, labels)

        def nll(temperature):
            return -log_softmax(logits / temperature, axis=1)[np.arange(300), labels].mean()

        grid = [nll(t) for t in np.geomspace(*TEMPERATURE_RANGE, 300)]
        assert nll(best) <= min(grid) + 1e-12

    def test_does_not_change_the_logits(self):
        logits, labels = drawn()
        before = logits.copy()
        fit_temperature(logits, labels)
        np.testing.assert_array_equal(logits, before)

    def test_all_right_and_all_wrong_end_at_the_ends_of_the_range(self):
        labels = np.arange(4)
        right = 5 * np.eye(4)
        assert fit_temperature(right, labels) == pytest.approx(TEMPERATURE_RANGE[0])
        assert fit_temperature(-right, labels) == pytest.approx(TEMPERATURE_RANGE[1])

    def test_equal_logits_leave_the_temperature_at_one(self):
        assert fit_temperature(np.full((5, 3), 2.0), np.zeros(5, int)) == 1.0

    @pytest.mark.parametrize(
        ("logits", "labels"),
        [
            (np.zeros((0, 3)), []),
            (np.array([[np.nan, 1.0]]), [0]),
            (np.ones((2, 3)), [0]),
            (np.ones((2, 3)), [0, 3]),
            (np.ones((2, 3)), [-1, 0]),
        ],
    )
    def test_what_cannot_be_fitted_is_refused(self, logits, labels):
        with pytest.raises(ClipqError):
            fit_temperature(logits, np.array(labels, dtype=int))


class TestFeatures:
    def test_sqnr_hand_computed(self):
        reference = np.array([[3.0, 0.0], [0.0, 4.0]], dtype=np.float32)
        assert sqnr_db(reference, reference + np.float32(0.5)) == pytest.approx(
            10 * np.log10(25 / 1.0)
        )

    def test_sqnr_grows_by_six_db_per_halving_of_the_error(self):
        rng = np.random.default_rng(0)
        reference, noise = rng.normal(size=(64, 16)), rng.normal(size=(64, 16))
        coarse, fine = (sqnr_db(reference, reference + s * noise) for s in (0.02, 0.01))
        assert fine - coarse == pytest.approx(20 * np.log10(2))

    def test_sqnr_edges(self):
        one, zero = np.ones((2, 2)), np.zeros((2, 2))
        nan = np.full((2, 2), np.nan)
        assert sqnr_db(one, one) == np.inf
        assert sqnr_db(one, zero) == 0.0  # all signal lost: noise equals signal
        assert sqnr_db(zero, one) == -np.inf
        assert np.isnan(sqnr_db(nan, one))
        assert np.isnan(sqnr_db(one, nan))
        assert np.isnan(sqnr_db(one, np.full((2, 2), np.inf)))

    def test_zero_fraction(self):
        assert zero_fraction(np.array([[0.0, 1.0], [-0.0, 2.0]])) == 0.5
        assert np.isnan(zero_fraction(np.array([[0.0, np.nan]])))

    def test_effective_rank_hand_computed(self):
        """Two directions with energies 9 : 1 (s^2), no others."""
        features = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]], dtype=float)
        share = np.array([0.9, 0.1])
        expected = np.exp(-(share * np.log(share)).sum())
        assert effective_rank(features) == pytest.approx(expected)

    @pytest.mark.parametrize("shape", [(200, 16), (16, 200)])
    def test_effective_rank_equals_the_svd(self, shape):
        features = np.random.default_rng(1).normal(size=shape).astype(np.float32) + 3
        s = torch.linalg.svdvals(
            torch.tensor(features.astype(float) - features.astype(float).mean(0))
        )
        p = s**2 / (s**2).sum()
        p = p[p > 0]
        assert effective_rank(features) == pytest.approx(float(torch.exp(-(p * p.log()).sum())))

    def test_effective_rank_edges(self):
        assert effective_rank(np.zeros((5, 3))) == 1.0
        same = np.tile(np.random.default_rng(2).normal(size=(1, 6)).astype(np.float32), (7, 1))
        assert effective_rank(same) == 1.0  # not the rank of rounding noise
        assert np.isnan(effective_rank(np.array([[np.inf, 1.0], [0.0, 1.0]])))

    def test_empty_or_mismatching_features_are_refused(self):
        empty = np.zeros((0, 3))
        for call in (zero_fraction, effective_rank, lambda f: sqnr_db(f, f)):
            with pytest.raises(ClipqError, match="shape"):
                call(empty)
        with pytest.raises(ClipqError, match="cannot be compared"):
            sqnr_db(np.ones((2, 3)), np.ones((3, 3)))

    @settings(deadline=None, derandomize=True, max_examples=40)
    @given(
        arrays(np.float64, (12, 4), elements=st.floats(-10, 10, width=32)), st.integers(0, 2**31)
    )
    def test_effective_rank_ignores_rotation_and_shift(self, features, seed):
        value = effective_rank(features)
        assert 1 - 1e-9 <= value <= 4 + 1e-9
        spread = np.ptp(features, axis=0).max()
        if spread > 1e-3:
            rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
            moved = effective_rank(features @ rotation + 1)
            assert moved == pytest.approx(value, rel=1e-5)
