"""What a method outside of clipq's modules stores is read from the weights that it multiplies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipq.quant import Format, quantizers
from clipq.quant.apply import apply_method
from clipq.quant.explicit import make_explicit
from clipq.quant.storage import state_bytes, stored_bits
from clipq.quant.towers import in_towers
from clipq.quant.weights import quantize_weight
from clipq.testing import SmallInputs, small_clip

INPUTS = SmallInputs()


def in_place(change, *, explicit=True, chosen=""):
    """Return a method that changes weights where they lie."""

    def method(model, spec, calibration):
        if explicit:
            make_explicit(model, spec.towers)
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and in_towers(name, spec.towers):
                if chosen in name:
                    layer.weight.data.copy_(change(layer.weight.data))
        return model

    return method


class RoundsOnTheWay(nn.Module):
    def __init__(self, layer, change):
        super().__init__()
        self.weight, self.bias, self.change = layer.weight, layer.bias, change

    def forward(self, values):
        return nn.functional.linear(values, self.change(self.weight), self.bias)


def on_the_way(change):
    def method(model, spec, calibration):
        make_explicit(model, spec.towers)
        for parent in list(model.modules()):
            for attribute, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and attribute in ("c_fc", "c_proj"):
                    setattr(parent, attribute, RoundsOnTheWay(child, change))
        return in_place(change)(model, spec, calibration)

    return method


@pytest.fixture
def made():
    """Applies a method, registered as `mine`, to a small ViT."""

    def make(method, text="mine", model=None):
        quantizers.add("mine", method)
        model = model or small_clip()
        return model, apply_method(model, text, INPUTS.calibration, compare=False)

    yield make
    quantizers.remove("mine")


def rounding(text):
    return lambda weight: quantize_weight(weight, Format.parse(text).weight, name="it")


def layers(model, towers="both"):
    twin = small_clip()
    make_explicit(twin, towers)
    return [
        layer.weight
        for name, layer in twin.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and in_towers(name, towers)
    ]


@pytest.mark.parametrize("how", [in_place, on_the_way])
@pytest.mark.parametrize("text", ["w8", "w4", "w3g16", "wnf4", "we4m3", "wmxfp4"])
def test_bytes_are_those_of_the_format_that_the_weights_are_in(made, how, text):
    model, found = made(how(rounding(text)))
    weights = layers(model)
    codes = sum(stored_bits(x.shape, Format.parse(text).weight) for x in weights)
    numbers = sum(x.numel() for x in weights)
    rest = state_bytes(model) - 4 * numbers
    assert found.coverage.share == 1.0
    assert found.coverage.uncovered == ()
    assert found.storage.weight_bits == pytest.approx(codes / numbers, rel=0.02)
    assert found.storage.bytes == pytest.approx(rest + codes / 8, rel=0.02)
    assert found.storage.float_bytes == state_bytes(model)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_takes_two_bytes(made, half):
    model, found = made(in_place(lambda weight: weight.to(half)))
    numbers = sum(x.numel() for x in layers(model))
    assert found.storage.weight_bits == 16
    assert found.storage.bytes == state_bytes(model) - 2 * numbers
    assert found.coverage.share == 1.0


def test_a_claimed_format_is_what_is_counted(made):
    model, found = made(in_place(rounding("w4")), "mine:w8")
    codes = sum(stored_bits(x.shape, Format.parse("w8").weight) for x in layers(model))
    assert found.storage.weight_bits == pytest.approx(codes / sum(x.numel() for x in layers(model)))


def test_what_is_left_in_float_is_named_and_counts_in_full(made):
    model, found = made(in_place(rounding("w8"), chosen="mlp"))
    assert 0.3 < found.coverage.share < 0.9
    assert "visual.conv1.weight" in found.coverage.uncovered
    assert not any("mlp" in name for name in found.coverage.uncovered)
    assert 0.4 < found.storage.bytes / state_bytes(model) < 0.9


def test_fused_attention_that_is_left_alone_is_float(made):
    _, found = made(in_place(rounding("w8"), explicit=False))
    assert any("in_proj_weight" in name for name in found.coverage.uncovered)
    assert found.coverage.share < 0.9


def test_the_other_tower_stays_as_it_lies(made):
    model, found = made(in_place(rounding("w8")), "mine@text")
    numbers = sum(x.numel() for x in layers(model, "text"))
    assert found.coverage.share == 1.0
    assert found.storage.bytes > state_bytes(model) - 3 * numbers


@pytest.mark.parametrize(
    "change", [lambda weight: 0.99 * weight, lambda weight: weight * (weight.abs() > 0.02)]
)
def test_a_change_to_something_unknown_gives_no_number(made, change):
    _, found = made(in_place(change))
    assert found.coverage.share is None
    assert found.storage is None


def test_a_float_model_of_half_precision_is_not_quantized_by_being_so(made):
    model = small_clip().bfloat16().float()
    _, found = made(in_place(rounding("w8"), chosen="mlp"), model=model)
    assert 0.3 < found.coverage.share < 0.9
