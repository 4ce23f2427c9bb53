"""A tuned candidate has the towers of another: what is encoded is shared, the scale is its own."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

import clipq
from clipq.cases import Candidate, Cell
from clipq.errors import ProbeError, QuantizerError, RecordError, SettingsError
from clipq.evaluation import encoder
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.logit_scale import Tuning
from clipq.evaluation.mixture_evaluator import MixtureEvaluator
from clipq.evaluation.plan import Selection, plan, planned_candidates, simulation_of
from clipq.gating.latency import Latencies
from clipq.metrics import metrics
from clipq.models import logit_map
from clipq.quant import quantize
from clipq.recorded_evidence import check_evidence
from clipq.records import CaseResult, RunRecord
from clipq.report.candidates import candidate_lines
from clipq.report.card import card_html, card_markdown, release_card
from clipq.report.markdown import markdown
from clipq.report.text import summary
from clipq.settings import AttackSettings, ProbeSettings, StatisticsSettings, load_settings
from clipq.shapes import Document
from clipq.testing import SmallInputs, small_clip
from clipq.verdicts import Verdict

FIXTURES = Path(__file__).parents[3] / "fixtures"
BASE = Candidate("vit-clean", "rtn:w8")
TUNED = Candidate("vit-clean", "rtn:w8+logit-scale")
FP32 = Candidate("vit-clean", "fp32+logit-scale")


@pytest.fixture
def settings(project):
    """The calibration split, which has captions, is the proxy where none is declared."""
    return load_settings(project.settings(quantizers=("rtn:w8", str(TUNED.quantizer))))


@pytest.fixture
def evaluator(settings):
    return Evaluator(settings)


def test_what_is_encoded_is_encoded_once_for_both(settings, tmp_path, monkeypatch):
    seen: list[tuple[str, int]] = []
    for name in ("encode_blocks", "encode_texts", "class_embeddings"):
        original = getattr(encoder, name)

        def counting(*arguments, name=name, original=original, **keywords):
            found = original(*arguments, **keywords)
            if name == "encode_blocks":
                found = list(found)
                seen.append((name, sum(map(len, found))))
            else:
                seen.append((name, len(found)))
            return found

        monkeypatch.setattr(encoder, name, counting)
    few = tuple(replace(probe, samples=128) for probe in settings.probes)
    fresh = Evaluator(replace(settings, probes=few, cache=tmp_path / "fresh"))
    fresh.evaluate(BASE.on("digits"))
    seen.clear()
    fresh.evaluate(TUNED.on("digits"))
    captions = sum(len(text.splitlines()) for text in fresh.inputs.proxy.captions)
    assert seen == [("encode_texts", captions)]  # the images of the pairs are the known ones
    seen.clear()
    again = Evaluator(fresh.settings)  # a second process's view
    for form in (TUNED, BASE):
        again.evaluate(form.on("digits"))
    assert seen == []


def test_only_the_logits_are_others(evaluator):
    """Confidences are those of the same cosines and the other scale; ranks and MCM are the same."""
    base, tuned = (evaluator.evaluate(form.on("id")).predictions for form in (BASE, TUNED))
    heads = [evaluator.encodings.head(form) for form in (BASE, TUNED)]
    tuning = evaluator.encodings.tuning(TUNED)
    assert heads[1].logit_scale == tuning.scale != tuning.scale_before == heads[0].logit_scale
    assert heads[1].embeddings is not None
    assert np.array_equal(heads[0].embeddings, heads[1].embeddings)
    features = evaluator.encodings.features(BASE.on("id")).astype(np.float64)
    cosine = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ heads[0].embeddings.T
    assert tuned.column("confidence") == pytest.approx(
        softmax(tuning.scale * cosine, axis=1).max(axis=1), abs=1e-6
    )
    for column in ("rank", "prediction", "mcm", "knn", "max_logit", "cosine_distance"):
        assert np.array_equal(tuned.column(column), base.column(column)), column
    # The temperature takes back what the scale was given.
    assert tuned.column("ts_confidence") == pytest.approx(base.column("ts_confidence"), abs=1e-5)
    ratio = tuned.scalar("temperature") / base.scalar("temperature")
    assert ratio == pytest.approx(tuning.scale / tuning.scale_before, rel=1e-4)
    ece, nll = metrics.get("ece"), metrics.get("nll")
    assert ece.compute(tuned, tuned) < ece.compute(base, base)  # vit-clean is over-confident
    assert nll.compute(tuned, tuned) < nll.compute(base, base)


def test_fp32_with_a_tuned_scale_is_a_candidate_and_the_reference_stays(evaluator):
    before = evaluator.evaluate(FP32.reference.on("id"))
    tuned = evaluator.evaluate(FP32.on("id"))
    evaluator.figures(FP32.on("id"))
    assert not FP32.is_reference
    assert tuned.identity == before.identity  # comparable with the same baseline
    assert np.array_equal(tuned.predictions.column("rank"), before.predictions.column("rank"))
    assert not np.array_equal(
        tuned.predictions.column("confidence"), before.predictions.column("confidence")
    )
    assert metrics.get("sqnr").compute(tuned.predictions, tuned.predictions) == np.inf
    assert "quantizers" not in tuned.evidence
    assert evaluator.encodings.head(FP32.reference).logit_scale == pytest.approx(30.87, abs=0.01)
    assert evaluator.batches.check(FP32) == ()


def test_every_key_but_that_of_predictions_is_the_base_s(settings):
    attack = AttackSettings("fgsm", epsilon=1.0)
    fgsm = ProbeSettings(
        "fgsm", "adversarial", f"webdataset:{FIXTURES}/data/shapes", samples=16, attack=attack
    )
    evaluator = Evaluator(replace(settings, probes=(*settings.probes, fgsm)))
    encodings = evaluator.encodings
    assert encodings.encoders.identity(TUNED) == encodings.encoders.identity(BASE)
    assert encodings.head_key(TUNED) == encodings.head_key(BASE)
    for probe in ("id", "digits", "calibration", "fgsm"):  # images made against itself, too
        assert encodings.features_key(TUNED.on(probe)) == encodings.features_key(BASE.on(probe))
    assert encodings.form(TUNED) != encodings.form(BASE)
    error = QuantizerError("it depends on the batch", hint="")
    evaluator.encoders.refuse(BASE, error)
    with pytest.raises(QuantizerError, match="depends on the batch"):
        evaluator.evaluate(TUNED.on("id"))


def test_other_captions_are_another_tuning_and_the_same_towers(settings, evaluator):
    captions = tuple(reversed(evaluator.inputs.proxy.captions))
    other = replace(evaluator.inputs.probes["calibration"], captions=captions)
    given = Evaluator(settings, probes={"calibration": other})
    fp32 = FP32.reference.on("calibration")
    assert given.encodings.features_key(fp32) == evaluator.encodings.features_key(fp32)
    assert given.encodings.form(FP32) != evaluator.encodings.form(FP32)
    with pytest.raises(ProbeError, match=r"probe 'calibration'.*(no more like|smallest at)"):
        given.evaluate(FP32.on("id"))
    lacking = Evaluator(settings, probes={"calibration": replace(other, captions=None)})
    with pytest.raises(SettingsError, match="no probe has the role 'proxy'"):
        lacking.evaluate(FP32.on("id"))


def test_layers_in_float_have_their_scale_tuned_anew(evaluator):
    """With all of them in float it is FP32's tuned scale; with none, the candidate's."""
    mixed = MixtureEvaluator(evaluator, TUNED)
    layers = frozenset(mixed.mixture.layers)
    for floats, same in ((layers, FP32), (frozenset(), TUNED)):
        found = mixed.tables(floats, "id").predictions.column("confidence")
        expected = evaluator.evaluate(same.on("id")).predictions.column("confidence")
        assert found == pytest.approx(expected, abs=1e-5)


# -- planning, settings, latency ------------------------------------------------------------------

ARTIFACT = """
[[artifacts]]
name = "shipped"
model = "vit-clean"
runtime = "features"
image = "deploy"
{rest}
"""


def test_a_matrix_names_tuned_candidates_and_globs_select_them(project):
    path = project.settings(
        quantizers=("rtn:w8a8@vision", "rtn:w8a8@vision+logit-scale", "fp32+logit-scale"),
        after=ARTIFACT.format(rest='logit_scale = true\ntext = "fp32"\nformat = "w8a8"'),
    )
    settings = load_settings(path)
    names = ["rtn:w8a8@vision", "rtn:w8a8@vision+logit-scale", "fp32+logit-scale", "shipped"]
    tuned = "shipped+logit-scale"
    assert [each.quantizer for each in planned_candidates(settings)] == [*names, tuned]
    chosen = plan(settings, Selection(quantizers=("*+logit-scale",)))
    assert {case.quantizer for case in chosen} == {*names[1:3], tuned}
    chosen = plan(settings, Selection(quantizers=(tuned,)))
    assert {case.quantizer for case in chosen} == {tuned}
    for name, simulation in (("shipped", names[0]), (tuned, names[1])):
        assert simulation_of(Candidate("vit-clean", name), settings) == simulation
    own = replace(settings, quantizers=names[:1])
    assert simulation_of(Candidate("vit-clean", tuned), own) == ""


def test_an_artifact_without_a_text_tower_has_nothing_to_tune(project):
    rest = 'logit_scale = true\nhead = "deploy/head.npz"'
    with pytest.raises(SettingsError, match="both logit_scale and head"):
        load_settings(project.settings(after=ARTIFACT.format(rest=rest)))


def test_an_artifact_s_scale_is_tuned_on_what_its_files_say(project):
    """Features that were brought: half of FP32's image features are rounded away."""
    rest = 'logit_scale = true\ntext = "fp32"'
    settings = load_settings(project.settings(after=ARTIFACT.format(rest=rest)))
    evaluator = Evaluator(settings)
    (project.root / "deploy").mkdir()
    for probe in ("id", "calibration", "digits"):
        features = evaluator.encodings.features(BASE.reference.on(probe)).round(1)
        ids = np.array(evaluator.inputs.probes[probe].ids)
        np.savez(project.root / "deploy" / f"{probe}.npz", ids=ids, features=features)
    base, tuned = (Candidate("vit-clean", f"shipped{end}") for end in ("", "+logit-scale"))
    found = {form: evaluator.evaluate(form.on("id")) for form in (base, tuned)}
    entries = [found[form].evidence["artifacts"][str(form)] for form in (base, tuned)]
    assert entries[0] == entries[1]
    tuning = evaluator.encodings.tuning(tuned)
    assert tuning.scale_before == pytest.approx(30.87, abs=0.01)
    assert tuning.scale == pytest.approx(evaluator.encodings.tuning(FP32).scale, rel=0.2)
    assert tuning.scale != evaluator.encodings.tuning(FP32).scale
    ece = metrics.get("ece")
    values = [ece.compute(found[form].predictions, found[form].predictions) for form in found]
    assert values[1] < values[0]


