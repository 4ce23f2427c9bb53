"""Attacks stay within their budget, follow their seed, see through quantization, and resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from clipq.cases import Candidate, Cell
from clipq.errors import QuantizerError
from clipq.evaluation.attack import ZeroShotClassifier, attacked
from clipq.evaluation.attacked_answers import RememberingClassifier
from clipq.evaluation.evaluator import Evaluator
from clipq.metrics import metrics
from clipq.settings import ATTACKS, AttackSettings, ProbeSettings, load_settings

FIXTURES = Path(__file__).parents[3] / "fixtures"


def adversarial(name: str, **changes) -> ProbeSettings:
    source = f"webdataset:{FIXTURES}/data/shapes"
    return ProbeSettings(
        name,
        "adversarial",
        source,
        samples=48,
        attack=AttackSettings(name.split("-")[0], **changes),
    )


PROBES = (
    adversarial("fgsm", epsilon=2.0),
    adversarial("pgd", epsilon=2.0, steps=4),
    adversarial("apgd", epsilon=2.0, steps=4),
    adversarial("square", epsilon=8.0, steps=30),
    adversarial("fgsm-transfer", epsilon=2.0, against="fp32"),
)


@pytest.fixture
def evaluator(project) -> Evaluator:
    settings = load_settings(project.settings())
    return Evaluator(replace(settings, probes=(*settings.probes, *PROBES)))


@pytest.fixture
def classifier(evaluator):
    loaded = evaluator.encoders.model("vit-clean")
    return ZeroShotClassifier(
        loaded.model, evaluator.encodings.head(Candidate("vit-clean", "fp32")), loaded.preprocess
    )


def images(evaluator: Evaluator) -> tuple[np.ndarray, np.ndarray]:
    loaded = evaluator.encoders.model("vit-clean")
    return evaluator.inputs.images("fgsm", loaded.preprocess), evaluator.inputs.probes[
        "fgsm"
    ].labels


def right(classifier: ZeroShotClassifier, pixels: np.ndarray, labels: np.ndarray) -> float:
    with torch.inference_mode():
        return float((classifier(torch.from_numpy(pixels)).argmax(1).numpy() == labels).mean())


@pytest.mark.parametrize("name", ATTACKS)
def test_budget_seed_and_effect(evaluator, classifier, name):
    shown, labels = images(evaluator)
    settings = next(probe.attack for probe in PROBES if probe.name == name)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    found = attacked(classifier, shown, labels, settings, seed="a")
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    clean = shown.transpose(0, 3, 1, 2).astype(np.float32) / 255
    assert np.abs(found - clean).max() <= settings.epsilon / 255 + 1e-6
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    np.random.seed(1)
    again = attacked(classifier, shown, labels, settings, seed="a")
    np.testing.assert_array_equal(found, again)
    assert right(classifier, found, labels) < right(classifier, clean, labels)


def test_square_asks_once_for_each_image_and_finds_what_it_finds_asking_again(
    evaluator, classifier, monkeypatch
):
    shown, labels = images(evaluator)
    settings = AttackSettings("square", epsilon=4.0, steps=12)
    asked, forward = [], type(classifier).forward

    def counted(self, pixels):
        asked.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(type(classifier), "forward", counted)
    found = attacked(classifier, shown, labels, settings, seed="a")
    once = sum(asked)
    assert once <= len(shown) * (2 + settings.steps)
    asked.clear()
    monkeypatch.delattr(RememberingClassifier, "predict")
    again = attacked(classifier, shown, labels, settings, seed="a")
    assert sum(asked) > 2 * once
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("quantizer", ["fp32", "rtn:w8a8@vision"])
def test_apgd_takes_loss_and_gradient_from_one_pass_and_finds_what_two_find(
    evaluator, monkeypatch, quantizer
):
    """FP32's fused attention answers otherwise where a gradient is followed: it is asked twice."""
    encoder = evaluator.encoders.encoder(Candidate("vit-clean", quantizer))
    head = encoder.head(evaluator.inputs.known)
    classifier = ZeroShotClassifier(encoder.module, head, encoder.loaded.preprocess)
    shown, labels = images(evaluator)
    settings = AttackSettings("apgd", steps=6)
    asked, forward = [], type(classifier).forward

    def counted(self, pixels):
        asked.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(type(classifier), "forward", counted)
    found = attacked(classifier, shown[:8], labels[:8], settings, seed="a")
    once = len(asked)
    asked.clear()
    monkeypatch.delattr(RememberingClassifier, "compute_loss")
    monkeypatch.delattr(RememberingClassifier, "loss_gradient")
    again = attacked(classifier, shown[:8], labels[:8], settings, seed="a")
    np.testing.assert_array_equal(found, again)
    # Where a step was too long, APGD goes back to the best images: those are new to a pass.
    assert (once < len(asked)) is (quantizer != "fp32")


