"""The gradient of a step does not depend on how the batch was computed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_training import Contrast, Distance, Noised, TwoTowers, settings, some_pairs
from torch import nn

import clipq.training.towers
from clipq.errors import TrainingError
from clipq.training.data_order import caption_shares, step_generator
from clipq.training.known_features import KnownFeatures
from clipq.training.objective import Batch, Features, Loss, Objective
from clipq.training.passes import Passes
from clipq.training.towers import Towers
from clipq.training.worlds import World

ROWS, STEP = np.array([3, 1, 7, 5, 2, 11, 0, 9]), 4


class Sigmoid(Objective):
    """SigLIP's loss (Zhai et al. 2023, algorithm 1)."""

    def loss(self, student: Features, teacher: Features, batch: Batch) -> Loss:
        signs = 2 * torch.eye(len(batch.rows)) - 1
        return Loss(-nn.functional.logsigmoid(signs * student.logits).sum() / len(batch.rows))


def models(*, bias=False, learn=("visual", "words", "textual", "logit")):
    teacher = TwoTowers(bias=bias)
    student = copy.deepcopy(teacher).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name.startswith(learn))
    return student, teacher.eval()


def passes(student, teacher, objective, **recipe):
    pairs, towers, taught = some_pairs(), Towers(student), Towers(teacher)
    world = World()
    known = KnownFeatures.of(towers, taught, pairs, block=5, world=world)
    device = torch.device("cpu")
    return Passes(
        towers, student, taught, known, pairs, objective, settings(**recipe), world, device
    )


def gradients(student):
    return {
        name: parameter.grad.clone()
        for name, parameter in student.named_parameters()
        if parameter.grad is not None
    }


def direct(student, teacher, objective):
    """The gradient of the loss, written down in one go."""
    pairs = some_pairs()
    lines = pairs.lines(ROWS, caption_shares(len(ROWS), seed=0, step=STEP))
    batch = Batch(
        ROWS, torch.from_numpy(pairs.captions[lines]), step=STEP, generator=step_generator(0, STEP)
    )
    images = pairs.images(ROWS)
    more = objective.more_images(images, batch) if objective.asks_for_more else None

    def features(model):
        return Features(
            model.encode_image(images),
            model.encode_text(pairs.tokens[lines]),
            model.logit_scale.exp(),
            model.logit_bias,
            None if more is None else model.encode_image(more),
        )

    with torch.no_grad():
        taught = features(teacher)
    objective.loss(features(student), taught, batch).total.backward()
    found = gradients(student)
    student.zero_grad()
    return found


@pytest.mark.parametrize("accumulate", [1, 3, 8])
@pytest.mark.parametrize(
    ("objective", "bias", "learn"),
    [
        (Contrast(), False, ("visual", "words", "textual", "logit")),
        (Sigmoid(), True, ("visual", "textual", "logit")),
        (Noised(), False, ("visual", "logit")),
        (Contrast(), False, ("textual",)),
        (Sigmoid(), True, ("logit",)),
        (Distance(), False, ("visual", "words")),
    ],
    ids=["contrast", "sigmoid", "noised", "text", "scale", "distance"],
)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(objective, bias, learn, accumulate):
    student, teacher = models(bias=bias, learn=learn)
    torch.manual_seed(3)
    np.random.seed(3)
    wanted = direct(student, teacher, objective)
    torch.manual_seed(3)
    np.random.seed(3)
    passes(student, teacher, objective, accumulate=accumulate).backward(ROWS, STEP)
    found = gradients(student)
    assert found.keys() == wanted.keys()
    assert found
    for name, gradient in wanted.items():
        scale = max(gradient.abs().max().item(), 1e-3)
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=5e-6 * scale, msg=name)


def test_what_cannot_change_is_computed_once_and_what_does_is_not(monkeypatch):
    calls = {"image": 0, "text": 0}

    class Counted(TwoTowers):
        def encode_image(self, images):
            calls["image"] += len(images)
            return super().encode_image(images)

        def encode_text(self, tokens):
            calls["text"] += len(tokens)
            return super().encode_text(tokens)

    teacher, student = Counted().eval(), Counted().eval().requires_grad_(False)
    student.visual.requires_grad_(True)
    computed = passes(student, teacher, Contrast())
    calls.update(image=0, text=0)
    first = computed.backward(ROWS, STEP)
    assert calls == {"image": len(ROWS), "text": 0}
    monkeypatch.setattr(clipq.training.towers, "KEPT_BYTES", 0)
    student.zero_grad()
    again = passes(student, teacher, Contrast())
    assert not again.known.student
    assert not again.known.teacher
    calls.update(image=0, text=0)
    assert again.backward(ROWS, STEP) == pytest.approx(first, rel=1e-6)
    assert calls == {"image": 2 * len(ROWS), "text": 2 * len(ROWS)}


def test_bfloat16_is_of_products_alone():
    student, teacher = models()
    found = passes(student, teacher, Contrast(), precision="bf16")
    towers = Towers(student, precision="bf16")
    features = towers({"images": some_pairs().images(ROWS)})["image"]
    exact = Towers(student)({"images": some_pairs().images(ROWS)})["image"]
    assert features.dtype == torch.float32
    assert 0 < (features - exact).abs().max() < 0.05 * exact.abs().max()
    assert found.backward(ROWS, STEP)["total"] > 0
    assert {each.dtype for each in gradients(student).values()} == {torch.float32}


def test_held_out_losses_are_the_same_at_each_look_and_leave_no_gradient():
    student, teacher = models()
    torch.manual_seed(0)
    found = passes(student, teacher, Distance())
    first = found.held_out(ROWS, 0)
    found.backward(ROWS, STEP)
    student.zero_grad()
    assert found.held_out(ROWS, 0) == first
    assert not gradients(student)


def test_an_objective_that_learns_nothing_is_named():
    student, teacher = models(learn=("textual",))
    with pytest.raises(TrainingError, match="Distance does not depend on what is learnt"):
        passes(student, teacher, Distance()).backward(ROWS, STEP)


def test_a_loss_that_is_no_number_is_refused():
    class PerPair(Distance):
        def loss(self, student, teacher, batch):
            return Loss((student.image - teacher.image).square().mean(1))

    student, teacher = models()
    with pytest.raises(TrainingError, match=r"PerPair returns a loss of shape \(8,\)"):
        passes(student, teacher, PerPair()).backward(ROWS, STEP)


def _broken(**changed):
    teacher = TwoTowers(**changed)
    if not changed:
        with torch.no_grad():
            teacher.visual[1].bias.fill_(torch.nan)
    return teacher


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (_broken(width=5), r"widths of 6 and 6 \(student\) and 5 and 5 \(teacher\)"),
        (_broken(bias=True), "one of student and teacher has a logit bias"),
        (_broken(), "2 of the teacher's image features are NaN or infinite"),
        (nn.Linear(1, 1), "the teacher does not take the images"),
    ],
)
def test_a_teacher_that_does_not_match_is_refused(teacher, said):
    student, _ = models()
    with pytest.raises(TrainingError, match=said):
        passes(student, teacher.eval(), Contrast())


def test_a_teacher_of_other_images_is_refused():
    student, teacher = models()
    teacher.visual[1] = nn.Linear(27, 8)
    with pytest.raises(TrainingError, match=r"the teacher does not take the images \(2, 3, 4, 4\)"):
        passes(student, teacher, Contrast())