def test_a_tuned_scale_takes_as_long_as_its_base():
    measured = Latencies("a phone", {"m/rtn:w8": 3.0, "m/fp32": 6.0})
    assert measured.evidence("m/rtn:w8+logit-scale")["ratio_to_fp32"] == 0.5
    assert measured.evidence("m/fp32+logit-scale") == measured.evidence("m/fp32")
    own = replace(measured, milliseconds={"m/rtn:w8": 3.0, "m/rtn:w8+logit-scale": 3.1})
    assert own.evidence("m/rtn:w8+logit-scale")["milliseconds"] == 3.1


# -- what is said of it ---------------------------------------------------------------------------

ENTRY = Tuning(37.94, 0.0, 42.13, 0.0, 1.6842, 1.9824, "contrastive", 1000, "proxy", "0f" * 32)
LINE = "logit scale 42.1 -> 37.9, tuned on 1,000 pairs of 'proxy'"


def recorded(entry: Tuning = ENTRY) -> RunRecord:
    evidence = {"tunings": {str(TUNED): entry.to_plain()}}
    result = CaseResult(TUNED.on("id").case("ece"), Verdict.PASS, evidence=evidence)
    return RunRecord("ci", 1, (result,))


def test_every_report_says_how_the_scale_was_tuned():
    record = recorded()
    assert LINE in candidate_lines(record)[0].text
    card = release_card(record, TUNED)
    for report in (summary(record), markdown(record), card_markdown(card)):
        assert LINE in html.unescape(report)
    assert LINE in html.unescape(card_html(card))
    siglip = replace(ENTRY, bias=-11.8, bias_before=-10.4)
    assert "42.1 -> 37.9, bias -10.4 -> -11.8, tuned" in candidate_lines(recorded(siglip))[0].text


