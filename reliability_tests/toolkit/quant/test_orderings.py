"""Orderings that papers report hold here too: on the embedded models, and with planted outliers."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch
from torch import nn

from clipq.cases import Candidate, Cell
from clipq.errors import QuantizerError
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.mixture_evaluator import MixtureEvaluator
from clipq.quant import QuantizerSpec, quantize
from clipq.settings import load_settings

REPOSITORY = Path(__file__).parents[3]


def relative_error(method: str, model: nn.Module, sample, original) -> float:
    found = sample.encode(quantize(model, QuantizerSpec.parse(method), sample.calibration).model)
    return sum(float((f - o).norm() / o.norm()) for f, o in zip(found, original, strict=True))


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    text = (REPOSITORY / "clipq.toml").read_text()
    for folder in ("baselines", "fixtures"):
        text = text.replace(f'"{folder}', f'"{REPOSITORY / folder}')
        text = text.replace(f"local-dir:{folder}", f"local-dir:{REPOSITORY / folder}")
        text = text.replace(f"webdataset:{folder}", f"webdataset:{REPOSITORY / folder}")
    path = tmp_path_factory.mktemp("orderings") / "clipq.toml"
    path.write_text(text)
    return Evaluator(load_settings(path))


class TestEmbeddedModels:
    @pytest.mark.parametrize("model", ["vit-clean", "vit-noisy", "resnet", "siglip"])
    @pytest.mark.parametrize("number_format", ["w4", "w3g32"])
    def test_gptq_has_smaller_layer_errors_than_rounding_to_nearest(
        self, evaluator, model, number_format
    ):
        """As signal-to-noise ratio of the outputs, inputs exact, over the calibration split."""
        better = []
        plain, gptq = (
            MixtureEvaluator(
                evaluator, Candidate(model, f"{method}:{number_format}")
            ).mixture.distortions()
            for method in ("rtn", "gptq")
        )
        for name, found in gptq.items():
            better.append(found.own - plain[name].own)
        assert statistics.median(better) > 1.0
        assert sum(x > -0.1 for x in better) >= 0.9 * len(better)

    @pytest.mark.parametrize("model", ["vit-clean", "vit-noisy", "siglip"])
    def test_rotation_helps_4_bit_activations(self, evaluator, model):
        plain, rotated = (
            evaluator.evaluate(Cell(model, f"{method}:w8a4", "digits")).predictions.scalar(
                "sqnr_db"
            )
            for method in ("rtn", "quarot")
        )
        assert rotated > plain

    @pytest.mark.parametrize("model", ["vit-clean", "vit-noisy", "resnet", "siglip"])
    @pytest.mark.parametrize("method", ["gptq:w3", "awq:w3"])
    def test_calibrated_weights_keep_features_closer(self, evaluator, model, method):
        plain, found = (
            evaluator.evaluate(Cell(model, text, "digits")).predictions.scalar("sqnr_db")
            for text in ("rtn:w3", method)
        )
        assert found > plain


class TestPlantedOutliers:
    def outliers(self, fresh):
        """A model whose layer norms single out a few channels, as those of trained CLIPs do."""
        model = fresh("vit")
        with torch.no_grad():
            for block in [*model.visual.transformer.resblocks, *model.transformer.resblocks]:
                for norm, reader in (
                    (block.ln_1, block.attn.in_proj_weight),
                    (block.ln_2, block.mlp.c_fc.weight),
                ):
                    norm.weight[::16] *= 40
                    norm.bias[::16] *= 40
                    reader[:, ::16] /= 40
        return model

    def test_smoothing_helps_8_bit_activations_with_outliers(self, fresh, sample):
        model = self.outliers(fresh)
        original = sample.encode(model)
        plain = relative_error("rtn:w8a8", model, sample, original)
        assert relative_error("smoothquant:w8a8", model, sample, original) < 0.5 * plain

    def test_rotation_helps_4_bit_activations_with_outliers(self, fresh, sample):
        model = self.outliers(fresh)
        original = sample.encode(model)
        plain = relative_error("rtn:w8a4", model, sample, original)
        assert relative_error("quarot:w8a4", model, sample, original) < 0.8 * plain
        assert relative_error("gptq:w8a4,rotation=hadamard", model, sample, original) < 0.8 * plain

    def test_correcting_biases_helps_coarse_weights(self, vit, sample):
        original = sample.encode(vit)
        plain = relative_error("rtn:w3", vit, sample, original)
        assert relative_error("rtn:w3,bias=correct", vit, sample, original) < plain


def test_smoothing_needs_activations(vit, sample):
    with pytest.raises(QuantizerError, match="leaves activations in float"):
        quantize(vit, QuantizerSpec.parse("smoothquant:w8"), sample.calibration)
