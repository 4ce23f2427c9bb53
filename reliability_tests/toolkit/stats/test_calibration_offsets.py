"""Offsets of calibration errors: the normal formula, and what simulated populations show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from clipq.errors import StatisticsError
from clipq.metrics import Predictions
from clipq.metrics.smooth import smooth_ece
from clipq.stats.calibration_offsets import (
    Answers,
    Gaps,
    binned_offset,
    folded_excess,
    loss_offset,
    smooth_offset,
)


@pytest.mark.parametrize(("mean", "error"), [(0.0, 1.0), (0.3, 0.2), (-1.2, 0.7), (2.0, 0.0)])
def test_the_excess_is_the_mean_of_a_folded_normal_less_its_centre(mean, error):
    def folded(z):
        return abs(mean + error * z) * norm.pdf(z)

    kink = -mean / error if error else 0.0
    expected = quad(folded, -9, kink)[0] + quad(folded, kink, 9)[0] - abs(mean)
    found = folded_excess(np.array([mean]), np.array([error]))[0]
    assert found == pytest.approx(expected, abs=1e-7)


def draws(samples, count, *, worse=0.0, seed=0):
    """Calibrated answers, and a candidate's whose log odds say `worse` more than they may."""
    for gate in range(count):
        rng = np.random.default_rng([seed, gate])
        odds = np.abs(rng.normal(2.0, 1.8, samples))
        right = (rng.random(samples) < expit(odds)).astype(int)
        yield Answers(expit(odds), right), Answers(expit((1.0 + worse) * odds), right)


def ece(answers):
    index = np.minimum((answers.confidence * 15).astype(int), 14)
    return np.abs(np.bincount(index, answers.residual)).sum() / len(index)


def test_a_worse_candidate_beside_a_calibrated_fp32_looks_better_by_the_offset():
    rng = np.random.default_rng(9)
    odds = np.abs(rng.normal(2.0, 1.8, 400_000))
    truth = ece(Answers(expit(1.4 * odds), expit(odds)))  # chances for outcomes: no noise
    losses, offsets = [], []
    for fp32, ours in draws(2000, 200, worse=0.4):
        losses.append(ece(ours) - ece(fp32))
        offsets.append(binned_offset(fp32, ours, bins=15))
    missed = np.mean(losses) - truth
    assert missed < -1.0 * np.std(losses)
    assert np.mean(offsets) == pytest.approx(missed, rel=0.3)


@pytest.mark.parametrize("offset", [lambda *a: binned_offset(*a, bins=15), smooth_offset])
class TestBoth:
    def test_equal_answers_are_off_by_nothing(self, offset):
        fp32, _ = next(draws(500, 1))
        assert offset(fp32, fp32) == 0.0

    def test_a_badly_calibrated_pair_is_hardly_off(self, offset):
        fp32, ours = next(draws(4000, 1, worse=1.5))
        worse = Answers(expit(1.2 * np.log(ours.confidence / (1 - ours.confidence))), ours.correct)
        assert abs(offset(ours, worse)) < 0.1 * abs(offset(fp32, ours))

    def test_it_falls_with_the_number_of_samples(self, offset):
        few, many = (
            np.mean([offset(*pair) for pair in draws(samples, 2, worse=0.5)])
            for samples in (500, 4500)
        )
        assert few < 1.2 * many < 0

    def test_orders_of_samples_do_not_matter(self, offset):
        fp32, ours = next(draws(300, 1, worse=0.4))
        other = np.random.default_rng(0).permutation(300)
        turned = [Answers(side.confidence[other], side.correct[other]) for side in (fp32, ours)]
        assert offset(*turned) == pytest.approx(offset(fp32, ours))


@pytest.mark.parametrize("smooth", [False, True])
def test_samples_of_one_cluster_count_once(smooth):
    fp32, ours = next(draws(400, 1, worse=0.4))
    twice = [Answers(np.repeat(s.confidence, 2), np.repeat(s.correct, 2)) for s in (fp32, ours)]
    clusters = np.repeat(np.arange(400), 2)
    if smooth:
        alone, together = smooth_offset(fp32, ours), smooth_offset(*twice, clusters=clusters)
        independent = smooth_offset(*twice)
    else:
        alone = binned_offset(fp32, ours, bins=15)
        together = binned_offset(*twice, bins=15, clusters=clusters)
        independent = binned_offset(*twice, bins=15)
    assert together == pytest.approx(alone, rel=1e-9)
    assert abs(independent) < 0.9 * abs(alone)


def test_what_the_fitted_temperature_adds_makes_the_offset_larger():
    fp32, ours = next(draws(1000, 1, worse=0.5))
    slope = -np.abs(fp32.confidence * (1 - fp32.confidence))
    unsure = Answers(fp32.confidence, fp32.correct, slope=slope, variance=0.2)
    assert binned_offset(unsure, ours, bins=15) < 1.1 * binned_offset(fp32, ours, bins=15) < 0


def test_other_parts_are_refused():
    one, two = (Gaps(*np.zeros((3, count))) for count in (1, 2))
    with pytest.raises(StatisticsError, match="1 gaps against 2"):
        loss_offset(one, two, np.zeros(2))


def test_the_grid_adds_up_to_the_smooth_calibration_error(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "clipq.stats.calibration_offsets.loss_offset", lambda *gaps: seen.extend(gaps) or 0.0
    )
    fp32, ours = next(draws(800, 1, worse=0.5))
    smooth_offset(fp32, ours)
    for answers, gaps in zip((fp32, ours), seen, strict=False):
        table = Predictions({"confidence": answers.confidence, "correct": answers.correct})
        assert np.abs(gaps.mean).sum() == pytest.approx(smooth_ece(table), rel=0.02)
