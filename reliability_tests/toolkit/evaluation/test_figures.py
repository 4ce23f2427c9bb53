"""Figures in records hold what the metrics measure: nothing is drawn that was not judged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from clipq.cases import Cell
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.figures import detection_figure, spectrum_figure
from clipq.metrics import metrics
from clipq.settings import load_settings

QUANTIZER = "rtn:w4"


@pytest.fixture
def evaluator(project) -> Evaluator:
    return Evaluator(load_settings(project.settings()))


def test_calibration_bins_give_the_calibration_error(evaluator):
    figure = evaluator.figures(Cell("vit-clean", QUANTIZER, "id"))["calibration"]
    table = evaluator.evaluate(Cell("vit-clean", QUANTIZER, "id")).predictions
    counts = np.array(figure["samples"])
    assert counts.sum() == len(table)
    filled = counts > 0
    values = [np.array(figure[key], dtype=float)[filled] for key in ("confidence", "accuracy")]
    error = (counts[filled] * np.abs(np.subtract(*values))).sum() / counts.sum()
    assert error == pytest.approx(metrics.get("ece").compute(table), abs=1e-5)
    empty = np.array(figure["accuracy"], dtype=object)[~filled]
    assert all(value is None for value in empty)


def test_groups_give_the_metrics_between_groups(evaluator):
    figure = evaluator.figures(Cell("vit-clean", QUANTIZER, "id"))["groups"]
    table = evaluator.evaluate(Cell("vit-clean", QUANTIZER, "id")).predictions
    top1 = [group["top1"] for group in figure.values()]
    ece = [group["ece"] for group in figure.values()]
    for name, found in (
        ("worst-group-top1", min(top1)),
        ("group-top1-range", max(top1) - min(top1)),
        ("group-ece-range", max(ece) - min(ece)),
    ):
        assert found == pytest.approx(metrics.get(name).compute(table), abs=2e-5), name
    assert sum(group["samples"] for group in figure.values()) == len(table)


def test_fp32_and_out_of_distribution_probes_have_their_own_figures(evaluator):
    assert set(evaluator.figures(Cell("vit-clean", "fp32", "id"))) == {"calibration", "groups"}
    assert set(evaluator.figures(Cell("vit-clean", QUANTIZER, "id"))) == {
        "calibration",
        "groups",
        "spectrum",
    }
    found = evaluator.figures(Cell("vit-clean", QUANTIZER, "digits"))
    assert set(found) == {"detection"}
    assert set(found["detection"]) == {"mcm", "max-logit", "energy"}


def test_histograms_hold_every_sample_and_the_curve_gives_the_area():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(1.0, 1.0, 800), rng.normal(0.0, 1.0, 500)
    figure = detection_figure(inside, outside)
    assert (sum(figure["inside"]), sum(figure["outside"])) == (800, 500)
    assert figure["fpr"][0] == figure["tpr"][0] == 0.0
    assert figure["fpr"][-1] == figure["tpr"][-1] == 1.0
    truth = np.r_[np.ones(800), np.zeros(500)]
    scores = np.r_[inside, outside]
    area = np.trapezoid(figure["tpr"], figure["fpr"])
    assert area == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    for x, y in zip(figure["fpr"], figure["tpr"], strict=True):
        assert np.hypot(fpr - x, tpr - y).min() < 1e-4


def test_equal_scores_have_a_range_and_infinite_ones_no_figure():
    figure = detection_figure(np.full(5, 0.3), np.full(4, 0.3))
    assert figure["range"] == [0.3, 1.3]
    assert (sum(figure["inside"]), sum(figure["outside"])) == (5, 4)
    assert detection_figure(np.array([np.inf, 1.0]), np.array([0.0])) == {}


def test_spectra_are_those_of_a_plain_decomposition():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(200, 12)) * np.linspace(3, 0.1, 12)
    quantized = reference + 0.05 * rng.normal(size=reference.shape)
    figure = spectrum_figure(reference, quantized)
    centred = reference - reference.mean(0)
    basis = np.linalg.svd(centred, full_matrices=False)[2]
    at = np.array(figure["rank"]) - 1
    assert figure["signal"] == pytest.approx(((centred @ basis.T) ** 2).mean(0)[at], rel=1e-3)
    residual = (((quantized - reference) @ basis.T) ** 2).mean(0)
    assert figure["residual"] == pytest.approx(residual[at], rel=1e-3)
    assert figure["rank"][0] == 1
    assert figure["rank"][-1] == 12


def test_figures_are_small_strict_json_and_made_once(evaluator, monkeypatch):
    first = evaluator.figures(Cell("vit-clean", QUANTIZER, "id"))
    assert len(json.dumps(first, allow_nan=False)) < 6000

    def fail(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("clipq.evaluation.evaluator.figures", fail)
    assert Evaluator(evaluator.settings).figures(Cell("vit-clean", QUANTIZER, "id")) == first
