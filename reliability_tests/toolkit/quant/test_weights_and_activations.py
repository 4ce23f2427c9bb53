"""Granularity of weights; static and dynamic rounding of activations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

from clipq.errors import QuantizerError
from clipq.quant import ActivationFormat, Format
from clipq.quant.activations import DynamicQuantizer, StaticQuantizer
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear, quantized_twin
from clipq.quant.weights import quantize_weight


def rounded(weight: Tensor, text: str) -> Tensor:
    return quantize_weight(weight, Format.parse(text).weight, name="layer")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slowly_rounded(row: np.ndarray, bits: int, *, asymmetric: bool) -> np.ndarray:
    """Transcribe the definition for one group of values, element by element, in float32."""
    f = np.float32
    if asymmetric:
        low, high, levels = min(row.min(), f(0)), max(row.max(), f(0)), 2**bits - 1
        scale = f(high / f(levels)) - f(low / f(levels))
        zero = np.rint(-low / scale)
        return np.array(
            [scale * (min(max(np.rint(x / scale) + zero, 0), levels) - zero) for x in row], f
        )
    scale = f(np.abs(row).max() / f(2 ** (bits - 1) - 1))
    bounds = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return np.array([scale * min(max(np.rint(x / scale), bounds[0]), bounds[1]) for x in row], f)


def test_per_channel_by_hand() -> None:
    weight = torch.tensor([[1.0, -7.0], [0.3, 0.7]])
    assert torch.allclose(rounded(weight, "w4"), torch.tensor([[1.0, -7.0], [0.3, 0.7]]))
    assert torch.allclose(rounded(weight, "w4t"), torch.tensor([[1.0, -7.0], [0.0, 1.0]]))


def test_groups_by_hand_with_a_shorter_last_one() -> None:
    weight = torch.tensor([[7.0, 1.4, 0.7, 0.33, 70.0]])
    # groups (7, 1.4), (0.7, 0.33), (70): scales 1, 0.1, 10
    assert torch.allclose(rounded(weight, "w4g2"), torch.tensor([[7.0, 1.0, 0.7, 0.3, 70.0]]))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("size", [1, 5, 16, 27])
def test_every_group_follows_the_definition(bits: int, asymmetric: bool, size: int) -> None:
    weight = draw(4, 3, 3, 3)  # a convolution: rows of 27
    result = rounded(weight, f"w{bits}g{size}{'z' if asymmetric else ''}").flatten(1).numpy()
    for row, values in zip(weight.flatten(1).numpy(), result, strict=True):
        groups = [row[i : i + size] for i in range(0, 27, size)]
        expected = [slowly_rounded(group, bits, asymmetric=asymmetric) for group in groups]
        assert np.array_equal(np.concatenate(expected), values)


@pytest.mark.parametrize("bits", [4, 8])
def test_ranges_agree_with_the_observers_of_torch(bits: int) -> None:
    weight = draw(8, 40)
    levels = {"quant_min": 0, "quant_max": 2**bits - 1, "dtype": torch.quint8}
    channel = PerChannelMinMaxObserver(ch_axis=0, qscheme=torch.per_channel_affine, **levels)
    channel(weight)
    scale, zero = channel.calculate_qparams()
    theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, 0, 2**bits - 1)
    assert torch.allclose(rounded(weight, f"w{bits}z"), theirs, atol=1e-6)

    tensor = MinMaxObserver(qscheme=torch.per_tensor_affine, **levels)
    tensor(weight)
    scale, zero = tensor.calculate_qparams()
    ours = StaticQuantizer(
        ActivationFormat(bits, asymmetric=True), low=weight.min().item(), high=weight.max().item()
    )
    assert torch.allclose(ours.scale, scale)
    assert ours.zero_point == zero


def test_a_group_longer_than_the_row_is_the_row() -> None:
    weight = draw(3, 10)
    assert torch.equal(rounded(weight, "w4g64"), rounded(weight, "w4"))


def test_a_zero_channel_stays_exactly_zero() -> None:
    weight = torch.stack([torch.zeros(6), draw(6)])
    for text in ("w2", "w8z", "w4g4", "w4g4z"):
        assert torch.equal(rounded(weight, text)[0], torch.zeros(6))


def test_an_infinite_weight_is_refused_by_name_and_nan_propagates() -> None:
    weight = draw(2, 4)
    weight[0, 1] = math.inf
    with pytest.raises(QuantizerError, match="weight of layer holds an infinite value"):
        rounded(weight, "w8")
    weight[0, 1] = math.nan
    assert rounded(weight, "w8")[0].isnan().all()
    assert torch.isfinite(rounded(weight, "w8")[1]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_weight_keeps_its_type_and_its_levels(dtype: torch.dtype) -> None:
    weight = draw(4, 500).to(dtype)
    result = rounded(weight, "w4")
    assert result.dtype == dtype
    assert all(len(row.unique()) <= 16 for row in result)
    assert torch.equal(result, rounded(weight.float(), "w4").to(dtype))


def test_a_static_range_by_hand() -> None:
    quantizer = StaticQuantizer(ActivationFormat(4), low=-3.0, high=7.0)  # s = 1
    assert quantizer(torch.tensor([-9.0, -2.6, 0.4, 9.0])).tolist() == [-8, -3, 0, 7]


@pytest.mark.parametrize("asymmetric", [False, True])
def test_a_dead_input_yields_zeros_and_a_constant_one_itself(asymmetric: bool) -> None:
    number_format = ActivationFormat(8, asymmetric=asymmetric)
    dead = StaticQuantizer(number_format, low=0.0, high=0.0)
    assert torch.equal(dead(torch.zeros(3)), torch.zeros(3))
    for value in (2.5, -2.5):
        constant = StaticQuantizer(number_format, low=value, high=value)
        assert torch.allclose(constant(torch.tensor([value])), torch.tensor([value]))


@pytest.mark.parametrize("bounds", [(-1, math.inf), (math.nan, 1.0), (1.0, -1.0)])
def test_a_range_that_is_no_interval_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(QuantizerError, match="no finite interval"):
        StaticQuantizer(ActivationFormat(8), low=bounds[0], high=bounds[1])


@pytest.mark.parametrize("text", ["w8a8d", "w8a8dz", "w8a4d"])
def test_dynamic_rounding_treats_every_token_by_itself(text: str) -> None:
    activation = Format.parse(text).activation
    tokens = draw(2, 5, 32) * torch.logspace(-3, 3, 5)[:, None]
    together = DynamicQuantizer(activation, over="features")(tokens)
    for sample, result in zip(tokens.flatten(0, 1), together.flatten(0, 1), strict=True):
        alone = slowly_rounded(sample.numpy(), activation.bits, asymmetric=activation.asymmetric)
        assert np.array_equal(alone, result.numpy())


def test_dynamic_rounding_before_a_convolution_treats_every_image_by_itself() -> None:
    images = draw(3, 2, 4, 4) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None, None]
    quantizer = DynamicQuantizer(ActivationFormat(8, dynamic=True), over="image")
    for image, result in zip(images, quantizer(images), strict=True):
        alone = slowly_rounded(image.flatten().numpy(), 8, asymmetric=False)
        assert np.array_equal(alone, result.flatten().numpy())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_token_breaks_no_other(value: float) -> None:
    tokens = draw(2, 8)
    tokens[0, 3] = value
    result = DynamicQuantizer(ActivationFormat(8, dynamic=True), over="features")(tokens)
    assert result[0].isnan().any()
    assert torch.isfinite(result[1]).all()


def test_empty_input_passes() -> None:
    for over, shape in (("features", (0, 7)), ("image", (0, 3, 4, 4))):
        quantizer = DynamicQuantizer(ActivationFormat(8, dynamic=True), over=over)
        assert quantizer(torch.empty(shape)).shape == shape


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Linear(6, 4, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Conv2d(4, 6, 3, padding="same"),
    ],
)
def test_a_twin_without_rounding_is_the_layer(layer: nn.Linear | nn.Conv2d) -> None:
    twin = quantized_twin(layer.eval(), layer.weight.detach().clone(), None)
    assert isinstance(twin, QuantizedLinear | QuantizedConv2d)
    values = draw(5, 6) if isinstance(layer, nn.Linear) else draw(2, 4, 9, 9)
    assert torch.equal(twin(values), layer(values))
    assert not twin.training


def test_the_gradient_reaches_the_input_through_a_quantized_layer() -> None:
    layer = nn.Linear(4, 2)
    inputs = StaticQuantizer(ActivationFormat(8), low=-1.0, high=1.0)
    twin = quantized_twin(layer, rounded(layer.weight, "w8"), inputs)
    values = torch.tensor([[0.2, -0.3, 5.0, 0.9]], requires_grad=True)  # the third saturates
    twin(values).sum().backward()
    expected = twin.weight.sum(0) * torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert torch.equal(values.grad[0], expected)
