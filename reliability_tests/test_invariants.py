"""Properties every number format must have, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipq.errors import QuantizerError
from clipq.quant import ActivationFormat, Format, QuantizerSpec
from clipq.quant.activations import StaticQuantizer
from clipq.quant.affine import QParams, dequantize, quantize_codes
from clipq.quant.grids import choose_grid, fake_quantize
from clipq.quant.weights import quantize_weight
from clipq.testing import check_rounding
from clipq.testing.strategies import (
    activation_formats,
    formats,
    moderate_floats,
    quantizer_specs,
    tensors,
)

INTEGERS = ("w8", "w4z", "w3t", "w2g5", "w4g3z", "w5p", "w4zp", "w8g64")
OTHERS = ("we4m3", "we5m2g4", "wnf4", "wnf4g7p", "wmxfp8", "wmxfp4")


def round_weight(weight, number_format):
    return quantize_weight(weight, number_format, name="layer")


CHECKS = [
    c for text in INTEGERS + OTHERS for c in check_rounding(round_weight, Format.parse(text).weight)
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_rounding(check) -> None:
    check()


@given(values=tensors(), number_format=activation_formats())
def test_rounding_twice_to_one_grid_is_rounding_once(values, number_format) -> None:
    grid = choose_grid(values.amin(), values.amax(), number_format)
    once = fake_quantize(values, grid)
    assert torch.equal(fake_quantize(once, grid), once)


@given(values=tensors(), number_format=activation_formats())
def test_zero_is_exact_and_the_scale_is_normal(values, number_format) -> None:
    grid = choose_grid(values.amin(), values.amax(), number_format)
    assert fake_quantize(torch.zeros(1), grid).item() == 0.0
    assert torch.finfo(torch.float32).tiny <= grid.scale.item() < float("inf")
    if getattr(grid, "zero_point", None) is not None:
        assert grid.zero_point == grid.zero_point.round()
        assert grid.low <= grid.zero_point <= grid.high


@given(
    values=tensors(),
    outside=tensors(),
    number_format=st.builds(ActivationFormat, st.integers(2, 8), asymmetric=st.booleans()),
)
def test_codes_stay_in_bounds_and_stand_for_the_rounded_values(
    values, outside, number_format
) -> None:
    grid = choose_grid(values.amin(), values.amax(), number_format)
    assert isinstance(grid, QParams)
    codes = quantize_codes(outside, grid)
    assert grid.high - grid.low == 2**number_format.bits - 1
    assert ((codes >= grid.low) & (codes <= grid.high)).all()
    assert torch.equal(dequantize(codes, grid), fake_quantize(outside, grid))


@given(data=st.data(), calibration=tensors(moderate_floats()), number_format=activation_formats())
def test_the_gradient_passes_inside_the_range_and_stops_outside(
    data, calibration, number_format
) -> None:
    grid = choose_grid(calibration.amin(), calibration.amax(), number_format)
    values = data.draw(tensors(moderate_floats())).requires_grad_()
    upstream = torch.arange(1.0, len(values) + 1)
    rounded = fake_quantize(values, grid)
    rounded.backward(upstream)
    # What is clamped lies beyond all that the grid can represent.
    ends = fake_quantize(torch.tensor([-1e30, 1e30]), grid)
    clearly_in = (values > ends[0]) & (values < ends[1])
    step = grid.scale * 64  # larger than any grid's last step
    clearly_out = (values < ends[0] - step) | (values > ends[1] + step)
    assert torch.equal(values.grad[clearly_in], upstream[clearly_in])
    assert (values.grad[clearly_out] == 0).all()


@given(values=tensors(moderate_floats(), dims=2))
def test_static_rounding_treats_values_independently(values) -> None:
    quantizer = StaticQuantizer(
        ActivationFormat(8), low=values.min().item(), high=values.max().item()
    )
    assert torch.equal(quantizer(values).flatten(), quantizer(values.flatten()))
    assert torch.equal(quantizer(values.t()), quantizer(values).t())


@given(number_format=formats())
def test_a_format_prints_to_what_parses_back(number_format) -> None:
    assert Format.parse(str(number_format)) == number_format


@given(spec=quantizer_specs())
def test_a_quantizer_prints_to_what_parses_back(spec) -> None:
    assert QuantizerSpec.parse(str(spec)) == spec
    assert str(QuantizerSpec.parse(str(spec))) == str(spec)


@given(text=st.text(alphabet="wagtdzpks@:,=0148 _-r\nenfmx", max_size=12))
def test_whatever_is_accepted_was_canonical(text) -> None:
    try:
        number_format = Format.parse(text)
    except QuantizerError:
        return
    assert str(number_format) == text