@pytest.mark.parametrize(
    ("key", "value"), [("scale", None), ("scale", "37"), ("pairs", -1), ("loss", True)]
)
def test_a_record_whose_tuning_cannot_be_read_is_refused(key, value):
    document = Document(Path("report.json"), "JSON", RecordError)
    entry = ENTRY.to_plain()
    check_evidence({"tunings": {str(TUNED): json.loads(json.dumps(entry))}}, document)
    with pytest.raises(RecordError, match=f"{key} = "):
        check_evidence({"tunings": {str(TUNED): entry | {key: value}}}, document)
    del entry[key]
    with pytest.raises(RecordError, match=key):
        check_evidence({"tunings": {str(TUNED): entry}}, document)


def test_a_cell_s_base_is_of_the_same_probe():
    assert Cell.parse("m/rtn:w8@vision+logit-scale/id").base == Cell("m", "rtn:w8@vision", "id")


# -- from Python ----------------------------------------------------------------------------------

MODEL = f"local-dir:{FIXTURES}/models/vit-clean"


@pytest.fixture(scope="module")
def pairs():
    """256 images with a caption each."""
    return clipq.open_probe(f"webdataset:{FIXTURES}/data/captions", role="proxy")


def test_python_s_quantize_returns_a_model_with_the_tuned_scale(pairs):
    """By the pairs' own captions, as a proxy, or by captions given: other names, other batches."""
    pictures = [image.convert("RGB") for image in pairs.images()]
    found = [
        clipq.quantize(MODEL, "rtn:w8@vision+logit-scale", images, **given).model
        for images, given in (
            (pairs, {}),
            (pictures[:8], {"proxy": pairs}),
            (pictures, {"captions": pairs.captions}),
        )
    ]
    untuned = clipq.quantize(MODEL, "rtn:w8@vision", pictures[:8]).model
    scales = [logit_map(model)[0] for model in (untuned, *found)]
    assert scales[0] == pytest.approx(30.87, abs=0.01)
    assert scales[2] == pytest.approx(scales[1], rel=1e-6)
    assert scales[3] == pytest.approx(scales[1], rel=0.03)
    assert abs(scales[1] - scales[0]) > 5
    assert torch.equal(untuned.text_projection, found[0].text_projection)


