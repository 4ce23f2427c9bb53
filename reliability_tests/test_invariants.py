"""Properties every number format must have, whatever the numbers.

Tolerances are derived, not tuned. With u = 2⁻²⁴ (half an ULP of 1 in float32), round to nearest
gives fl(x / s) = (x / s)(1 + δ) and fl(s · q) = s · q · (1 + δ') with |δ|, |δ'| ≤ u. An error of δ
in x / s can move the rounding by at most |x / s| · u beyond half a step, and |s · q| ≤ |x| + s, so

    |x̂ - x| ≤ s / 2 + 2u · (|x| + s)       (one more u covers the products u² left out)
"""

from __future__ import annotations

import hypothesis.extra.numpy as numpy_strategies
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipq.errors import QuantizerError
from clipq.quant import ActivationFormat, Format, QuantizerSpec, WeightFormat
from clipq.quant.activations import StaticQuantizer
from clipq.quant.affine import (
    QParams,
    choose_qparams_asymmetric,
    choose_qparams_symmetric,
    dequantize,
    fake_quantize,
    quantize_codes,
)
from clipq.quant.weights import quantize_weight

U = 2.0**-24
# Beyond 2⁹⁹ the products of a test's own arithmetic overflow; denormals and zeros are included.
finite = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=True)
moderate = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
weight_bits = st.integers(2, 8)
activations = st.builds(
    ActivationFormat, st.integers(4, 8), dynamic=st.booleans(), asymmetric=st.booleans()
)
granularities = st.sampled_from(["channel", "tensor"]) | st.integers(1, 10**6)
weights = st.builds(WeightFormat, weight_bits, granularities, st.booleans())
formats = st.builds(Format, weights, st.none() | activations)
words = st.from_regex("[a-z][a-z0-9_]*", fullmatch=True)
values_of_options = st.from_regex("[A-Za-z0-9._+-]+", fullmatch=True)
specs = st.builds(
    QuantizerSpec,
    words.filter(lambda word: word != "fp32"),
    st.none() | formats,
    st.dictionaries(words, values_of_options, max_size=4).map(lambda d: tuple(d.items())),
    st.sampled_from(["both", "vision", "text"]),
)
schemes = pytest.mark.parametrize("asymmetric", [False, True], ids=["symmetric", "asymmetric"])


def tensors(elements: st.SearchStrategy[float], *, dims: int = 1) -> st.SearchStrategy[Tensor]:
    shapes = numpy_strategies.array_shapes(min_dims=dims, max_dims=dims, max_side=12)
    return numpy_strategies.arrays(np.float32, shapes, elements=elements).map(torch.from_numpy)


def grid_of(values: Tensor, bits: int, *, asymmetric: bool) -> QParams:
    if asymmetric:
        return choose_qparams_asymmetric(values.amin(), values.amax(), bits=bits)
    return choose_qparams_symmetric(values.abs().amax(), bits=bits)


def rounded_to(weight: Tensor, text: str) -> Tensor:
    return quantize_weight(weight, Format.parse(text).weight, name="layer")


def error_bound(values: Tensor, qparams: QParams) -> Tensor:
    """Return the bound of the module's docstring, in float64."""
    scale, magnitude = qparams.scale.double(), values.double().abs()
    bound = 0.5 * scale + 3 * U * (magnitude + scale)
    if qparams.zero_point is None:
        return bound
    # The scale itself carries three roundings, high/n, low/n and their difference, and z is
    # clamped: at the ends of the range the grid may stop short by those, n·s·3u in all.
    return bound + 3 * U * scale * (qparams.high - qparams.low + 1)


@schemes
@given(values=tensors(finite), bits=weight_bits)
def test_inside_the_range_the_error_is_at_most_half_a_step(asymmetric, values, bits) -> None:
    qparams = grid_of(values, bits, asymmetric=asymmetric)
    error = (fake_quantize(values, qparams).double() - values.double()).abs()
    assert (error <= error_bound(values, qparams)).all()


@schemes
@given(values=tensors(finite), bits=weight_bits)
def test_rounding_twice_is_rounding_once(asymmetric, values, bits) -> None:
    qparams = grid_of(values, bits, asymmetric=asymmetric)
    once = fake_quantize(values, qparams)
    assert torch.equal(fake_quantize(once, qparams), once)


@schemes
@given(values=tensors(finite), outside=tensors(finite), bits=weight_bits)
def test_codes_stay_in_bounds_and_stand_for_the_rounded_values(
    asymmetric, values, outside, bits
) -> None:
    qparams = grid_of(values, bits, asymmetric=asymmetric)
    codes = quantize_codes(outside, qparams)
    assert qparams.high - qparams.low == 2**bits - 1
    assert ((codes >= qparams.low) & (codes <= qparams.high)).all()
    assert torch.equal(dequantize(codes, qparams), fake_quantize(outside, qparams))


