"""How parameters move, against the algorithm as its paper writes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from clipq.training.learning import Learning, rate_at
from clipq.training_settings import TrainingSettings

RECIPE = {"steps": 7, "lr": 0.1, "step_lr": 0.2, "decay": 0.3, "warmup": 0.4, "clip": 0.5}


def by_hand(gradients, weight, step, recipe):
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) in float64, of a weight and a step tensor."""
    weight, first = weight.astype(float), step.astype(float)
    size, share = np.abs(first), np.zeros_like(first)
    moments = {name: [0.0, 0.0] for name in ("weight", "share")}
    for t, (of_weight, of_step) in enumerate(gradients, 1):
        slopes = {"weight": of_weight, "share": of_step * size}
        length = math.sqrt(sum((slope**2).sum() for slope in slopes.values()))
        rising = math.ceil(recipe["warmup"] * recipe["steps"])
        rate = (
            t / rising
            if t <= rising
            else 0.5 * (1 + math.cos(math.pi * (t - 1 - rising) / (recipe["steps"] - rising)))
        )
        moves = {}
        for name, slope in slopes.items():
            slope = slope * min(1, recipe["clip"] / (length + 1e-6))
            one, two = moments[name]
            one, two = 0.9 * one + 0.1 * slope, 0.999 * two + 0.001 * slope**2
            moments[name] = [one, two]
            tiny = 1e-8 if name == "weight" else 1e-12
            moves[name] = (one / (1 - 0.9**t)) / (np.sqrt(two / (1 - 0.999**t)) + tiny)
        weight = weight * (1 - recipe["lr"] * rate * recipe["decay"])
        weight = weight - recipe["lr"] * rate * moves["weight"]
        share = share - recipe["step_lr"] * rate * moves["share"]
    return weight, first + size * share


def given():
    generator = np.random.default_rng(0)
    weight, step = generator.normal(size=(3, 2)), np.array([0.002, -0.5, 30.0])
    gradients = [
        (generator.normal(size=weight.shape), generator.normal(size=3) * [100, 1, 1e-4])
        for _ in range(7)
    ]
    return weight, step, gradients


def moved(weight, step, gradients, recipe, *, between=lambda learning, done: learning):
    learning = Learning({"w": weight}, {"s": step}, TrainingSettings(**recipe))
    for done, (of_weight, of_step) in enumerate(gradients):
        weight.grad = torch.tensor(of_weight, dtype=torch.float32)
        step.grad = torch.tensor(of_step, dtype=torch.float32)
        learning.move(done)
        learning = between(learning, done + 1)


def parameters(weight, step):
    return [nn.Parameter(torch.tensor(each, dtype=torch.float32)) for each in (weight, step)]


def test_weights_and_steps_move_as_the_paper_says():
    weight, step, gradients = given()
    mine = parameters(weight, step)
    moved(*mine, gradients, RECIPE)
    expected = by_hand(gradients, weight, step, RECIPE)
    for found, wanted in zip(mine, expected, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=2e-5)


def test_a_restored_optimizer_goes_on_with_the_same_bits():
    weight, step, gradients = given()
    whole = parameters(weight, step)
    moved(*whole, gradients, RECIPE)
    pieces = parameters(weight, step)

    def restored(learning, done):
        tensors = {name: each.clone() for name, each in learning.tensors().items()}
        with torch.no_grad():
            for each in pieces:
                each.fill_(7.0)
        other = Learning({"w": pieces[0]}, {"s": pieces[1]}, TrainingSettings(**RECIPE))
        other.restore(tensors, done)
        return other

    moved(*pieces, gradients, RECIPE, between=restored)
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_steps_learn_at_one_pace_in_whatever_unit_they_are():
    small, large = (nn.Parameter(torch.tensor([unit])) for unit in (1e-6, 1e3))
    learning = Learning(
        {}, {"small": small, "large": large}, TrainingSettings(warmup=0.0, clip=1e6)
    )
    for done in range(5):
        small.grad, large.grad = torch.tensor([1e3]), torch.tensor([1e-6])
        learning.move(done)
    assert small.item() / 1e-6 == pytest.approx(large.item() / 1e3, rel=1e-6)
    assert small.item() < 1e-6


def test_an_offset_of_zero_moves_by_the_size_of_its_neighbours():
    offsets = nn.Parameter(torch.tensor([0.0, 0.3]))
    alone = nn.Parameter(torch.tensor(0.0))
    learning = Learning({}, {"a": offsets, "b": alone}, TrainingSettings(warmup=0.0, step_lr=0.1))
    offsets.grad, alone.grad = torch.tensor([1.0, 1.0]), torch.tensor(1.0)
    learning.move(0)
    assert offsets.tolist() == pytest.approx([-0.015, 0.27])
    assert alone.item() == pytest.approx(-0.1)


def test_what_has_no_gradient_stays_and_can_be_restored():
    idle, step = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    learning = Learning({"idle": idle}, {"s": step}, TrainingSettings())
    step.grad = torch.ones(2)
    learning.move(0)
    assert idle.tolist() == [1.0, 1.0]
    assert "exp_avg/idle" in learning.tensors()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(bad):
    weight = nn.Parameter(torch.ones(2))
    learning = Learning({"w": weight}, {}, TrainingSettings())
    weight.grad = torch.tensor([bad, 1.0])
    assert not math.isfinite(learning.move(0))
    assert weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_rates_rise_to_the_whole_and_fall_towards_zero(steps, warmup):
    recipe = TrainingSettings(steps=steps, warmup=warmup)
    rates = [rate_at(step, recipe) for step in range(steps)]
    top = rates.index(max(rates))
    assert max(rates) == 1.0
    assert min(rates) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
