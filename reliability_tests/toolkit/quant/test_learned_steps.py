"""Gradients of trained rounding: the papers' formulas, finite differences and torch's own LSQ."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipq.quant.formats import ActivationFormat, WeightFormat
from clipq.quant.trainable.initial_steps import initial_weight_steps, weights_per_step
from clipq.quant.trainable.input_rounders import LearnedClip, LearnedInputStep, LearnedOffset
from clipq.quant.trainable.learned_step import round_with_offset, round_with_step
from clipq.quant.trainable.weight_rounders import AbsmaxWeights, LearnedWeightSteps, TanhWeights
from clipq.quant.weights import quantize_weight

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def lsq(v: float, s: float, low: int, high: int) -> tuple[float, float, float]:
    """Return v̂, ∂v̂/∂v and ∂v̂/∂s as Esser et al. 2020 write them, for one number."""
    u = v / s
    rounded = s * float(np.rint(min(max(u, low), high)))
    if u <= low:
        return rounded, 0.0, float(low)
    if u >= high:
        return rounded, 0.0, float(high)
    return rounded, 1.0, float(np.rint(u)) - u


def lsq_plus(v: float, s: float, beta: float, levels: int) -> tuple[float, float, float, float]:
    """Return v̂ and its derivatives by v, s and β as Bhalgat et al. 2020 write them."""
    u = (v - beta) / s
    rounded = s * float(np.rint(min(max(u, 0), levels))) + beta
    if u <= 0:
        return rounded, 0.0, 0.0, 1.0
    if u >= levels:
        return rounded, 0.0, float(levels), 1.0
    return rounded, 1.0, float(np.rint(u)) - u, 0.0


def away_from_ties(units: np.ndarray) -> np.ndarray:
    """Move numbers, in units of a step, off halves and wholes, where rounding or a clamp turns."""
    whole = np.floor(units * 2) / 2
    return whole + np.clip(units - whole, 0.02, 0.48)


def numbers(seed: int, count: int, reach: float) -> np.ndarray:
    """Return numbers in units of a step, half of them within `reach`, some far outside."""
    generator = np.random.default_rng(seed)
    return away_from_ties(generator.normal(size=count) * reach * 0.7)


@settings(max_examples=25)
@given(
    bits=st.integers(2, 8),
    step=st.floats(1e-4, 1e3),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(1e-3, 1.0),
)
def test_gradients_are_the_papers_number_by_number(
    bits: int, step: float, seed: int, share: float
) -> None:
    high = 2 ** (bits - 1) - 1
    low = -high - 1
    units = numbers(seed, 60, high)
    values = torch.tensor(units * step, dtype=torch.float32, requires_grad=True)
    learnt = torch.tensor([step], requires_grad=True)
    upstream = torch.tensor(np.random.default_rng(seed + 1).normal(size=60), dtype=torch.float32)
    rounded = round_with_step(values, learnt, low=low, high=high, share=share)
    rounded.backward(upstream)
    exact = [lsq(float(v), float(learnt.detach()), low, high) for v in values.detach().double()]
    expected = share * sum(
        g * by_step for g, (_, _, by_step) in zip(upstream.tolist(), exact, strict=True)
    )
    assert torch.allclose(rounded.double(), torch.tensor([x[0] for x in exact]).double(), **CLOSE)
    assert torch.equal(values.grad, upstream * torch.tensor([x[1] for x in exact]))
    size = share * sum(abs(g * x[2]) for g, x in zip(upstream.tolist(), exact, strict=True))
    assert abs(float(learnt.grad) - expected) <= 1e-4 * size


@settings(max_examples=25)
@given(
    bits=st.integers(2, 8),
    step=st.floats(1e-3, 1e2),
    zero=st.integers(0, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_with_an_offset_are_the_papers_where_it_lies_on_the_grid(
    bits: int, step: float, zero: int, seed: int
) -> None:
    levels = 2**bits - 1
    zero %= levels + 1
    units = numbers(seed, 60, levels)
    values = torch.tensor(units * step, dtype=torch.float32, requires_grad=True)
    learnt = torch.tensor([step], requires_grad=True)
    offset = torch.tensor([-zero * step], requires_grad=True)
    rounded = round_with_offset(values, learnt, offset, levels=levels, share=0.5)
    upstream = torch.tensor(np.random.default_rng(seed + 1).normal(size=60), dtype=torch.float32)
    rounded.backward(upstream)
    exact = [lsq_plus(float(v), step, -zero * step, levels) for v in values.detach().double()]
    assert torch.allclose(rounded.double(), torch.tensor([x[0] for x in exact]).double(), rtol=1e-3)
    assert torch.equal(values.grad, upstream * torch.tensor([x[1] for x in exact]))
    for gradient, at in ((learnt.grad, 2), (offset.grad, 3)):
        terms = [0.5 * g * x[at] for g, x in zip(upstream.tolist(), exact, strict=True)]
        assert abs(float(gradient) - sum(terms)) <= 1e-3 * sum(map(abs, terms)) + 1e-5


@pytest.mark.parametrize("step", [0.07, 1.3])
def test_gradients_are_finite_differences_of_the_surrogate(step: float) -> None:
    """The surrogate holds the rounding error in units of the step constant: s (clamp(u) + c)."""
    low, high = -4, 3
    values = torch.from_numpy(numbers(3, 200, high) * step)
    units = values / step
    inside = (units > low) & (units < high)
    error = torch.where(inside, units.round() - units, 0.0)

    def surrogate(v: Tensor, s: float) -> Tensor:
        return s * ((v / s).clamp(low, high) + error)

    by_step = (surrogate(values, step + 1e-6) - surrogate(values, step - 1e-6)).sum() / 2e-6
    by_value = (surrogate(values + 1e-6, step) - surrogate(values - 1e-6, step)) / 2e-6
    mine = values.float().requires_grad_()
    learnt = torch.tensor([step], requires_grad=True)
    round_with_step(mine, learnt, low=low, high=high, share=1.0).sum().backward()
    assert float(learnt.grad) == pytest.approx(float(by_step), rel=1e-3)
    assert torch.allclose(mine.grad.double(), by_value, atol=1e-6)


@pytest.mark.parametrize("channels", [False, True], ids=["tensor", "channels"])
def test_gradients_are_those_of_torchs_own_learnable_quantizer(channels: bool) -> None:
    """torch masks by the rounded code: they agree but within half a step of each end's code."""
    rows, high, factor = 6, 7, 0.25
    steps = torch.linspace(0.1, 0.9, rows) if channels else torch.tensor([0.3])
    units = torch.from_numpy(numbers(5, rows * 50, high)).reshape(rows, 50)
    units = torch.where((units > high - 0.5) & (units < high + 0.5), units - 1.0, units)
    units = torch.where((units < -7.5) & (units > -8.5), units + 1.0, units)
    column = steps[:, None] if channels else steps
    values = (units * column).float()
    upstream = torch.randn(rows, 50, generator=torch.Generator().manual_seed(0))

    def run(rounding: Callable[[Tensor, Tensor], Tensor], scale: Tensor) -> tuple[Tensor, ...]:
        given, learnt = values.clone().requires_grad_(), scale.clone().requires_grad_()
        result = rounding(given, learnt)
        result.backward(upstream)
        return result.detach(), given.grad, learnt.grad.flatten()

    def torchs(given: Tensor, learnt: Tensor) -> Tensor:
        zeros = torch.zeros_like(learnt)
        if channels:
            return torch._fake_quantize_learnable_per_channel_affine(
                given, learnt, zeros, 0, -8, high, factor
            )
        return torch._fake_quantize_learnable_per_tensor_affine(
            given, learnt, zeros, -8, high, factor
        )

    mine = run(
        lambda given, learnt: round_with_step(given, learnt, low=-8, high=high, share=factor),
        column,
    )
    for own, other in zip(mine, run(torchs, steps), strict=True):
        assert torch.allclose(own, other, rtol=1e-4, atol=1e-4)


