"""Whether FP32 itself is sound is said wherever it is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from clipq.cases import Candidate, Case
from clipq.cli.fp32_in_short import in_short
from clipq.gating.baseline import load_baseline
from clipq.gating.known_numbers import known_share
from clipq.gating.soundness import headlines, remarks
from clipq.metrics import Predictions
from clipq.records import CaseResult, RunRecord
from clipq.report.card import card_html, card_markdown, release_card
from clipq.report.html.page_payload import payload
from clipq.report.markdown import markdown
from clipq.report.text import summary
from clipq.verdicts import Verdict

REPOSITORY = Path(__file__).parents[3]
MODELS = ("resnet", "siglip", "vit-clean", "vit-noisy")


@pytest.fixture(scope="module")
def stored():
    return {name: load_baseline(REPOSITORY / "baselines", name) for name in MODELS}


@pytest.fixture
def sound(stored):
    """A baseline that nothing speaks against: of one probe, and of what no score mistakes."""
    tables = {name: stored["siglip"].predictions[name] for name in ("id", "captions", "digits")}
    columns = {key: kept for key, kept in tables["digits"].columns.items() if key != "energy"}
    tables["digits"] = Predictions(columns)
    return replace(stored["siglip"], predictions=tables, pooled={})


def changed(baseline, probe, **columns):
    table = baseline.predictions[probe]
    other = Predictions({**table.columns, **columns}, table.scalars)
    return replace(baseline, predictions={**baseline.predictions, probe: other})


def test_a_sound_model_has_no_remarks(sound):
    assert remarks(sound, "id") == []


def test_embedded_models_have_those_that_are_true(stored):
    said = {name: remarks(baseline, "id") for name, baseline in stored.items()}
    energy = {
        (name, probe)
        for name, baseline in stored.items()
        for probe in ("near-ood", "textures", "digits")
        for score in ("mcm", "max-logit", "energy", "entropy", "knn", "mahalanobis")
        if baseline.values[f"{probe}.auroc-{score}"].value < 0.5 and score == "energy"
    }
    assert len(energy) == 11
    for name in MODELS:
        (text,) = [text for text in said[name] if "energy" in text]
        assert {probe for probe in ("near-ood", "textures", "digits") if probe in text} == {
            probe for model, probe in energy if model == name
        }
    assert [len(said[name]) for name in MODELS] == [1, 1, 1, 2]  # vit-noisy: kNN on digits too


def test_intervals_are_wilsons_and_chance_is_cohens():
    known = known_share(np.arange(40) < 13, Predictions({}), chance=0.1)
    assert (known.low, known.high) == pytest.approx(
        tuple(binomtest(13, 40).proportion_ci(method="wilson"))
    )
    labels, answers = np.random.default_rng(5).integers(0, 3, (2, 200))
    table = Predictions(
        {
            "label": labels,
            "prediction": answers,
            "rank": (labels != answers).astype(np.int64),
            "confidence": np.full(200, 0.5),
            "correct": (labels == answers).astype(np.int64),
        }
    )
    baseline = replace(load_baseline(REPOSITORY / "baselines", "resnet"), pooled={})
    top1 = headlines(replace(baseline, predictions={"id": table}), "id")[0].top1
    kappa = (top1.value - top1.chance) / (1 - top1.chance)
    assert kappa == pytest.approx(cohen_kappa_score(labels, answers))


def test_answers_that_have_nothing_to_do_with_labels_are_at_chance(sound):
    table = sound.predictions["id"]
    answers = np.random.default_rng(0).permutation(table.column("prediction"))
    wrong = (answers != table.column("label")).astype(np.int64)
    (said,) = remarks(changed(sound, "id", prediction=answers, rank=wrong), "id")
    assert said.startswith("top-1 of id is 0.0")
    assert "check classes, labels, templates and preprocessing" in said


def test_one_answer_for_all_is_at_chance_however_common_the_class(sound):
    labels = np.where(np.arange(2048) < 1900, 3, 4)
    wrong = (labels != 3).astype(np.int64)
    altered = changed(sound, "id", label=labels, prediction=np.full(2048, 3), rank=wrong)
    (said,) = remarks(altered, "id")
    assert "top-1 of id is 0.928" in said
    assert "no better than its answers dealt out at random (0.928)" in said


def test_scores_upside_down_and_scores_that_tell_nothing(sound):
    outside = -sound.predictions["digits"].column("mcm") + 2
    (said,) = remarks(changed(sound, "digits", mcm=outside), "id")
    assert said.startswith("the mcm score has an AUROC below 0.5 on digits (0.")
    scores = ("mcm", "max_logit", "neg_entropy", "knn", "mahalanobis")
    alike = {score: sound.predictions["id"].column(score)[:768] for score in scores}
    said = remarks(changed(sound, "digits", **alike), "id")
    assert said[0].startswith("no score tells digits from what is in distribution")


def test_remarks_count_clusters(sound):
    inside, outside = (sound.predictions[name] for name in ("id", "digits"))
    wrong = np.random.default_rng(0).permutation(np.arange(2048) < 1100).astype(np.int64)
    frames = np.array([f"video={at // 64}" for at in range(2048)])
    # 32 clusters that mean nothing: half of the answers are right, far from chance.
    assert remarks(changed(sound, "id", rank=wrong, cluster=frames), "id") == []
    # Two clusters of 1,024, one right, one wrong: nobody knows.
    halves = np.arange(2048) // 1024
    two = changed(sound, "id", rank=halves, cluster=np.array([f"video={h}" for h in halves]))
    (said,) = remarks(two, "id")
    assert "not surely better than its answers dealt out at random" in said

    # Six clusters of 128 equal scores.
    video = np.arange(len(outside)) // 128
    scores = np.quantile(inside.column("mcm"), [0.9, 0.8, 0.7, 0.6, 0.5, 0.1])[video]
    (sure,) = remarks(changed(sound, "digits", mcm=scores), "id")
    assert "AUROC below 0.5 on digits (0.400)" in sure
    named = np.array([f"video={one}" for one in video])
    (said,) = remarks(changed(sound, "digits", mcm=scores, cluster=named), "id")
    assert "AUROC below 0.5 on digits (0.400, not surely)" in said


def test_temperature_that_does_harm(sound):
    flat = np.full(2048, 0.4)
    (said,) = remarks(changed(sound, "id", ts_confidence=flat), "id")
    assert "temperature scaling makes id worse: ECE is 0.037, and 0.534 after it" in said
    table = sound.predictions["id"]
    ended = Predictions(table.columns, {**table.scalars, "temperature": 100.0})
    (said,) = remarks(replace(sound, predictions={**sound.predictions, "id": ended}), "id")
    assert "hardly any answer on the calibration split is right" in said


def test_captions_that_are_found_by_chance(sound):
    ranks = np.arange(256)
    (said,) = remarks(changed(sound, "captions", i2t_rank=ranks), "id")
    assert "recall at 1 of captions is 0.004" in said


def test_the_same_remark_stands_in_every_report(stored):
    (remark,) = remarks(stored["siglip"], "id")
    shown = in_short(stored["siglip"], "id")
    assert f"FP32 itself: {remark}" in shown
    assert "0.934 [0.923, 0.944]" in shown

    entry = {"file": "b", "approved": "a", "reason": "r", "columns_sha256": "c"}
    evidence = {"baselines": {"siglip": entry | {"remarks": [remark]}}}
    case = CaseResult(Case.parse("siglip/rtn:w8/id.ece"), Verdict.PASS, evidence=evidence)
    record = RunRecord.from_plain(RunRecord("ci", 1, (case,)).to_plain())
    assert f"FP32 itself, siglip: {remark}" in summary(record)
    card = release_card(record, Candidate("siglip", "rtn:w8"))
    said = remark.replace("(0.080)", "").partition(" on ")[0]
    for text in (markdown(record), card_markdown(card), card_html(card)):
        assert "FP32 itself" in text
        assert said in text
    assert payload(record)["evidence"]["baselines"]["siglip"]["remarks"] == [remark]


def test_a_baseline_without_the_probe_or_without_samples_has_no_remarks(sound):
    assert remarks(sound, "other") == []
    assert remarks(replace(sound, predictions={"id": Predictions({})}), "id") == []