def test_python_s_evaluate_tunes_on_a_proxy_or_on_captions_of_the_calibration_split(pairs):
    data = clipq.open_probe(f"webdataset:{FIXTURES}/data/shapes", split="calibration")
    arguments = {"metrics": ["top1", "ece"], "statistics": StatisticsSettings(replicates=100)}
    own = clipq.evaluate(MODEL, "fp32+logit-scale", data, **arguments)
    other = clipq.evaluate(MODEL, "fp32+logit-scale", data, proxy=pairs, **arguments)
    assert (own.tuning["proxy"], own.tuning["pairs"]) == ("calibration", 102)
    assert (other.tuning["proxy"], other.tuning["pairs"]) == ("proxy", 256)
    assert own.coverage == {}
    assert own["top1"].estimate.loss == 0.0
    assert own["ece"].observed != other["ece"].observed != own["ece"].reference
    assert "tuned on 256 pairs of 'proxy'" in str(other)


@pytest.mark.parametrize(
    ("quantizer", "given", "error", "said"),
    [
        ("rtn:w8", {"proxy": "webdataset:x"}, QuantizerError, "tunes nothing, and a proxy is"),
        ("fp32+logit-scale", {}, QuantizerError, "quantizes nothing"),
        ("rtn:w8+logit-scale", {}, ProbeError, "no image-caption pairs"),
        ("rtn:w8+logit-scale", {"captions": ["a"] * 7}, ProbeError, "7 captions of 64 images"),
        ("rtn:w8+logit-scale", {"captions": ["a"] * 64}, ProbeError, "all 64 pairs have one"),
    ],
)
def test_what_python_cannot_tune_is_refused(quantizer, given, error, said):
    noise = np.random.default_rng(0).integers(0, 255, (64, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(error, match=said):
        clipq.quantize(MODEL, quantizer, noise, **given)


def test_a_tensor_of_images_has_no_captions_beside_it():
    with pytest.raises(ProbeError, match="no image-caption pairs"):
        clipq.quantize(MODEL, "rtn:w8+logit-scale", torch.zeros(64, 3, 32, 32), captions=["a"] * 64)


def test_quantizers_of_modules_leave_tuning_to_who_has_pairs():
    with pytest.raises(QuantizerError, match="takes image-caption pairs"):
        quantize(small_clip("vit"), "rtn:w8+logit-scale", SmallInputs().calibration)
