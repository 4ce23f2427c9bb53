"""Grids of small floats, shared exponents and quantiles, against torchao and enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx
from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import NF4Tensor

from clipq.quant.affine import round_up_to_power
from clipq.quant.floats import NF4, FloatGrid
from clipq.quant.formats import ActivationFormat, Format, WeightFormat
from clipq.quant.grids import choose_grid, fake_quantize
from clipq.quant.weights import quantize_weight

FORMATS = ["w8", "w4z", "w4p", "w3zp", "we4m3", "we5m2", "we4m3p", "wnf4", "wmxfp8", "wmxfp4"]
E2M1 = torch.tensor([s * v for s in (-1, 1) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)])


def weights(rows: int, columns: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-6, 6, rows)[:, None]
    return torch.randn(rows, columns, generator=generator) * sizes


@pytest.mark.parametrize(
    ("text", "element"), [("wmxfp8", torch.float8_e4m3fn), ("wmxfp4", torch.float4_e2m1fn_x2)]
)
def test_mx_is_torchao_s(text, element):
    weight = weights(16, 96)
    scale, data = to_mx(weight, element, 32)
    theirs = to_dtype(data, scale, element, 32, torch.float32)
    ours = quantize_weight(weight, Format.parse(text).weight, name="w")
    assert torch.equal(ours, theirs)


def test_nf4_values_are_torchao_s():
    """To its four decimals; and to seven of the paper's."""
    theirs = NF4Tensor.from_tensor(torch.randn(64, 64), 64, 1).nf4.float()
    assert torch.allclose(torch.tensor(NF4), theirs, atol=5.1e-5, rtol=0)
    assert NF4[1] == pytest.approx(-0.6961928009986877, abs=2e-7)
    assert NF4[8] == pytest.approx(0.07958029955625534, abs=2e-7)
    assert NF4[14] == pytest.approx(0.7229568362236023, abs=2e-7)


def test_nf4_takes_the_nearest_value():
    book = torch.tensor(NF4)
    weight = weights(8, 64)
    ours = quantize_weight(weight, Format.parse("wnf4").weight, name="w")
    scaled = weight / weight.abs().amax(1, keepdim=True)
    nearest = (scaled[..., None] - book).abs().amin(-1)
    assert torch.allclose(
        (ours / weight.abs().amax(1, keepdim=True) - scaled).abs(), nearest, atol=1e-6
    )


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
def test_eight_bit_floats_round_as_torch_casts(element):
    dtype = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[element]
    every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    every = every[every.isfinite()]
    grid = FloatGrid(torch.tensor(1.0), element)
    assert torch.equal(grid.snap(every), every)
    between = (every.sort().values[1:] + every.sort().values[:-1]) / 2
    snapped = grid.snap(between)
    near = every.sort().values
    assert ((snapped == near[1:]) | (snapped == near[:-1])).all()


@given(st.floats(-6, 6, width=32))
def test_four_bit_floats_take_the_nearest_and_even_on_ties(value):
    grid = FloatGrid(torch.tensor(1.0), "e2m1")
    found = float(grid.snap(torch.tensor([value])))
    distances = (E2M1 - value).abs()
    assert abs(found - value) == float(distances.min())
    tied = sorted({abs(float(x)) for x in E2M1[distances == distances.min()]})
    if len(tied) == 2:  # the one whose mantissa bit is 0
        assert abs(found) in (0.0, 1.0, 2.0, 4.0)


