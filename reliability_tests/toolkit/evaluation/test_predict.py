"""Predictions from features: hand-computed, and refused where they would mean nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipq.errors import QuantizerError
from clipq.evaluation.known_labels import KnownLabels
from clipq.evaluation.predict import (
    Encoded,
    Head,
    SampleInfo,
    build_predictions,
    check_features,
    cosine_logits,
)

HEAD = Head(np.eye(3, dtype=np.float32), logit_scale=10.0, logit_bias=-2.0)
FEATURES = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]], dtype=np.float32)
SAMPLES = SampleInfo(("a", "b"), np.array([0, 2]), ("x", "y"))


def test_cosines_ignore_length_and_logits_apply_scale_and_bias():
    cosine, logits = cosine_logits(FEATURES, HEAD)
    assert cosine == pytest.approx(np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]))
    assert logits == pytest.approx(cosine * 10 - 2)


def test_a_zero_feature_has_no_direction_and_no_nan():
    cosine, _ = cosine_logits(np.zeros((1, 3), np.float32), HEAD)
    assert cosine.tolist() == [[0.0, 0.0, 0.0]]


KNOWN = np.array([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [0.1, 0.0, 1.0]], np.float32)


def build(features, reference=FEATURES, towers="both", role="in-distribution", samples=SAMPLES):
    return build_predictions(
        role,
        samples,
        Encoded(features, HEAD, KNOWN, temperature=2.0, texts=KNOWN[:2]),
        Encoded(reference, HEAD, KNOWN, temperature=1.0, texts=KNOWN[:2]),
        known=KnownLabels(np.arange(3)),
        towers=towers,
    )


def test_the_table_holds_what_the_model_said():
    table = build(FEATURES)
    assert table.column("prediction").tolist() == [1, 2]
    assert table.column("rank").tolist() == [1, 0]
    assert table.column("correct").tolist() == [0, 1]
    weights = np.exp([6.0, 8.0, 0.0])
    assert table.column("confidence")[0] == pytest.approx(weights[1] / weights.sum())
    assert table.column("max_logit").tolist() == pytest.approx([0.8, 1.0])
    assert table.scalars["temperature"] == 2.0


def test_an_out_of_distribution_table_has_scores_only():
    table = build(FEATURES, role="ood")
    assert {"mcm", "knn", "mahalanobis"} <= set(table.columns)
    assert "correct" not in table.columns


def test_other_labelled_tables_have_no_scores_and_no_twins():
    columns = set(build(FEATURES, role="shift").columns)
    assert {"correct", "confidence", "nll", "fp32_correct", "stays_correct"} <= columns
    assert not {"mcm", "ts_nll", "low_band_wrong"} & columns


def test_a_retrieval_table_compares_images_with_captions():
    table = build(FEATURES, role="retrieval", samples=replace(SAMPLES, owners=np.array([1, 0])))
    # Both captions are as far from the second image: its own stands first.
    assert table.column("i2t_rank").tolist() == [0, 0]
    assert "label" in table.columns
    with pytest.raises(QuantizerError, match="without captions"):
        build(FEATURES, role="retrieval")


def test_a_head_is_narrowed_to_the_classes_of_the_probe():
    samples = replace(SAMPLES, labels=np.array([1, 0]), columns=((2,), (0, 1)))
    cosine, _ = cosine_logits(FEATURES, HEAD, samples.columns)
    assert cosine == pytest.approx(np.array([[0.0, 0.8], [1.0, 0.0]]))
    assert build(FEATURES, role="shift", samples=samples).column("correct").tolist() == [1, 1]


def test_clusters_become_a_column():
    table = build(FEATURES, role="corruption", samples=replace(SAMPLES, clusters=("p", "p")))
    assert table.column("cluster").tolist() == ["p", "p"]


def test_the_log_ratio_of_temperatures_is_against_fp32_s():
    assert build(FEATURES).scalars["temperature_log_ratio"] == pytest.approx(np.log(2.0))


def test_the_worse_tower_decides_the_signal_to_noise_ratio():
    noisy = FEATURES + np.float32(0.5)
    assert build(noisy, towers="text").scalars["sqnr_db"] == float("inf")
    signal, noise = 29.0, 6 * 0.25
    assert build(noisy).scalars["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros_like(FEATURES), "zeroed every image feature"),
        (FEATURES.copy(), "changed nothing"),
        (FEATURES[:, :2], "shape"),
    ],
)
def test_features_that_prove_nothing_are_refused(features, message):
    with pytest.raises(QuantizerError, match=message):
        check_features("q", features, HEAD, FEATURES, HEAD)


def test_a_candidates_table_says_how_well_its_numbers_are_known_and_fp32s_does_not():
    encoded = Encoded(FEATURES, HEAD, KNOWN, temperature=1.0)
    fp32 = build_predictions(
        "in-distribution", SAMPLES, encoded, encoded, known=KnownLabels(np.arange(3)), towers="none"
    )
    ours = build(FEATURES + 0.5)
    assert not [name for name in {**fp32.scalars, **fp32.columns} if "error" in name]
    assert "ts_slope" not in fp32.columns
    points = {name for name in fp32.scalars if name not in ("temperature", "mid_energy")}
    assert points <= {name.removesuffix(".error") for name in ours.scalars}
    assert {"ts_slope", "fp32_ts_slope"} <= set(ours.columns)
    assert ours.scalar("effective_rank.freedom") == 1.0  # two samples, two groups