def test_an_offset_between_grid_points_is_rounded_and_keeps_zero_among_the_codes() -> None:
    step = torch.tensor([1.0])
    values = torch.tensor([-9.0, 0.0, 0.4, 9.0])
    found = [
        round_with_offset(values, step, torch.tensor([offset]), levels=7, share=1.0).tolist()
        for offset in (-2.4, 3.0, -30.0)
    ]
    assert found == [[-2, 0, 0, 5], [0, 0, 0, 7], [-7, 0, 0, 0]]


def test_who_shares_a_step_sets_its_gradients_size() -> None:
    """N counts the weights of a channel, a tensor, a group; the last group of a row is shorter."""
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))
    expected = {"channel": [10.0], "tensor": [30.0], 4: [4.0, 4.0, 2.0]}
    for granularity, counts in expected.items():
        number_format = WeightFormat(3, granularity)
        steps = initial_weight_steps(weight, number_format, "lsq")
        found = weights_per_step(weight, number_format)
        rounder = LearnedWeightSteps(number_format, steps, found)
        rounder(weight).sum().backward()
        assert found[0].flatten().tolist() == counts
        groups = weight.split([int(n) for n in counts], dim=1) if granularity == 4 else [weight]
        rows = [part.reshape(1 if granularity == "tensor" else 3, -1) for part in groups]
        for i, part in enumerate(rows):
            learnt = rounder.step.detach()[:, i] if granularity == 4 else rounder.step.detach()
            slopes = [
                sum(lsq(v, s, -4, 3)[2] for v in row) / math.sqrt(len(row) * 3)
                for row, s in zip(part.tolist(), learnt.flatten().tolist(), strict=True)
            ]
            gradient = rounder.step.grad[:, i] if granularity == 4 else rounder.step.grad
            assert torch.allclose(gradient.flatten(), torch.tensor(slopes), **CLOSE)


