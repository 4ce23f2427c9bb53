"""The evaluator: encodes once, keys by content, agrees with open_clip used by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch

from clipq.cases import Candidate, Cell
from clipq.errors import ProbeError
from clipq.evaluation import encoder
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.predict import calibrated_temperature, cosine_logits
from clipq.metrics.classify import classification_columns
from clipq.settings import load_settings


@pytest.fixture
def settings(project):
    return load_settings(project.settings())


def test_fp32_predictions_equal_open_clip_used_by_hand(settings):
    evaluator = Evaluator(settings)
    found = evaluator.evaluate(Cell("vit-clean", "fp32", "id")).predictions
    probe = evaluator.inputs.probes["id"]
    folder = settings.models[0].source
    model, transform = open_clip.create_model_from_pretrained(folder)
    vocabulary = folder.removeprefix("local-dir:") + "/bpe_vocab.txt.gz"
    tokenizer = open_clip.get_tokenizer(folder, bpe_path=vocabulary)
    head = open_clip.build_zero_shot_classifier(
        model.eval(),
        tokenizer=tokenizer,
        classnames=probe.classnames,
        templates=[lambda c, t=t: t.replace("{c}", c) for t in probe.templates],
    )
    images = [transform(image) for image, _ in zip(probe.images(), range(64), strict=False)]
    with torch.inference_mode():
        logits = model.logit_scale.exp() * model.encode_image(torch.stack(images), True) @ head
    probability = logits.softmax(-1).max(-1)
    assert found.column("prediction")[:64].tolist() == probability.indices.tolist()
    assert found.column("confidence")[:64] == pytest.approx(probability.values.numpy(), abs=1e-5)


def test_each_cell_is_encoded_once_whatever_the_number_of_metrics_or_processes(
    settings, tmp_path, monkeypatch
):
    encoded = []
    original = encoder.encode_blocks

    def counting(*arguments, **keywords):
        features = list(original(*arguments, **keywords))
        encoded.append(sum(map(len, features)))
        return features

    monkeypatch.setattr(encoder, "encode_blocks", counting)
    fresh = replace(settings, cache=tmp_path / "fresh")
    for _ in range(2):  # a second evaluator is a second process's view
        evaluator = Evaluator(fresh)
        for _ in range(3):
            evaluator.evaluate(Cell("vit-clean", "rtn:w8", "digits"))
    assert sorted(encoded) == [512, 512, 768, 768]  # w8 and FP32, and their known features


def test_images_are_decoded_once_per_probe_not_per_quantizer(settings, tmp_path, monkeypatch):
    from clipq.data import decoding

    decoded = []
    original = decoding.Image.open

    def counting(stream, *arguments, **keywords):
        decoded.append(1)
        return original(stream, *arguments, **keywords)

    monkeypatch.setattr(decoding.Image, "open", counting)
    evaluator = Evaluator(replace(settings, cache=tmp_path / "fresh"))
    for quantizer in ("fp32", "rtn:w8", "rtn:w4"):
        evaluator.evaluate(Cell("vit-clean", quantizer, "digits"))
    assert len(decoded) == 768 + 512  # the probe and the calibration split


def test_batch_size_and_environment_are_part_of_the_cache_key(settings):
    small = Evaluator(replace(settings, batch_size=32))
    large = Evaluator(settings)
    cell = Cell("vit-clean", "rtn:w8", "id")
    assert small.encoders.identity(cell.candidate) != large.encoders.identity(cell.candidate)
    assert small.encodings.identity(cell) == large.encodings.identity(cell)


def test_the_temperature_comes_from_the_calibration_split(settings):
    evaluator = Evaluator(settings)
    scalar = evaluator.evaluate(Cell("vit-clean", "rtn:w8", "id")).predictions.scalar("temperature")
    known = evaluator.encodings.features(Cell("vit-clean", "rtn:w8", "calibration"))
    labels = evaluator.inputs.calibration.labels
    head = evaluator.encodings.head(Candidate("vit-clean", "rtn:w8"))
    assert calibrated_temperature(known, head, evaluator.inputs.known_labels) == scalar
    _, logits = cosine_logits(known, head)
    scaled, plain = (
        classification_columns(logits, labels, temperature=t)["ts_nll"].mean() for t in (scalar, 1)
    )
    assert scaled <= plain


def test_a_text_only_quantizer_leaves_image_features_but_moves_the_head(settings):
    evaluator = Evaluator(settings)
    fp32 = evaluator.encodings.features(Cell("vit-clean", "fp32", "digits"))
    text = evaluator.encodings.features(Cell("vit-clean", "rtn:w4@text", "digits"))
    assert np.array_equal(fp32, text)
    table = evaluator.evaluate(Cell("vit-clean", "rtn:w4@text", "id")).predictions
    assert np.isfinite(table.scalar("sqnr_db"))


def test_coverage_is_part_of_the_evidence(settings):
    evidence = Evaluator(settings).evaluate(Cell("vit-clean", "rtn:w8a8", "digits")).evidence
    assert evidence["quantizers"]["vit-clean/rtn:w8a8"]["share"] >= 0.99


def test_calibrating_on_the_evaluation_split_is_refused(project):
    path = project.settings()
    path.write_text(path.read_text().replace('split = "calibration"', 'split = "test"'))
    with pytest.raises(ProbeError, match="shares 2,048 images"):
        _ = Evaluator(load_settings(path)).inputs.probes


def test_the_live_reference_goes_past_every_cache(settings, monkeypatch):
    evaluator = Evaluator(settings)
    evaluator.evaluate(Cell("vit-clean", "fp32", "id"))
    called = []
    original = encoder.encode_blocks

    def counting(*arguments, **keywords):
        called.append(1)
        return original(*arguments, **keywords)

    monkeypatch.setattr(encoder, "encode_blocks", counting)
    live = evaluator.live_reference("vit-clean", 16)
    stored = evaluator.evaluate(Cell("vit-clean", "fp32", "id")).predictions
    assert called == [1]
    assert live.column("max_logit") == pytest.approx(stored.column("max_logit")[:16], abs=1e-5)