@schemes
@given(values=tensors(finite), bits=weight_bits)
def test_zero_is_exact_and_the_scale_is_normal(asymmetric, values, bits) -> None:
    qparams = grid_of(values, bits, asymmetric=asymmetric)
    assert fake_quantize(torch.zeros(1), qparams).item() == 0.0
    assert torch.finfo(torch.float32).tiny <= qparams.scale.item() < float("inf")
    if qparams.zero_point is not None:
        assert qparams.zero_point == qparams.zero_point.round()
        assert qparams.low <= qparams.zero_point <= qparams.high


@schemes
@given(values=tensors(finite), bits=weight_bits)
def test_rounding_keeps_the_order(asymmetric, values, bits) -> None:
    ascending = fake_quantize(values.sort().values, grid_of(values, bits, asymmetric=asymmetric))
    assert (ascending.diff() >= 0).all()


@given(values=tensors(finite), bits=weight_bits)
def test_symmetric_rounding_is_odd(values, bits) -> None:
    qparams = grid_of(values, bits, asymmetric=False)
    assert torch.equal(fake_quantize(-values, qparams), -fake_quantize(values, qparams))


@schemes
@given(values=tensors(finite), bits=st.integers(2, 7))
def test_one_more_bit_never_worsens_the_bound(asymmetric, values, bits) -> None:
    coarse, fine = (grid_of(values, b, asymmetric=asymmetric) for b in (bits, bits + 1))
    assert fine.scale <= coarse.scale
    worst = (fake_quantize(values, fine).double() - values.double()).abs().max()
    assert worst <= error_bound(values, coarse).max()


@schemes
@given(data=st.data(), calibration=tensors(moderate), bits=weight_bits)
def test_the_gradient_passes_inside_the_range_and_stops_outside(
    asymmetric, data, calibration, bits
) -> None:
    qparams = grid_of(calibration, bits, asymmetric=asymmetric)
    values = data.draw(tensors(moderate)).requires_grad_()
    upstream = torch.arange(1.0, len(values) + 1)
    fake_quantize(values, qparams).backward(upstream)
    zero = 0 if qparams.zero_point is None else qparams.zero_point
    codes = torch.round(values.detach() / qparams.scale) + zero
    inside = (codes >= qparams.low) & (codes <= qparams.high)
    assert torch.equal(values.grad, torch.where(inside, upstream, 0.0))


@given(weight=tensors(finite, dims=2), number_format=weights, data=st.data())
def test_permuting_channels_commutes_with_rounding(weight, number_format, data) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(weight)))))
    permuted = quantize_weight(weight[order], number_format, name="layer")
    assert torch.equal(permuted, quantize_weight(weight, number_format, name="layer")[order])


@given(
    weight=tensors(finite, dims=2), size=st.integers(1, 14), bits=weight_bits, zero=st.booleans()
)
def test_groups_do_not_see_each_other(weight, size, bits, zero) -> None:
    suffix = "z" if zero else ""
    together = rounded_to(weight, f"w{bits}g{size}{suffix}")
    alone = [rounded_to(part, f"w{bits}{suffix}") for part in weight.split(size, dim=1)]
    assert torch.equal(together, torch.cat(alone, dim=1))


@given(weight=tensors(finite, dims=2), number_format=weights)
def test_a_row_has_no_more_levels_than_its_bits_allow(weight, number_format) -> None:
    before = weight.clone()
    result = quantize_weight(weight, number_format, name="layer")
    assert torch.equal(weight, before), "the original changed"
    assert torch.equal(result, quantize_weight(weight, number_format, name="layer"))
    assert torch.isfinite(result).all()
    if number_format.granularity == "channel":
        assert all(len(row.unique()) <= 2**number_format.bits for row in result)


@given(weight=tensors(moderate, dims=2), exponent=st.integers(-20, 20), bits=weight_bits)
def test_scaling_by_a_power_of_two_scales_the_result(weight, exponent, bits) -> None:
    # Exact only while no scale is denormal, hence clamped.
    weight = torch.where(weight.abs() < 1e-20, 0.0, weight)
    scaled = rounded_to(weight * 2.0**exponent, f"w{bits}")
    assert torch.equal(scaled, rounded_to(weight, f"w{bits}") * 2.0**exponent)


@given(number_format=formats)
def test_a_format_prints_to_what_parses_back(number_format) -> None:
    assert Format.parse(str(number_format)) == number_format


@given(spec=specs)
def test_a_quantizer_prints_to_what_parses_back(spec) -> None:
    assert QuantizerSpec.parse(str(spec)) == spec
    assert str(QuantizerSpec.parse(str(spec))) == str(spec)


@given(text=st.text(alphabet="wagtdz@:,=0148 _-r\n", max_size=12))
def test_whatever_is_accepted_was_canonical(text) -> None:
    try:
        number_format = Format.parse(text)
    except QuantizerError:
        return
    assert str(number_format) == text


@given(values=tensors(moderate, dims=2))
def test_static_rounding_treats_values_independently(values) -> None:
    quantizer = StaticQuantizer(
        ActivationFormat(8), low=values.min().item(), high=values.max().item()
    )
    assert torch.equal(quantizer(values).flatten(), quantizer(values.flatten()))
    assert torch.equal(quantizer(values.t()), quantizer(values).t())
