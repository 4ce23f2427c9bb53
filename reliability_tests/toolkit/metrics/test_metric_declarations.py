"""Declarations: light to import, complete, and oriented so that a positive loss is worse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from clipq.errors import ClipqError, UnknownNameError
from clipq.metrics import Metric, Predictions, metrics
from clipq.metrics.classify import classification_columns

CLASSIFIED = {
    "top1", "top5", "confidence-gap", "ece", "ace", "mce", "ts-ece", "nll", "brier", "sqnr",
    "zero-fraction", "effective-rank",
}  # fmt: skip
OOD = {
    f"{kind}-{score}"
    for kind in ("auroc", "aupr", "fpr95")
    for score in ("mcm", "max-logit", "energy", "entropy")
}


def full_table(count: int = 200, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, count)
    logits = rng.normal(0, 2, (count, 6)) + 2 * np.eye(6)[labels]
    columns = classification_columns(logits, labels, temperature=1.5)
    columns |= {name: rng.normal(size=count) for name in ("mcm", "max_logit", "energy")}
    columns["neg_entropy"] = -rng.uniform(size=count)
    columns["id"] = np.array([f"s{i}" for i in range(count)])
    scalars = {"sqnr_db": 30.0, "zero_fraction": 0.0, "effective_rank": 12.0, "temperature": 1.5}
    return Predictions(columns, scalars)


def test_planning_imports_no_heavy_library():
    code = (
        "import sys; from clipq.metrics import metrics;"
        "names = metrics.names(); metrics.get('ece');"
        "heavy = {'torch', 'netcal', 'sklearn', 'scipy', 'torchmetrics'} & set(sys.modules);"
        "sys.exit(f'{heavy}' if heavy or not names else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_promised_metrics_are_declared():
    assert set(metrics.names()) >= CLASSIFIED | OOD
    for name in CLASSIFIED:
        assert "in-distribution" in metrics.get(name).roles
        assert "ood" not in metrics.get(name).roles
        assert not metrics.get(name).needs_id
    for name in OOD:
        assert metrics.get(name).roles == {"ood"}
        assert metrics.get(name).needs_id


@pytest.mark.parametrize("name", sorted(CLASSIFIED | OOD))
def test_every_metric_computes_within_its_declared_range(name):
    metric = metrics.get(name)
    low, high = metric.range
    value = metric.compute(full_table(), full_table(seed=1))
    assert isinstance(value, float)
    assert low <= value <= high
    assert metric.version >= 1
    assert metric.unit


@pytest.mark.parametrize("name", sorted(CLASSIFIED - {"sqnr", "zero-fraction", "effective-rank"}))
@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_one_non_finite_sample_makes_the_metric_nan(name, kind):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(50, 4))
    logits[7, 2] = float(kind)
    columns = classification_columns(logits, rng.integers(0, 4, 50), temperature=1.0)
    assert np.isnan(metrics.get(name).compute(Predictions(columns)))


@pytest.mark.parametrize("name", sorted(OOD))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["in-distribution", "ood"])
def test_one_non_finite_score_makes_a_detection_metric_nan(name, bad, side):
    metric = metrics.get(name)
    tables = {"in-distribution": full_table(), "ood": full_table(seed=1)}
    tables[side].columns[metric.score][5] = bad
    assert np.isnan(metric.compute(tables["ood"], tables["in-distribution"]))


@pytest.mark.parametrize("name", sorted((CLASSIFIED | OOD) - {"sqnr", "zero-fraction",
                                                              "effective-rank"}))  # fmt: skip
def test_no_samples_is_an_error_not_a_number(name):
    table = full_table()
    empty = Predictions({key: values[:0] for key, values in table.columns.items()}, table.scalars)
    with pytest.raises(ClipqError, match="sample"):
        metrics.get(name).compute(empty, table)


@pytest.mark.parametrize(
    ("name", "baseline", "observed", "loss"),
    [
        ("top1", 0.8, 0.7, 0.1),
        ("ece", 0.05, 0.08, 0.03),
        ("ece", 0.05, 0.02, -0.03),
        ("confidence-gap", -0.10, 0.02, -0.08),
        ("confidence-gap", 0.02, -0.10, 0.08),
        ("fpr95-mcm", 0.3, 0.4, 0.1),
        ("auroc-energy", 0.9, 0.95, -0.05),
    ],
)
def test_loss_is_positive_where_observed_is_worse(name, baseline, observed, loss):
    assert metrics.get(name).loss(baseline, observed) == pytest.approx(loss)


def test_a_nan_loss_stays_nan():
    assert np.isnan(metrics.get("confidence-gap").loss(0.1, float("nan")))


def test_only_signal_to_noise_ratios_are_judged_against_a_floor():
    absolute = [n for n in metrics.names() if metrics.get(n).judged_by == "limit"]
    assert absolute == ["sqnr", "sqnr-high", "sqnr-low", "sqnr-mid"]


def test_an_ood_metric_without_the_in_distribution_table_says_so():
    with pytest.raises(ClipqError, match="in-distribution"):
        metrics.get("auroc-mcm").compute(full_table())


def test_an_unknown_metric_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="did you mean"):
        metrics.get("auroc-msm")


def make(**changes):
    fields = {
        "name": "x", "title": "x", "unit": "fraction", "direction": "lower", "range": (0, 1),
        "roles": frozenset({"in-distribution"}), "target": "clipq.metrics.accuracy:top1",
    }  # fmt: skip
    return Metric(**(fields | changes))


@pytest.mark.parametrize(
    "changes", [{"direction": "down"}, {"target": "no-colon"}, {"range": (1, 0)}]
)
def test_a_malformed_declaration_is_refused(changes):
    with pytest.raises(ClipqError, match=str(next(iter(changes)))):
        make(**changes)


@pytest.mark.parametrize("target", ["clipq.metrics.nowhere:f", "clipq.metrics.accuracy:nothing"])
def test_a_target_that_cannot_be_imported_is_named(target):
    with pytest.raises(ClipqError, match=target):
        make(target=target).compute(full_table())


class TestPredictions:
    def test_a_missing_column_is_named_with_a_suggestion(self):
        with pytest.raises(ClipqError, match=r"'confidense'[^$]*confidence"):
            full_table().column("confidense")

    def test_a_missing_scalar_is_named(self):
        with pytest.raises(ClipqError, match="'sqnr'"):
            full_table().scalar("sqnr")

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"a": np.zeros(2), "b": np.zeros(3)}, "differ in length"),
            ({"id": np.array(["x", "y", "x"])}, "'x' occurs 2 times"),
            ({"a": np.array([None, 1])}, "type object"),
            ({"a": np.zeros((2, 2))}, "shape"),
            ({"a": np.float64(1.0)}, "float64"),
            ({"a": [1, 2]}, "list"),
            ({"a": np.array([1j])}, "complex"),
        ],
    )
    def test_malformed_columns_are_refused(self, columns, message):
        with pytest.raises(ClipqError, match=message):
            Predictions(columns)

    def test_length(self):
        assert len(full_table(7)) == 7
        assert len(Predictions({})) == 0


def test_a_metric_that_fails_is_named_instead_of_raising_as_it_pleases():
    broken = Metric(
        "broken", "fails", "fraction", "lower", (0, 1), frozenset({"in-distribution"}), "math:sqrt"
    )
    with pytest.raises(ClipqError, match="metric 'broken' failed: TypeError"):
        broken.compute(full_table())