def test_steps_of_weights_begin_as_each_rule_says() -> None:
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(3)) + 0.1
    w4 = WeightFormat(4)
    rows = weight.numpy().astype(np.float64)
    for init, expected in {
        "lsq": 2 * np.abs(rows).mean(1) / math.sqrt(7),
        "lsq+": np.maximum(
            np.abs(rows.mean(1) - 3 * rows.std(1)), np.abs(rows.mean(1) + 3 * rows.std(1))
        )
        / 8,
        "minmax": np.abs(rows).max(1) / 7,
    }.items():
        assert np.allclose(initial_weight_steps(weight, w4, init)[:, 0], expected, rtol=1e-5), init
    errors = {
        init: float((LearnedWeightSteps(w4, steps, steps)(weight) - weight).detach().square().sum())
        for init in ("minmax", "mse")
        for steps in [initial_weight_steps(weight, w4, init)]
    }
    assert errors["mse"] < errors["minmax"]


def test_a_channel_or_layer_of_zeros_gets_a_step_it_can_leave_zero_with() -> None:
    weight = torch.cat([torch.zeros(1, 16), torch.full((2, 16), 0.5)])
    steps = initial_weight_steps(weight, WeightFormat(4), "lsq")
    assert steps[0] == steps[1] == pytest.approx(1.0 / math.sqrt(7))
    empty = initial_weight_steps(torch.zeros(2, 16), WeightFormat(4), "minmax")
    assert empty.flatten().tolist() == pytest.approx([2.0 / math.sqrt(16 * 7)] * 2)


def test_absmax_is_rounding_to_nearest_with_the_gradient_straight_through() -> None:
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(4), requires_grad=True)
    for number_format in (WeightFormat(4), WeightFormat(3, "tensor"), WeightFormat(2, 5)):
        rounded = AbsmaxWeights(number_format)(weight)
        assert torch.equal(rounded, quantize_weight(weight, number_format, name="w"))
        (gradient,) = torch.autograd.grad(rounded.sum(), weight)
        assert torch.equal(gradient, torch.ones_like(weight))


def test_pact_sends_the_gradient_to_values_inside_and_to_the_clip_outside() -> None:
    clip = LearnedClip(ActivationFormat(4), alpha=1.4)
    values = torch.tensor([-3.0, -1.39, -0.31, 0.0, 0.52, 1.41, 2.0], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    rounded = clip(values)
    rounded.backward(upstream)
    assert torch.allclose(rounded, torch.tensor([-1.4, -1.4, -0.4, 0.0, 0.6, 1.4, 1.4]))
    assert values.grad.tolist() == [0.0, 2.0, 4.0, 8.0, 16.0, 0.0, 0.0]
    assert clip.alpha.grad.tolist() == [-1.0 + 32.0 + 64.0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_dorefa_is_its_equation_times_the_weights_own_size(bits: int) -> None:
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(bits), requires_grad=True)
    levels = 2**bits - 1
    bent = torch.tanh(weight)
    shares = bent / bent.abs().amax(1, keepdim=True).detach() / 2 + 0.5
    held = shares + (torch.round(levels * shares) / levels - shares).detach()  # straight-through
    expected = weight.abs().amax(1, keepdim=True).detach() * (2 * held - 1)
    upstream = torch.randn(3, 40, generator=torch.Generator().manual_seed(9))
    (gradient,) = torch.autograd.grad(expected, weight, upstream)
    rounded = TanhWeights(WeightFormat(bits))(weight)
    (mine,) = torch.autograd.grad(rounded, weight, upstream)
    assert torch.allclose(rounded, expected, **CLOSE)
    assert torch.allclose(mine, gradient, **CLOSE)
    assert not TanhWeights(WeightFormat(bits))(torch.zeros(2, 4)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_in_float32(dtype: torch.dtype) -> None:
    values = torch.randn(64, generator=torch.Generator().manual_seed(1)).to(dtype)
    a8, a8z = ActivationFormat(8), ActivationFormat(8, asymmetric=True)
    for rounder in (
        LearnedInputStep(a8, step=0.03, features=64),
        LearnedOffset(a8z, step=0.03, offset=-2.0, features=64),
        LearnedClip(a8, alpha=2.0),
    ):
        given = values.clone().requires_grad_()
        rounded = rounder(given)
        rounded.float().square().sum().backward()
        assert torch.equal(rounded, rounder(values.float()).to(dtype))
        assert given.grad.dtype == dtype
        assert all(p.grad.dtype == torch.float32 for p in rounder.parameters())
