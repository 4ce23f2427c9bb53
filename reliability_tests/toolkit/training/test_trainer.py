"""What a training comes to, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from tiny_training import (
    Contrast,
    Distance,
    Noised,
    TwoTowers,
    learnt,
    same,
    settings,
    some_pairs,
    trained,
)
from torch import nn

from clipq.errors import TrainingError
from clipq.testing import small_clip
from clipq.training import Loss, Objective, Pairs, train


def test_it_learns_and_keeps_the_best_step(tmp_path):
    student = TwoTowers(seed=1)
    outcome = trained(
        tmp_path, student=student, teacher=TwoTowers(), objective=Distance(), steps=60, every=10
    )
    totals = {look.step: look.total for look in outcome.looks}
    assert totals[outcome.best_step] == min(totals.values()) < totals[0] / 2
    assert list(totals) == [0, 10, 20, 30, 40, 50, 60]
    for name, parameter in {**learnt(student)["weights"], **learnt(student)["steps"]}.items():
        assert torch.equal(parameter, outcome.parameters[name])
    images, rows = some_pairs().images, np.arange(24)
    with torch.no_grad():
        found, wanted = (
            model.eval().encode_image(images(rows)) for model in (student, TwoTowers())
        )
    assert (found - wanted).square().mean() < totals[0] / 2


def test_where_no_step_helps_the_first_state_is_kept(tmp_path):
    """Student and teacher are equal: every step leads away."""
    before = {k: v.detach().clone() for k, v in TwoTowers().named_parameters()}
    outcome = trained(tmp_path, objective=Distance(), lr=0.1)
    assert outcome.best_step == 0
    assert all(torch.equal(before[name], each) for name, each in outcome.parameters.items())


def test_of_equal_looks_the_earliest_is_kept(tmp_path):
    outcome = trained(tmp_path, lr=0, step_lr=1e-30)
    assert len({look.total for look in outcome.looks}) == 1
    assert outcome.best_step == 0


def test_patience_ends_it(tmp_path):
    outcome = trained(tmp_path, objective=Distance(), steps=40, every=5, patience=2)
    assert outcome.stopped_early
    assert (outcome.best_step, outcome.steps_done) == (0, 10)
    again = trained(tmp_path, objective=Distance(), steps=40, every=5, patience=2)
    assert same(again, outcome)
    assert again.stopped_early


def test_held_out_pairs_are_never_trained_on(tmp_path):
    pairs, seen = some_pairs(), {"train": set(), "held out": set()}

    class Watching(Distance):
        def loss(self, student, teacher, batch):
            seen["held out" if batch.step < 0 else "train"] |= set(batch.rows.tolist())
            return super().loss(student, teacher, batch)

    trained(tmp_path, pairs=pairs, objective=Watching())
    assert not seen["train"] & seen["held out"]
    assert len(seen["held out"]) == 6


def test_nothing_of_the_process_is_read_or_changed(tmp_path):
    outcomes, states = [], []
    for number in (1, 2):
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        before = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
        outcomes.append(trained(tmp_path / str(number), objective=Noised()))
        after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
        states.append(
            torch.equal(before[0], after[0])
            and (before[1] == after[1]).all()
            and before[2] == after[2]
        )
    assert same(*outcomes)
    assert all(states)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_seeds_give_other_trainings(tmp_path):
    a, b = (trained(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert not same(a, b)
    assert a.looks[0] == b.looks[0]


def test_only_what_is_learnt_moves_and_the_teacher_does_not(tmp_path):
    teacher, student = TwoTowers(), TwoTowers()
    before = copy.deepcopy(teacher.state_dict())
    trained(tmp_path, student=student, teacher=teacher, learn="steps", text=False, step_lr=0.2)
    changed = {
        name for name, each in student.state_dict().items() if not torch.equal(each, before[name])
    }
    assert changed == set(learnt(student)["steps"])
    assert all(torch.equal(each, before[name]) for name, each in teacher.state_dict().items())


def test_no_steps_leave_everything_as_it_is(tmp_path):
    outcome = trained(tmp_path / "none", steps=0, pairs=some_pairs(4), weights={})
    assert (outcome.best_step, outcome.steps_done, outcome.looks) == (0, 0, ())
    assert not (tmp_path / "none").exists()


def test_progress_says_what_is_left(tmp_path):
    told = []
    trained(tmp_path, progress=told.append)
    assert [each.step for each in told] == list(range(1, 13))
    assert told[-1].seconds_left == 0
    assert all(each.seconds_left > 0 for each in told[:-1])
    assert set(told[0].loss) == {"total", "contrast", "mse"}
    assert [len(each.looks) for each in told] == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]
    means = np.mean([each.loss["total"] for each in told[:4]])
    assert told[3].looks[-1].train["total"] == pytest.approx(means)


class Faulty(Distance):
    """Its loss, or the gradient of it, goes wrong after some steps."""

    def __init__(self, fault, after=5):
        self.fault, self.after = fault, after

    def loss(self, student, teacher, batch):
        good = super().loss(student, teacher, batch).total
        return Loss(self.fault(good) if batch.step >= self.after else good)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda loss: loss * math.nan, "after 5 steps the loss is nan"),
        (lambda loss: loss + math.inf, "after 5 steps the loss is inf"),
        (lambda loss: loss + 1e9, r"after 5 steps the loss exploded to 1e\+09, above"),
        (
            lambda loss: loss + (loss - loss.detach()).abs().sqrt() * 0,
            r"after 5 steps the gradient is nan \(the loss is ",
        ),
    ],
    ids=["nan", "inf", "huge", "gradient"],
)
def test_a_loss_that_is_none_stops_it_at_the_last_good_checkpoint(tmp_path, fault, said):
    with pytest.raises(TrainingError, match=said) as caught:
        trained(tmp_path, objective=Faulty(fault), student=TwoTowers(seed=1), save_seconds=0)
    assert f"the last good checkpoint, of step 5, is in {tmp_path}" in caught.value.problem
    assert "lower lr" in caught.value.hint
    assert sorted(path.stem for path in tmp_path.glob("step-*.json"))[-1] == "step-00000005"


def test_steps_that_collapse_stop_it_and_are_named(tmp_path):
    student = TwoTowers()

    def collapsed():
        return [
            name
            for name, each in learnt(student)["steps"].items()
            if name.endswith("step") and not each > 0.045
        ]

    with pytest.raises(TrainingError, match=r"collapsed or exploded: visual\.\d\.step") as e:
        trained(tmp_path, student=student, collapsed=collapsed, step_lr=0.5, clip=1e6)
    assert "after " in e.value.problem
    with pytest.raises(TrainingError, match=r"after 0 steps .* no checkpoint was written yet"):
        trained(tmp_path / "new", collapsed=lambda: ["one"])


def one_caption(pairs):
    return Pairs(pairs.ids, pairs.images, torch.ones(24, 3, dtype=torch.long), np.arange(24))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pairs": some_pairs(1)}, "1 pairs of 1 images cannot be divided"),
        ({"pairs": some_pairs(9)}, "a batch takes 8 pairs, and 7 are left"),
        ({"pairs": one_caption(some_pairs())}, "all 18 pairs that are trained on have one caption"),
        ({"lr": 0, "step_lr": 0}, "nothing of what is learnt would move"),
        ({"step_lr": 0, "learn": "steps"}, "nothing of what is learnt would move"),
        ({"learn": "steps", "steps": {}}, "nothing is learnt"),
        ({"weights": {"w": nn.Parameter(torch.ones(1))}}, "w is no parameter of the student"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_begins(tmp_path, given, said):
    folder = tmp_path / "none"
    teacher, student = TwoTowers(), TwoTowers()
    recipe = {k: given.pop(k) for k in ("lr", "step_lr", "learn") if k in given}
    arguments = {
        "pairs": some_pairs(),
        "settings": settings(**recipe),
        "objective": Contrast(),
        "folder": folder,
        "identity": {},
        **learnt(student),
    }
    with pytest.raises(TrainingError, match=said):
        train(student, teacher, **arguments | given)
    assert not folder.exists()


def test_equal_captions_do_for_an_objective_that_compares_features(tmp_path):
    outcome = trained(tmp_path, pairs=one_caption(some_pairs()), objective=Distance())
    assert outcome.steps_done == 12


def test_parameters_given_twice_or_shared_with_the_teacher_are_refused(tmp_path):
    student = TwoTowers()
    weight = student.textual.weight
    with pytest.raises(TrainingError, match="b is given twice, or is a by another name"):
        trained(tmp_path, student=student, weights={"a": weight, "b": weight})
    with pytest.raises(TrainingError, match="a is given twice"):
        trained(tmp_path, student=student, weights={"a": weight}, steps={"a": student.textual.bias})
    with pytest.raises(TrainingError, match="a parameter of the teacher, too"):
        trained(tmp_path, student=student, teacher=student)
    with torch.no_grad():
        weight[0, 0] = math.nan
    with pytest.raises(TrainingError, match="weight holds NaN"):
        trained(tmp_path, student=student)


class Near(Objective):
    """A distance of directions, of both towers."""

    def loss(self, student, teacher, batch):
        def apart(a, b):
            return 1 - nn.functional.cosine_similarity(a, b).mean()

        return Loss(apart(student.image, teacher.image) + apart(student.text, teacher.text))


@pytest.mark.parametrize("family", ["siglip", "modified-resnet"])
def test_models_of_open_clip_are_trained_in_parts_and_in_bfloat16(tmp_path, family):
    teacher = small_clip(family)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for each in student.parameters():
            each.mul_(1 + 0.2 * torch.rand(each.shape, generator=torch.Generator().manual_seed(1)))
    statistics = {k: v.clone() for k, v in student.named_buffers()}
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 3, 32, 32, generator=generator)
    tokens = torch.randint(1, 50, (12, 12), generator=generator)
    pairs = Pairs([f"{n}" for n in range(12)], lambda rows: images[rows], tokens, np.arange(12))
    outcome = train(
        student,
        teacher,
        pairs=pairs,
        objective=Near(),
        folder=tmp_path,
        identity={},
        settings=settings(steps=8, batch=4, accumulate=2, precision="bf16", lr=1e-4),
        weights=dict(student.named_parameters()),
        steps={},
    )
    assert outcome.looks[-1].total < outcome.looks[0].total
    assert all(torch.equal(v, statistics[k]) for k, v in student.named_buffers())
