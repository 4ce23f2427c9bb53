"""What `clipq inspect` tabulates: by group, bin, set and frequency, beside FP32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clipq.cases import Candidate, Cell
from clipq.errors import ProbeError, QuantizerError
from clipq.evaluation import inspection, spectrum
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.local import gl_mcm, local_features
from clipq.metrics import metrics
from clipq.settings import ModelSettings, load_settings

FIXTURES = Path(__file__).parents[3] / "fixtures"
QUANTIZER = "rtn:w4"


@pytest.fixture
def evaluator(project) -> Evaluator:
    settings = load_settings(project.settings())
    models = tuple(
        ModelSettings(name, f"local-dir:{FIXTURES}/models/{name}")
        for name in ("vit-clean", "resnet", "siglip")
    )
    probes = tuple(replace(p, distance="far") if p.role == "ood" else p for p in settings.probes)
    return Evaluator(replace(settings, models=models, probes=probes))


def test_groups_and_their_summary_are_the_metrics(evaluator):
    found = inspection.by_group(evaluator, Cell("vit-clean", QUANTIZER, "id"))
    rows = {row[0]: dict(zip(found.headers, row, strict=True)) for row in found.rows}
    table = evaluator.evaluate(Cell("vit-clean", QUANTIZER, "id")).predictions
    assert sum(row["samples"] or 0 for row in rows.values()) == len(table)
    for name, summary, column in (
        ("worst-group-top1", "smallest", "top1"),
        ("group-top1-range", "range", "top1"),
        ("group-top1-std", "std", "top1"),
        ("group-ece-range", "range", "ece"),
        ("group-tpr-range", "range", "tpr"),
    ):
        expected = metrics.get(name).compute(table)
        assert rows[summary][f"{column} quantized"] == pytest.approx(expected, abs=1e-9), name


def test_bins_hold_every_sample_and_give_the_calibration_error(evaluator):
    found = inspection.by_bin(evaluator, Cell("vit-clean", QUANTIZER, "id"))
    table = evaluator.evaluate(Cell("vit-clean", QUANTIZER, "id")).predictions
    rows = [dict(zip(found.headers, row, strict=True)) for row in found.rows]
    counts = np.array([row["samples quantized"] for row in rows])
    gaps = np.array([abs(row["confidence quantized"] - row["accuracy quantized"]) for row in rows])
    assert counts.sum() == len(table)
    error = np.nansum(counts * gaps) / counts.sum()
    assert error == pytest.approx(metrics.get("ece").compute(table), abs=1e-9)


def test_detection_is_tabulated_by_score_set_and_distance(evaluator):
    found = inspection.detection(evaluator, Candidate("vit-clean", QUANTIZER))
    rows = {row[:2]: row for row in found.rows}
    known = evaluator.evaluate(Cell("vit-clean", QUANTIZER, "id")).predictions
    table = evaluator.evaluate(Cell("vit-clean", QUANTIZER, "digits")).predictions
    expected = metrics.get("fpr95-mahalanobis").compute(table, known)
    assert rows["mahalanobis", "digits"][-1] == expected
    assert rows["mahalanobis", "mean of far"][3:] == rows["mahalanobis", "digits"][3:]


def test_what_cannot_be_tabulated(evaluator):
    with pytest.raises(ProbeError, match="no groups of labelled samples"):
        inspection.by_group(evaluator, Cell("vit-clean", QUANTIZER, "digits"))
    with pytest.raises(ProbeError, match="no labelled samples"):
        inspection.by_bin(evaluator, Cell("vit-clean", QUANTIZER, "digits"))


class TestLocalScores:
    def test_a_token_that_sees_itself_alone_is_the_class_token_of_one_token(self, evaluator):
        """With one token, attention is its value path: compare with the layers written out."""
        loaded = evaluator.encoders.model("vit-clean")
        visual = loaded.model.visual
        images = loaded.preprocess.normalise(
            evaluator.inputs.images("digits", loaded.preprocess)[:4]
        )
        found = local_features(loaded.model, images)
        assert found.shape == (4, 16, 96)
        seen = []
        block = visual.transformer.resblocks[-1]
        handle = block.ln_1.register_forward_hook(lambda *a: seen.append(a[-1]))
        with torch.inference_mode():
            loaded.model.encode_image(images)
        handle.remove()
        with torch.inference_mode():
            width = block.attn.embed_dim
            weight, bias = (
                block.attn.in_proj_weight[2 * width :],
                block.attn.in_proj_bias[2 * width :],
            )
            value = torch.nn.functional.linear(seen[0][:, 1:], weight, bias)
            expected = visual.ln_post(block.attn.out_proj(value)) @ visual.proj
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_the_score_adds_the_best_patch_and_works_quantized(self, evaluator):
        for quantizer in ("fp32", "rtn:w8a8"):
            cell = Cell("vit-clean", quantizer, "digits")
            score = gl_mcm(evaluator, cell)
            own = evaluator.evaluate(cell).predictions.column("mcm")
            assert ((score - own > 1 / 16) & (score - own <= 1)).all()

    @pytest.mark.parametrize("model", ["resnet", "siglip"])
    def test_towers_without_such_tokens_are_named(self, evaluator, model):
        with pytest.raises(QuantizerError, match="exposes no tokens"):
            inspection.detection(evaluator, Candidate(model, "fp32"), local=True)


class TestSpectra:
    def test_ranks_sum_to_the_whole_signal_and_residual(self, evaluator):
        rows = np.array(
            [row[1:3] for row in spectrum.by_rank(evaluator, Candidate("resnet", QUANTIZER)).rows]
        )
        reference = evaluator.encodings.features(Cell("resnet", "fp32", "id")).astype(np.float64)
        residual = evaluator.encodings.features(Cell("resnet", QUANTIZER, "id")) - reference
        centred = reference - reference.mean(axis=0)
        assert rows[:, 0].sum() == pytest.approx((centred**2).sum() / len(centred))
        assert rows[:, 1].sum() == pytest.approx((residual**2).sum() / len(residual))

    @pytest.mark.parametrize("model", ["vit-clean", "resnet", "siglip"])
    def test_every_tower_has_a_map_and_answers_gratings(self, evaluator, model):
        for table in (spectrum.by_frequency, spectrum.by_grating):
            values = np.array(
                [row[1:] for row in table(evaluator, Candidate(model, QUANTIZER)).rows]
            )
            assert np.isfinite(values).all()
        shares = [
            row[1:] for row in spectrum.by_frequency(evaluator, Candidate(model, QUANTIZER)).rows
        ]
        assert np.sum(shares, axis=0) == pytest.approx([1.0, 1.0])

    def test_a_grating_has_its_energy_at_its_frequency(self):
        grid = np.arange(16)
        for cycles, ring in ((0, 0), (1, 0), (4, 2), (8, 5)):
            wave = np.cos(2 * np.pi * cycles * grid / 16)
            maps = np.broadcast_to(wave, (2, 3, 16, 16))
            energy = spectrum.radial_energy(maps, 8)
            assert energy[ring] == pytest.approx(1.0 if cycles else 0.0)


def test_the_command_prints_and_writes_strict_json(project):
    project.settings(quantizers=("rtn:w8",))
    done = project.clipq("inspect", "calibration", "vit-clean/rtn:w8", "--json", "bins.json")
    assert done.returncode == 0, done.stderr
    assert "id by confidence" in done.stdout
    document = json.loads((project.root / "bins.json").read_text(), parse_constant=pytest.fail)
    assert len(document["tables"]["id by confidence"]) == 15
    for arguments, message in (
        (("groups", "vit-clean"), "names no model and quantizer"),
        (("groups", "vit-claen/rtn:w8"), "did you mean 'vit-clean'"),
        (("groups", "vit-clean/rtn:w8/ide"), "did you mean 'id'"),
    ):
        done = project.clipq("inspect", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
