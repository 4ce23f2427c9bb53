"""Affine quantization: hand-computed cases, torch's own operators, and the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clipq.quant.affine import (
    QParams,
    choose_qparams_asymmetric,
    choose_qparams_symmetric,
    dequantize,
    quantize_codes,
)
from clipq.quant.grids import fake_quantize

BITS = range(2, 9)


def symmetric(values: Tensor, bits: int) -> QParams:
    return choose_qparams_symmetric(values.abs().amax(), bits=bits)


def asymmetric(values: Tensor, bits: int) -> QParams:
    return choose_qparams_asymmetric(values.amin(), values.amax(), bits=bits)


def test_symmetric_by_hand() -> None:
    values = torch.tensor([-7.0, -3.4, 0.0, 0.5, 1.5, 6.6, 7.0])
    qparams = symmetric(values, 4)  # s = 7 / 7 = 1
    assert qparams.scale == 1.0
    assert (qparams.low, qparams.high) == (-8, 7)
    assert quantize_codes(values, qparams).tolist() == [-7, -3, 0, 0, 2, 7, 7]  # ties to even
    assert fake_quantize(values, qparams).tolist() == [-7, -3, 0, 0, 2, 7, 7]


def test_asymmetric_by_hand() -> None:
    values = torch.tensor([-1.0, 0.0, 0.9, 2.0])
    qparams = asymmetric(values, 2)  # s = 3 / 3 = 1, z = 1
    assert (qparams.scale, qparams.zero_point) == (1.0, 1.0)
    assert quantize_codes(values, qparams).tolist() == [0, 1, 2, 3]
    assert fake_quantize(values, qparams).tolist() == [-1, 0, 1, 2]


def test_values_outside_the_range_saturate() -> None:
    qparams = choose_qparams_symmetric(torch.tensor(7.0), bits=4)
    outside = torch.tensor([-100.0, 100.0, -math.inf, math.inf])
    assert fake_quantize(outside, qparams).tolist() == [-8, 7, -8, 7]


@pytest.mark.parametrize("bits", BITS)
def test_symmetric_is_the_published_round_to_nearest(bits: int) -> None:
    weight = np.random.default_rng(bits).normal(size=500).astype(np.float32)
    scale = np.abs(weight).max() / np.float32(2 ** (bits - 1) - 1)
    codes = np.clip(np.rint(weight / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    values = torch.from_numpy(weight)
    assert np.array_equal(fake_quantize(values, symmetric(values, bits)), scale * codes)


# torch multiplies by 1/s where we divide by s, so a value within rounding error of a tie may land
# on the neighbouring code. Everywhere else the two must agree to the bit.
def assert_equal_but_for_ties(ours: Tensor, theirs: Tensor, values: Tensor, scale: Tensor) -> None:
    steps = values / scale
    tied = ((steps - steps.floor()) - 0.5).abs() <= 4 * torch.finfo(torch.float32).eps * (
        1 + steps.abs()
    )
    assert torch.equal(ours[~tied], theirs[~tied])
    assert torch.all((ours - theirs).abs() <= 1.001 * scale)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("choose", [symmetric, asymmetric])
def test_agrees_with_torch_per_tensor(bits: int, choose) -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(bits)) + 0.3
    qparams = choose(values[:2000], bits)  # half the values set the range, so that some saturate
    zero = qparams.zero_point if qparams.zero_point is not None else torch.zeros(())
    theirs = torch.fake_quantize_per_tensor_affine(
        values, qparams.scale.reshape(()), zero.int().reshape(()), qparams.low, qparams.high
    )
    assert_equal_but_for_ties(fake_quantize(values, qparams), theirs, values, qparams.scale)


@pytest.mark.parametrize("bits", BITS)
def test_agrees_with_torch_per_channel(bits: int) -> None:
    values = torch.randn(16, 300, generator=torch.Generator().manual_seed(bits))
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    qparams = choose_qparams_asymmetric(low, high, bits=bits)
    assert qparams.zero_point is not None
    theirs = torch.fake_quantize_per_channel_affine(
        values,
        qparams.scale.flatten(),
        qparams.zero_point.flatten().int(),
        0,
        qparams.low,
        qparams.high,
    )
    assert_equal_but_for_ties(fake_quantize(values, qparams), theirs, values, qparams.scale)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("choose", [symmetric, asymmetric])
def test_the_gradient_agrees_with_torch(bits: int, choose) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(bits))
    qparams = choose(values[:500] * 0.5, bits)
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    zero = qparams.zero_point if qparams.zero_point is not None else torch.zeros(())
    upstream = torch.arange(1000.0)
    fake_quantize(ours, qparams).backward(upstream)
    torch.fake_quantize_per_tensor_affine(
        theirs, qparams.scale, zero.int(), qparams.low, qparams.high
    ).backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)
    assert (ours.grad == 0).any()
    assert (ours.grad != 0).any()


def test_codes_and_their_values_give_the_fake_quantized_values() -> None:
    values = torch.randn(999, generator=torch.Generator().manual_seed(0))
    for choose in (symmetric, asymmetric):
        qparams = choose(values, 5)
        assert torch.equal(
            dequantize(quantize_codes(values, qparams), qparams), fake_quantize(values, qparams)
        )


@pytest.mark.parametrize("choose", [symmetric, asymmetric])
@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-39, 1e-38])
def test_tiny_ranges_get_a_normal_scale_and_zero_stays_zero(choose, value: float) -> None:
    values = torch.tensor([0.0, value])
    qparams = choose(values, 8)
    assert qparams.scale >= torch.finfo(torch.float32).tiny
    result = fake_quantize(values, qparams)
    assert result[0] == 0
    assert torch.isfinite(result).all()


def test_the_widest_range_does_not_overflow() -> None:
    largest = torch.finfo(torch.float32).max
    values = torch.tensor([-largest, largest])
    assert torch.isfinite(asymmetric(values, 8).scale)


def test_a_range_without_zero_is_widened_to_hold_it() -> None:
    values = torch.tensor([5.0, 6.0])
    qparams = asymmetric(values, 8)
    assert qparams.zero_point == 0
    assert qparams.scale == torch.tensor(6.0) / 255


@pytest.mark.parametrize("choose", [symmetric, asymmetric])
def test_nan_propagates_and_has_no_gradient(choose) -> None:
    qparams = choose(torch.tensor([-1.0, 1.0]), 8)
    values = torch.tensor([math.nan, 0.5], requires_grad=True)
    result = fake_quantize(values, qparams)
    assert result.isnan().tolist() == [True, False]
    result.nan_to_num().sum().backward()
    assert values.grad.tolist() == [0.0, 1.0]
    assert choose(torch.tensor([math.nan, 1.0]), 8).scale.isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    qparams = symmetric(values, 8)
    assert qparams.scale.dtype == torch.float32
    result = fake_quantize(values, qparams)
    assert result.dtype == dtype
    assert torch.equal(result, fake_quantize(values.float(), qparams).to(dtype))


def test_the_input_is_left_alone_whatever_its_strides() -> None:
    values = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).t()[::2]
    before = values.clone()
    result = fake_quantize(values, symmetric(values, 4))
    assert torch.equal(values, before)
    assert torch.equal(result, fake_quantize(before.contiguous(), symmetric(before, 4)))
    assert fake_quantize(values[:0], symmetric(values, 4)).shape == (0, 6)
