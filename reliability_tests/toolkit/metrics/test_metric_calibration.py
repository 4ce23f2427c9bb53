"""Calibration errors: by hand, against independent libraries, and at the edges of the bins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch_uncertainty.metrics.classification import CalibrationError
from torchmetrics.functional.classification.calibration_error import _ce_compute

from clipq.errors import ClipqError
from clipq.metrics import Predictions, metrics
from clipq.metrics.calibration import BINS

BINNED = ("ece", "ace", "mce")
EPSILON = 1e-15  # netcal moves 0 and 1 inward by 2.2e-16


def table(confidence, correct, **more):
    confidence = np.asarray(confidence, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.int64)
    columns = {"confidence": confidence, "correct": correct, "ts_confidence": confidence}
    return Predictions(columns | more)


def transcribed(confidence, correct):
    """ECE, ACE and MCE as their definitions read, one sample at a time."""
    bins = [[] for _ in range(BINS)]
    edges = np.linspace(0, 1, BINS + 1)
    for c, y in zip(confidence, correct, strict=True):
        lower = max((b for b in range(BINS) if c >= edges[b]), default=0)
        bins[lower].append((c, y))
    gaps, sizes = [], []
    for held in bins:
        if held:
            gaps.append(abs(sum(c for c, _ in held) - sum(y for _, y in held)) / len(held))
            sizes.append(len(held))
    weighted = sum(g * s for g, s in zip(gaps, sizes, strict=True)) / sum(sizes)
    return {"ece": weighted, "ace": sum(gaps) / len(gaps), "mce": max(gaps)}


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 1.0, count)
    return confidence, (rng.uniform(size=count) < confidence**1.5).astype(np.int64)


def test_hand_computed():
    # bins of width 1/15: 0.70 and 0.72 share [10/15, 11/15), 0.95 is alone in [14/15, 1]
    held = table([0.70, 0.72, 0.95], [1, 0, 1])
    assert metrics.get("ece").compute(held) == pytest.approx((2 * 0.21 + 0.05) / 3)
    assert metrics.get("ace").compute(held) == pytest.approx((0.21 + 0.05) / 2)
    assert metrics.get("mce").compute(held) == pytest.approx(0.21)
    assert metrics.get("confidence-gap").compute(held) == pytest.approx(0.79 - 2 / 3)


@pytest.mark.parametrize("name", BINNED)
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_slow_transcription(name, seed):
    confidence, correct = drawn(500, seed)
    expected = transcribed(confidence, correct)[name]
    assert metrics.get(name).compute(table(confidence, correct)) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "norm"), [("ece", "l1"), ("mce", "max")])
@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics_and_torch_uncertainty(name, norm, seed):
    confidence, correct = drawn(700, seed)
    ours = metrics.get(name).compute(table(confidence, correct))
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    theirs = _ce_compute(torch.tensor(confidence), torch.tensor(correct).double(), edges, norm=norm)
    assert ours == pytest.approx(float(theirs), abs=1e-9)
    # Three classes, the top one at `confidence`: its probability is always the largest.
    probabilities = np.stack([confidence, *2 * [(1 - confidence) / 2]], axis=1)
    sure = confidence > 1 / 3
    metric = CalibrationError(task="multiclass", num_classes=3, num_bins=BINS, norm=norm)
    metric.update(torch.tensor(probabilities[sure]), torch.tensor(1 - correct[sure]))
    ours = metrics.get(name).compute(table(confidence[sure], correct[sure]))
    assert ours == pytest.approx(float(metric.compute()), abs=1e-6)


@pytest.mark.parametrize("k", range(1, BINS))
def test_an_edge_belongs_to_the_upper_bin(k):
    edges = np.linspace(0, 1, BINS + 1)
    below, edge = (edges[k - 1] + edges[k]) / 2, edges[k]
    # Alone in its bin each sample has its own gap; together they would share one, and cancel.
    value = metrics.get("ece").compute(table([below, edge], [0, 1]))
    assert value == pytest.approx((below + (1 - edge)) / 2)


def test_a_saturated_confidence_stays_in_the_last_bin():
    held = table([1.0, 0.96], [0, 1])
    expected = abs(1.96 - 1) / 2  # one bin; a bin of its own for 1.0 would give (1 + 0.04) / 2
    for name in BINNED:
        assert metrics.get(name).compute(held) == pytest.approx(expected)


def test_torchmetrics_puts_it_elsewhere():
    """The trap that the test above guards against: should this change, say so in the notes."""
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    theirs = _ce_compute(torch.tensor([1.0, 0.96]).double(), torch.tensor([0.0, 1.0]), edges)
    assert float(theirs) == pytest.approx((1 + 0.04) / 2)


@pytest.mark.parametrize("name", BINNED)
@pytest.mark.parametrize(
    ("confidence", "correct", "expected"),
    [(1.0, 1, 0.0), (1.0, 0, 1.0), (0.0, 0, 0.0), (0.0, 1, 1.0), (0.5, 1, 0.5)],
)
@pytest.mark.parametrize("count", [1, 2, 40])
def test_constant_confidence_all_right_or_all_wrong(name, confidence, correct, expected, count):
    held = table([confidence] * count, [correct] * count)
    assert metrics.get(name).compute(held) == pytest.approx(expected, abs=EPSILON)


@pytest.mark.parametrize("name", [*BINNED, "ts-ece"])
@pytest.mark.parametrize("outside", [-0.01, 1.01, 14.2])
def test_logits_instead_of_probabilities_are_refused(name, outside):
    with pytest.raises(ClipqError, match="probabilities"):
        metrics.get(name).compute(table([0.5, outside], [1, 0]))


@pytest.mark.parametrize("name", [*BINNED, "ts-ece"])
def test_nan_is_not_swallowed(name):
    assert np.isnan(metrics.get(name).compute(table([0.5, np.nan, 0.9], [1, 1, 0])))


def test_netcal_alone_would_swallow_it():
    from netcal.metrics import ECE

    confidence, correct = drawn(100, 0)
    confidence[3] = np.nan
    assert np.isfinite(ECE(bins=BINS).measure(confidence, correct))


def test_means_of_columns():
    held = table([0.5], [1], nll=np.array([0.25]), brier=np.array([1.5]))
    assert metrics.get("nll").compute(held) == 0.25
    assert metrics.get("brier").compute(held) == 1.5


def test_scaled_confidence_is_its_own_column():
    held = Predictions({"correct": np.array([1, 1]), "ts_confidence": np.array([0.9, 0.9])})
    assert metrics.get("ts-ece").compute(held) == pytest.approx(0.1)


def test_top_k_from_ranks():
    held = table(np.ones(6), np.ones(6), rank=np.array([0, 0, 1, 4, 5, 9]))
    assert metrics.get("top1").compute(held) == pytest.approx(2 / 6)
    assert metrics.get("top5").compute(held) == pytest.approx(4 / 6)


pairs = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.floats(0, 1)),
        arrays(np.int64, n, elements=st.integers(0, 1)),
        st.permutations(range(n)),
    )
)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(pairs)
def test_order_does_not_matter_and_the_range_holds(drawn_pair):
    confidence, correct, order = drawn_pair
    reference = transcribed(np.clip(confidence, 2.3e-16, 1 - 2.3e-16), correct)
    for name in BINNED:
        value = metrics.get(name).compute(table(confidence, correct))
        shuffled = metrics.get(name).compute(table(confidence[order], correct[order]))
        assert shuffled == pytest.approx(value, abs=1e-12)
        assert -EPSILON <= value <= 1 + EPSILON
        assert value == pytest.approx(reference[name], abs=1e-9)
    assert metrics.get("ece").compute(table(confidence, correct)) <= (
        metrics.get("mce").compute(table(confidence, correct)) + 1e-12
    )


@settings(deadline=None, derandomize=True, max_examples=50)
@given(pairs)
def test_the_absolute_gap_never_exceeds_ece(drawn_pair):
    confidence, correct, _ = drawn_pair
    held = table(confidence, correct)
    gap = abs(metrics.get("confidence-gap").compute(held))
    assert gap <= metrics.get("ece").compute(held) + 1e-9