@pytest.mark.parametrize("text", FORMATS)
class TestEveryFormat:
    def test_is_idempotent(self, text):
        number_format = Format.parse(text).weight
        weight = weights(8, 64)
        grid = choose_grid(weight.amin(), weight.amax(), number_format)
        once = fake_quantize(weight, grid)
        assert torch.equal(fake_quantize(once, grid), once)

    def test_zero_is_exact_and_all_zeros_stay_zero(self, text):
        number_format = Format.parse(text).weight
        weight = torch.zeros(4, 32)
        assert torch.equal(quantize_weight(weight, number_format, name="w"), weight)
        weight[:, 1] = torch.tensor([1.0, -3.0, 1e-20, 1e20])
        assert (quantize_weight(weight, number_format, name="w")[:, 0] == 0).all()

    def test_is_monotone(self, text):
        number_format = Format.parse(text).weight
        values = torch.randn(1000, generator=torch.Generator().manual_seed(3)).sort().values
        grid = choose_grid(values.amin(), values.amax(), number_format)
        assert (grid.snap(values).diff() >= 0).all()

    def test_nan_stays_nan_and_the_rest_of_a_finite_grid_is_kept(self, text):
        number_format = Format.parse(text).weight
        grid = choose_grid(torch.tensor(-1.0), torch.tensor(1.0), number_format)
        snapped = grid.snap(torch.tensor([0.5, float("nan"), float("inf"), -float("inf")]))
        assert snapped.isnan().tolist() == [False, True, False, False]
        assert snapped[2] >= 1.0 - grid.scale.max()

    def test_the_gradient_passes_inside_and_stops_outside(self, text):
        number_format = Format.parse(text).weight
        grid = choose_grid(torch.tensor(-1.0), torch.tensor(1.0), number_format)
        values = torch.tensor([0.3, -0.7, 40.0, -40.0], requires_grad=True)
        fake_quantize(values, grid).sum().backward()
        assert values.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("text", ["w8", "w4z", "w3"])
def test_one_pass_rounds_and_masks_as_two_do(text):
    number_format = Format.parse(text).weight
    values = torch.randn(4, 64, generator=torch.Generator().manual_seed(5))
    grid = choose_grid(values.amin() / 2, values.amax() / 2, number_format)
    values[0, :5] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
    snapped, inside = grid.snap_and_inside(values)
    assert torch.equal(snapped.view(torch.int32), grid.snap(values).view(torch.int32))
    assert torch.equal(inside, grid.inside(values))
    assert set(inside.flatten().tolist()) == {True, False}


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_power_of_two_scales_are_powers_and_never_clip(scale):
    power = float(round_up_to_power(torch.tensor(scale)))
    assert scale <= power < 2 * scale
    assert torch.frexp(torch.tensor(power)).mantissa == 0.5


@pytest.mark.parametrize("text", ["w4p", "w8zp", "we4m3p", "wnf4p"])
def test_p_formats_have_powers_of_two(text):
    weight = weights(8, 32)
    low, high = weight.aminmax(dim=1, keepdim=True)
    grid = choose_grid(low, high, Format.parse(text).weight)
    assert (torch.frexp(grid.scale).mantissa == 0.5).all()


def test_more_bits_of_the_same_grid_are_never_worse():
    weight = weights(8, 128)
    for coarse, fine in itertools.pairwise(["w2", "w3", "w4", "w5", "w6", "w7", "w8"]):
        errors = [
            (quantize_weight(weight, Format.parse(text).weight, name="w") - weight).norm()
            for text in (coarse, fine)
        ]
        assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: WeightFormat(8, number="e4m4"), "'e4m4' is unknown"),
        (lambda: WeightFormat(4, number="e4m3"), "4-bit e4m3"),
        (lambda: WeightFormat(4, number="nf4", asymmetric=True), "asymmetric nf4"),
        (lambda: WeightFormat(4, "channel", number="mxfp4"), "mxfp4 weights with granularity"),
        (lambda: WeightFormat(4, 32, number="mxfp4", power_of_two=True), "mxfp4 weights with p"),
        (lambda: ActivationFormat(8, group=32), "activation group 32 with a static scale"),
        (lambda: ActivationFormat(8, number="mxfp8"), "mxfp8 activations with group None"),
        (lambda: ActivationFormat(4, number="nf4"), "nf4 activations"),
    ],
)
def test_impossible_formats_are_refused(call, complaint):
    from clipq.errors import QuantizerError

    with pytest.raises(QuantizerError, match=complaint):
        call()
