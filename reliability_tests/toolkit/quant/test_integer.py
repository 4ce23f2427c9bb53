"""Integer matrix products equal the simulation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipq.errors import QuantizerError
from clipq.quant import QuantizerSpec, quantize
from clipq.quant.integer import IntegerLinear

FORMATS = ["w8a8", "w8a8z", "w4a8", "w8ta8z", "w8a4", "w2a8", "w8pa8p", "w3a5z"]


def both(model, sample, text):
    return (
        quantize(model, QuantizerSpec.parse(f"{text}{extra}"), sample.calibration)
        for extra in ("", ",compute=integer")
    )


@pytest.mark.parametrize("text", [f"rtn:{f}" for f in FORMATS] + ["smoothquant:w8a8", "gptq:w4a8"])
def test_is_the_simulation_to_float_rounding(vit, sample, text):
    simulated, integer = both(vit, sample, text)
    layers = [m for m in integer.model.modules() if isinstance(m, IntegerLinear)]
    assert len(layers) == simulated.coverage.layers - 1  # the patch embedding is a convolution
    assert integer.coverage == simulated.coverage
    for mine, theirs in zip(
        sample.encode(integer.model), sample.encode(simulated.model), strict=True
    ):
        # A value at the edge of two codes may fall either way after a layer's float rounding.
        assert (mine - theirs).norm() < 2e-2 * theirs.norm()


@pytest.mark.parametrize("text", FORMATS)
def test_each_layer_is_exact_but_for_the_sum_s_rounding(vit, sample, text):
    _, integer = both(vit, sample, f"rtn:{text}")
    name = "visual.transformer.resblocks.0.mlp.c_fc"
    layer = integer.model.get_submodule(name)
    values = torch.randn(3, 17, layer.in_features, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        found = layer(values)
        rounded = layer.inputs(values).double()
        expected = rounded @ layer.weight.double().T + layer.bias.double()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_every_architecture_computes_alike(any_model, sample):
    simulated, integer = both(any_model, sample, "rtn:w8a8")
    for mine, theirs in zip(
        sample.encode(integer.model), sample.encode(simulated.model), strict=True
    ):
        assert (mine - theirs).norm() < 5e-2 * theirs.norm()


def test_gradients_take_the_simulated_path(vit, sample):
    _, integer = both(vit, sample, "rtn:w8a8")
    images = sample.images.clone().requires_grad_()
    integer.model.encode_image(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_empty_input_and_copies(vit, sample):
    _, integer = both(vit, sample, "rtn:w8a8")
    layer = integer.model.get_submodule("visual.transformer.resblocks.0.mlp.c_fc")
    assert layer(torch.zeros(0, layer.in_features)).shape == (0, layer.out_features)
    twin = quantize(vit, QuantizerSpec.parse("rtn:w8a8,compute=integer"), sample.calibration).model
    for parameter in (*twin.parameters(), *twin.buffers()):
        parameter.data = torch.zeros_like(parameter)
    twin.load_state_dict(integer.model.state_dict(), strict=True)
    names = dict(integer.model.named_buffers())
    for name, buffer in twin.named_buffers():  # masks and indices are not part of a state
        buffer.data = names[name].data
    for mine, theirs in zip(sample.encode(twin), sample.encode(integer.model), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "text", ["w8", "w8a8d", "w8za8", "w4g16a8", "we4m3a8", "w8ae4m3", "wnf4a8"]
)
def test_formats_without_integer_products_are_refused(vit, sample, text):
    with pytest.raises(QuantizerError, match=r"compute=integer cannot run .*\n.*such as w8a8"):
        quantize(vit, QuantizerSpec.parse(f"rtn:{text},compute=integer"), sample.calibration)


def test_layers_that_multiply_integers_are_linear_layers(vit, sample):
    _, integer = both(vit, sample, "rtn:w8a8")
    assert all(isinstance(m, nn.Linear) for m in integer.model.modules() if hasattr(m, "codes"))
