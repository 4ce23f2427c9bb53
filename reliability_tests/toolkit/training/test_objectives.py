"""Objectives: against independent transcriptions, and what every one of them promises."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from clipq.errors import UnknownNameError
from clipq.metrics.scores import mcm
from clipq.training.calibrated_targets import calibrated_targets, fitted_temperature
from clipq.training.objective import Batch, Features
from clipq.training.objectives import objectives
from clipq.training.objectives_contrastive import contrastive_loss
from clipq.training.objectives_reliability import Reliability, outlier_ranking

COUNT, WIDTH = 12, 6
CAPTIONS = torch.tensor([3, 0, 5, 3, 1, 2, 6, 5, 7, 8, 9, 3])
NAMES = ["contrastive", "distil", "features", "kl", "reliability"]


@dataclass
class Sides:
    """A student, its teacher and the batch that both saw."""

    student: Features
    teacher: Features
    batch: Batch


def _unit(values: torch.Tensor) -> np.ndarray:
    rows = values.detach().double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _sides(
    captions: torch.Tensor = CAPTIONS,
    *,
    bias: float | None = None,
    dtype: torch.dtype | None = None,
) -> Sides:
    """Return random features in which equal captions have equal ones, as of a model."""
    generator = torch.Generator().manual_seed(11)
    texts = torch.randn(10, WIDTH, generator=generator)
    made = []
    for noise in (0.3, 0.6):
        image = texts[captions] + noise * torch.randn(COUNT, WIDTH, generator=generator)
        more = torch.randn(COUNT // 4 * 2, WIDTH, generator=generator)
        made.append(
            Features(
                image.to(dtype or torch.float32).float(),
                texts[captions],
                scale=torch.tensor(7.0),
                bias=None if bias is None else torch.tensor(bias),
                more=more,
            )
        )
    batch = Batch(np.arange(COUNT), captions, step=3, generator=torch.Generator().manual_seed(1))
    return Sides(made[1], made[0], batch)


def _value(name: str, sides: Sides) -> float:
    return objectives.get(name)().loss(sides.student, sides.teacher, sides.batch).total.item()


def _rows(features: Features, order: torch.Tensor) -> Features:
    return replace(features, image=features.image[order], text=features.text[order])


@pytest.mark.parametrize(
    ("bias", "reference"), [(None, ClipLoss()), (-4.0, SigLipLoss())], ids=["clip", "siglip"]
)
def test_contrastive_is_the_loss_of_open_clip_where_captions_differ(bias, reference):
    sides = _sides(torch.arange(COUNT) % 10, bias=bias)
    distinct = replace(sides.batch, captions=torch.arange(COUNT))
    given = [torch.nn.functional.normalize(getattr(sides.student, t)) for t in ("image", "text")]
    extra = {} if bias is None else {"logit_bias": sides.student.bias}
    expected = reference(*given, logit_scale=sides.student.scale, **extra)
    assert contrastive_loss(sides.student, distinct) == pytest.approx(float(expected), abs=1e-5)


def test_equal_captions_are_not_negatives_of_each_other():
    for bias in (None, -4.0):
        sides = _sides(bias=bias)
        logits = 7.0 * _unit(sides.student.image) @ _unit(sides.student.text).T + (bias or 0.0)
        total = 0.0
        for i in range(COUNT):
            others = [j for j in range(COUNT) if CAPTIONS[j] != CAPTIONS[i]]
            if bias is None:
                for line in (logits[i], logits[:, i]):
                    total += np.logaddexp.reduce(line[[i, *others]]) - line[i]
            else:
                total += np.log1p(np.exp(-logits[i, i])) + np.log1p(np.exp(logits[i, others])).sum()
        expected = total / COUNT / (2 if bias is None else 1)
        assert contrastive_loss(sides.student, sides.batch).item() == pytest.approx(expected, 1e-5)


def test_kl_counts_each_distinct_caption_once():
    sides = _sides()
    first = [int(np.flatnonzero(caption == CAPTIONS)[0]) for caption in CAPTIONS.unique()]
    ours, theirs = (
        7.0 * _unit(side.image) @ _unit(side.text).T[:, first]
        for side in (sides.student, sides.teacher)
    )
    expected = 0.0
    for axis in (1, 0):
        p, q = log_softmax(theirs, axis), log_softmax(ours, axis)
        expected += (np.exp(p) * (p - q)).sum(axis).mean() / 2
    assert _value("kl", sides) == pytest.approx(expected, rel=1e-5)


def test_features_compares_directions_in_units_of_the_logit_scale():
    sides = _sides()
    expected = 0.0
    for tower in ("image", "text"):
        gap = _unit(getattr(sides.student, tower)) - _unit(getattr(sides.teacher, tower))
        expected += 7.0 / 2 * (gap**2).sum(1).mean()
    assert _value("features", sides) == pytest.approx(expected, rel=1e-5)
    longer = replace(sides, student=replace(sides.student, image=sides.student.image * 9))
    assert _value("features", longer) == pytest.approx(expected, rel=1e-5)
    both = contrastive_loss(sides.student, sides.batch).item() + expected
    assert _value("distil", sides) == pytest.approx(both, rel=1e-5)


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 12.0])
def test_the_temperature_of_targets_is_the_one_of_least_likelihood_loss(sharpness):
    rng = np.random.default_rng(4)
    logits = sharpness * rng.normal(size=(300, 8))
    own = np.array([rng.choice(8, p=softmax(row)) for row in 3.0 / sharpness * logits])

    def loss(temperature: float) -> float:
        return -log_softmax(logits / temperature, 1)[np.arange(300), own].mean()

    best = minimize_scalar(loss, bounds=(0.25, 4), method="bounded", options={"xatol": 1e-9}).x
    found = fitted_temperature(torch.from_numpy(logits), torch.from_numpy(own))
    assert found == pytest.approx(best, rel=1e-5)
    targets = calibrated_targets(torch.from_numpy(logits), torch.from_numpy(own))
    np.testing.assert_allclose(targets, softmax(logits / best, 1), atol=1e-5)


def test_reliability_is_the_sum_of_its_four_terms():
    sides = _sides()
    first = [int(np.flatnonzero(caption == CAPTIONS)[0]) for caption in CAPTIONS.unique()]
    own = torch.searchsorted(CAPTIONS.unique(), CAPTIONS)
    heads = {side: _unit(getattr(sides, side).text)[first] for side in ("student", "teacher")}
    taught = torch.from_numpy(7.0 * _unit(sides.teacher.image) @ heads["teacher"].T)
    targets = softmax(taught.numpy() / fitted_temperature(taught, own), 1)
    images, more = _unit(sides.student.image), _unit(sides.student.more)

    def divergence(rows: np.ndarray) -> float:
        ours = log_softmax(7.0 * rows @ heads["student"].T, 1)
        wanted = targets[: len(rows)]
        return (wanted * (np.log(wanted) - ours)).sum(1).mean()

    score_in, score_out = (
        np.log(mcm(rows @ heads["student"].T)) for rows in (images, more[COUNT // 4 :])
    )
    ranking = np.log1p(np.exp(7.0 * (score_out[None] - score_in[:, None]))).mean()
    distance = objectives.get("features")().loss(sides.student, sides.teacher, sides.batch).total
    expected = {
        "calibration": divergence(images),
        "robustness": divergence(more[: COUNT // 4]),
        "outliers": 0.5 * ranking,
        "features": 2 * distance.item(),
    }
    loss = Reliability(features=2).loss(sides.student, sides.teacher, sides.batch)
    assert {n: v.item() for n, v in loss.parts.items()} == pytest.approx(expected, rel=1e-4)
    assert loss.total.item() == pytest.approx(sum(expected.values()), rel=1e-4)
    del expected["features"]
    assert _value("reliability", sides) == pytest.approx(sum(expected.values()), rel=1e-4)


@pytest.mark.parametrize("term", ["calibration", "robustness", "outliers"])
def test_a_term_of_no_weight_is_left_out_and_its_images_unmade(term):
    sides, without = _sides(), Reliability(**{term: 0.0})
    made = without.more_images(torch.rand(COUNT, 3, 8, 8), sides.batch)
    quarters = 2 if term == "calibration" else 1
    assert len(made) == quarters * COUNT // 4
    more = {"student": sides.student, "teacher": sides.teacher}
    kept = {name: replace(side, more=side.more[: len(made)]) for name, side in more.items()}
    parts = without.loss(kept["student"], kept["teacher"], sides.batch).parts
    assert {*parts} == {"calibration", "robustness", "outliers"} - {term}


def test_the_ranking_bounds_how_often_an_outlier_comes_first():
    generator = torch.Generator().manual_seed(2)
    inside, outside = (9 * torch.rand(n, 5, generator=generator) for n in (60, 40))
    loss = outlier_ranking(inside, outside, torch.tensor(9.0)).item()
    truth = np.repeat([1, 0], [60, 40])
    auroc = roc_auc_score(truth, np.r_[mcm(inside.numpy() / 9), mcm(outside.numpy() / 9)])
    assert loss / np.log(2) >= 1 - auroc > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [None, -4.0], ids=["clip", "siglip"])
def test_gradients_are_finite_and_the_order_of_pairs_does_not_matter(name, bias):
    sides = _sides(bias=bias)
    image = sides.student.image.clone().requires_grad_()
    student = replace(sides.student, image=image)
    objectives.get(name)().loss(student, sides.teacher, sides.batch).total.backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0
    if name == "reliability":  # which images have views follows from the order
        return
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(5))
    turned = Sides(
        _rows(sides.student, order),
        _rows(sides.teacher, order),
        replace(sides.batch, captions=CAPTIONS[order]),
    )
    assert _value(name, turned) == pytest.approx(_value(name, sides), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_were_computed_in_bfloat16_and_equal_captions_are_no_special_case(name):
    exact, rounded = _value(name, _sides()), _value(name, _sides(dtype=torch.bfloat16))
    assert rounded == pytest.approx(exact, rel=0.03)
    alike = _sides(torch.zeros(COUNT, dtype=torch.int64))
    assert np.isfinite(_value(name, alike))


def test_a_student_equal_to_a_calibrated_teacher_has_nothing_to_learn_but_the_ranking():
    """Of a teacher whose temperature is 1 the targets are its own probabilities."""
    sides = _sides()
    same = replace(sides.teacher, more=sides.student.more)
    assert _value("features", replace(sides, student=sides.teacher)) == 0
    assert _value("kl", replace(sides, student=sides.teacher)) == pytest.approx(0, abs=1e-6)
    parts = Reliability(robustness=0, features=1).loss(same, sides.teacher, sides.batch).parts
    assert parts["features"] == 0
    assert parts["calibration"] >= 0


def test_an_objective_is_found_by_name_and_a_wrong_one_is_told_the_right_ones():
    assert [name for name in objectives.names() if name in NAMES] == NAMES
    with pytest.raises(UnknownNameError, match=r"unknown objective 'reliable'"):
        objectives.get("reliable")
