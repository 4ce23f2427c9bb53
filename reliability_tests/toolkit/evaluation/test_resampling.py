"""The engine gives each metric's own value at unit weights, and the same draws everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.resolution import resolution
from clipq.gating.baseline import load_baseline
from clipq.metrics import metrics
from clipq.settings import StatisticsSettings
from clipq.stats import SamplingError, bin_resolution

BASELINES = Path(__file__).parents[3] / "baselines"
SETTINGS = StatisticsSettings(replicates=100)
PROBES = {
    "id": "in-distribution",
    "digits": "ood",
    "near-ood": "ood",
    "corruptions": "corruption",
    "backgrounds": "spurious",
    "four-groups": "groups",
    "captions": "retrieval",
    "fgsm": "adversarial",
}


@pytest.fixture(scope="module", params=["vit-clean", "resnet", "siglip"])
def stored(request):
    return load_baseline(BASELINES, request.param).predictions


class UnitWeights(Resampler):
    def _drawn(self, table, stream, piece):
        return np.ones((1, len(table)), np.uint8)


RESAMPLED = [
    name for name in metrics.names() if getattr(metrics.get(name).statistic, "kind", "") != "point"
]


@pytest.mark.parametrize("name", RESAMPLED)
def test_unit_weights_reproduce_the_librarys_value(stored, name):
    metric = metrics.get(name)
    for probe, role in PROBES.items():
        if role not in metric.roles:
            continue
        tables = Tables(stored[probe], stored["id"])
        expected = metric.compute(stored[probe], stored["id"])
        found = UnitWeights(SETTINGS).replicates(metric, tables)
        assert found == pytest.approx([expected], abs=1e-8), probe


def test_every_resampled_metric_has_a_probe_here():
    for name in RESAMPLED:
        assert metrics.get(name).roles & set(PROBES.values()), name


def test_every_metric_declares_how_it_is_resampled():
    assert all(metrics.get(name).statistic is not None for name in metrics.names())


def test_two_processes_would_draw_the_same(stored):
    tables = Tables(stored["digits"], stored["id"])
    metric = metrics.get("fpr95-mcm")
    first = Resampler(SETTINGS).replicates(metric, tables)
    np.testing.assert_array_equal(first, Resampler(SETTINGS).replicates(metric, tables))
    other = Resampler(StatisticsSettings(replicates=100, seed=1)).replicates(metric, tables)
    assert not np.array_equal(first, other)


def test_metrics_that_share_a_sorting_share_the_work(stored, monkeypatch):
    import clipq.evaluation.resampling as module

    calls = []
    original = module.binned_errors
    monkeypatch.setattr(
        module, "binned_errors", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    resampler = Resampler(SETTINGS)
    tables = Tables(stored["id"], stored["id"])
    for name in ("ece", "ace", "mce", "ece"):
        resampler.replicates(metrics.get(name), tables)
    assert len(calls) == 1
    resampler.replicates(metrics.get("ts-ece"), tables)
    assert len(calls) == 2


def test_what_was_found_long_ago_is_forgotten(stored):
    resampler = Resampler(SETTINGS)
    for _ in range(140):
        fresh = Tables(stored["digits"].drawn(np.arange(768)), stored["id"])
        resampler.replicates(metrics.get("auroc-mcm"), fresh)
    assert len(resampler._found) == 128


@pytest.mark.parametrize(
    ("name", "worth"),
    [
        ("ece", 1 / 2048),
        ("fpr95-mcm", 1 / 768),
        ("auroc-mcm", 1 / (2048 + 768)),
        ("nll", 0.0),
    ],
)
def test_what_one_sample_is_worth(stored, name, worth):
    metric = metrics.get(name)
    table = stored["digits"] if metric.score else stored["id"]
    assert resolution(metric, Tables(table, stored["id"])) == pytest.approx(worth)


def test_a_bin_with_one_sample_is_worth_what_the_bootstrap_cannot_see():
    confidence = np.array([0.05, 0.5, 0.51, 0.95])  # 1, 2, 1 samples; 4 empty bins beside them
    missing = (0.05 * 0.95 + 0.505 * 0.495 / 4 + 0.95 * 0.05) / 9 + 4 * 0.1 / 4 / 16
    assert 2 * bin_resolution(confidence, bins=15) ** 2 == pytest.approx(missing)


def test_ace_of_single_samples_has_the_error_of_single_samples():
    # One sample per bin: every replicate holds the same gaps, though each outcome was a throw.
    confidence = (np.arange(15) + 0.5) / 15
    error = SamplingError(0.0).widened(bin_resolution(confidence, bins=15)).standard_error
    assert error == pytest.approx(np.sqrt((confidence * (1 - confidence)).sum()) / 15)