def test_an_attack_leaves_no_gradient_with_the_model(evaluator):
    shown, labels = images(evaluator)
    encoder = evaluator.encoders.encoder(Candidate("vit-clean", "rtn:w8a8@vision"))
    head = encoder.head(evaluator.inputs.known)
    classifier = ZeroShotClassifier(encoder.module, head, encoder.loaded.preprocess)
    attacked(classifier, shown[:4], labels[:4], AttackSettings("pgd", steps=2), seed="a")
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


def test_one_gradient_step_equals_its_formula(evaluator, classifier):
    """Goodfellow et al. 2015: x + epsilon sign(gradient of the loss), clipped to [0, 1]."""
    shown, labels = images(evaluator)
    found = attacked(classifier, shown[:8], labels[:8], AttackSettings("fgsm"), seed="")
    clean = torch.from_numpy(shown[:8].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    clean.requires_grad_(True)
    cross_entropy(classifier(clean), torch.from_numpy(labels[:8])).backward()
    expected = (clean + 2 / 255 * clean.grad.sign()).clamp(0, 1).detach().numpy()
    assert np.mean(np.abs(found - expected) < 1e-6) > 0.999


def test_logits_are_the_zero_shot_head_s(evaluator, classifier):
    shown, _ = images(evaluator)
    predictions = evaluator.evaluate(Cell("vit-clean", "fp32", "id")).predictions
    order = {str(name): row for row, name in enumerate(predictions.column("id"))}
    rows = [order[name] for name in evaluator.inputs.probes["fgsm"].ids]
    with torch.inference_mode():
        pixels = torch.from_numpy(shown.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        guess = classifier(pixels).argmax(1).numpy()
    assert guess.tolist() == predictions.column("prediction")[rows].tolist()


@pytest.mark.parametrize("quantizer", ["rtn:w8a8", "rtn:w4a4", "rtn:w8a8d", "smoothquant:w8a8"])
def test_gradients_see_the_quantized_model(evaluator, quantizer):
    top1 = metrics.get("top1")
    robust = top1.compute(evaluator.evaluate(Cell("vit-clean", quantizer, "fgsm")).predictions)
    transferred = top1.compute(
        evaluator.evaluate(Cell("vit-clean", quantizer, "fgsm-transfer")).predictions
    )
    info = evaluator.inputs.sample_info("fgsm")
    clean = evaluator.evaluate(Cell("vit-clean", quantizer, "id")).predictions
    rows = np.isin(clean.column("id"), info.ids)
    assert robust < clean.column("correct")[rows].mean()
    assert robust <= transferred + 0.1  # its own gradient misleads a model at least as well


def test_a_rounding_without_gradient_is_named(evaluator, classifier):
    class Rounded(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def encode_image(self, batch):
            return self.inner.encode_image(torch.round(batch))

    class Detached(Rounded):
        def encode_image(self, batch):
            return self.inner.encode_image(batch.detach())

    loaded = evaluator.encoders.model("vit-clean")
    shown, labels = images(evaluator)
    for kind, message in ((Rounded, "zero or not finite"), (Detached, "no gradient goes through")):
        broken = ZeroShotClassifier(
            kind(loaded.model),
            evaluator.encodings.head(Candidate("vit-clean", "fp32")),
            loaded.preprocess,
        )
        with pytest.raises(QuantizerError, match=message):
            attacked(broken, shown, labels, AttackSettings("pgd"), seed="")
        attacked(broken, shown[:2], labels[:2], AttackSettings("square", steps=2), seed="")


def test_a_chunk_that_was_attacked_is_not_attacked_again(evaluator, monkeypatch):
    import clipq.evaluation.adversarial as module

    monkeypatch.setattr(module, "_CHUNK", 16)
    evaluator.settings = replace(evaluator.settings, cache=evaluator.settings.cache / "own")
    evaluator.cache.root = evaluator.settings.cache
    calls: list[int] = []
    original = module.attacked

    def interrupted(*arguments, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(arguments[1]))
        return original(*arguments, **options)

    monkeypatch.setattr(module, "attacked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(Cell("vit-clean", "rtn:w8", "pgd"))
    calls.clear()
    monkeypatch.setattr(module, "attacked", lambda *a, **k: calls.append(1) or original(*a, **k))
    evaluator.evaluate(Cell("vit-clean", "rtn:w8", "pgd"))
    assert calls == [1] * 4  # one chunk of the quantizer was left, three of FP32


def test_other_prompts_make_other_adversaries(evaluator, tmp_path):
    """The attack misleads a head: features of the attacked images depend on its prompts."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the {c}\n")
    probes = (replace(evaluator.settings.probes[0], templates=str(prompts)),)
    other = Evaluator(replace(evaluator.settings, probes=(*probes, *evaluator.settings.probes[1:])))
    features = [
        e.encodings.features(Cell("vit-clean", "rtn:w8", "fgsm")) for e in (evaluator, other)
    ]
    assert not np.array_equal(*features)
    plain = [
        e.encodings.features(Cell("vit-clean", "rtn:w8", "digits")) for e in (evaluator, other)
    ]
    assert np.array_equal(*plain)
