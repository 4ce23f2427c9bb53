"""Layers put back to float, one by one."""

from __future__ import annotations

import math

import pytest
import torch

from clipq.errors import QuantizerError
from clipq.quant import QuantizerSpec, quantize, quantizers
from clipq.quant.mixture import Mixture

METHODS = [
    "rtn:w4a8",
    "rtn:w8a8,compute=integer",
    "rtn:w3,bias=correct",
    "smoothquant:w8a8",
    "quarot:w4a4",
    "gptq:w4,rotation=hadamard",
    "awq:w3",
    "raana,bits=3.3",
]


def mixture(model, sample, text):
    return Mixture(model, QuantizerSpec.parse(text), sample.calibration)


@pytest.mark.parametrize("method", METHODS)
def test_all_layers_in_float_are_fp32_and_none_is_the_quantized_model(vit, sample, method):
    mixed = mixture(vit, sample, method)
    whole = quantize(vit, QuantizerSpec.parse(method), sample.calibration).model
    for floats, other, tolerance in ((mixed.layers, vit, 1e-5), ((), whole, 0.0)):
        mixed.keep_float(floats)
        for mine, theirs in zip(sample.encode(mixed.model), sample.encode(other), strict=True):
            assert (mine - theirs).abs().max() <= tolerance


def test_one_layer_in_float_is_that_layer_excluded(vit, sample):
    name = "visual.transformer.resblocks.0.mlp.c_fc"
    mixed = mixture(vit, sample, "rtn:w4a8d")
    mixed.keep_float([name])
    spec = QuantizerSpec.parse(f"rtn:w4a8d,exclude={name}")
    excluded = quantize(vit, spec, sample.calibration).model
    for mine, theirs in zip(sample.encode(mixed.model), sample.encode(excluded), strict=True):
        assert torch.equal(mine, theirs)


def test_every_architecture_can_be_mixed(any_model, sample):
    mixed = mixture(any_model, sample, "rtn:w4a8d")
    mixed.keep_float(mixed.layers)
    for mine, theirs in zip(sample.encode(mixed.model), sample.encode(any_model), strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))
    assert sorted(x for block in mixed.blocks().values() for x in block) == sorted(mixed.layers)


def test_blocks_are_named_after_what_their_layers_share(vit, sample):
    blocks = mixture(vit, sample, "rtn:w8").blocks()
    assert list(blocks)[:3] == [
        "visual.conv1",
        "visual.transformer.resblocks.0",
        "visual.transformer.resblocks.1",
    ]
    assert len(blocks["transformer.resblocks.1"]) == 6


def test_multiply_accumulates_are_those_of_the_coverage(vit, sample):
    mixed = mixture(vit, sample, "rtn:w8")
    found = quantize(vit, QuantizerSpec.parse("rtn:w8"), sample.calibration)
    assert sum(mixed.macs().values()) == found.coverage.macs_quantized
    assert mixed.macs()["visual.conv1"] == 3 * 8 * 8 * 64 * 16


def test_distortions_by_hand(vit, sample):
    mixed = mixture(vit, sample, "rtn:w4a4")
    found = mixed.distortions()["visual.transformer.resblocks.1.mlp.c_fc"]
    outputs = []
    for floats in (mixed.layers, (), mixed.layers):
        mixed.keep_float(floats)
        layer = mixed.model.get_submodule("visual.transformer.resblocks.1.mlp.c_fc")
        hook = layer.register_forward_hook(lambda _, x, y: outputs.append((x[0], y)))
        sample.encode(mixed.model)
        hook.remove()
    (inputs, exact), (_, whole), _ = outputs
    mixed.keep_float(())
    with torch.no_grad():
        alone = mixed.model.get_submodule("visual.transformer.resblocks.1.mlp.c_fc")(inputs)

    def decibel(found):
        return 10 * math.log10(float(exact.square().sum() / (found - exact).square().sum()))

    assert found.own == pytest.approx(decibel(alone), rel=1e-4)
    assert found.total == pytest.approx(decibel(whole), rel=1e-4)
    cosine = float((exact * whole).sum() / exact.norm() / whole.norm())
    assert found.cosine == pytest.approx(cosine, rel=1e-4)
    assert found.total < found.own


def test_one_tower_needs_no_data_of_the_other(vit, sample):
    mixed = mixture(vit, sample, "rtn:w4@text")
    assert not any(name.startswith("visual") for name in mixed.layers)
    assert all(math.isfinite(x.total) for x in mixed.distortions().values())


def test_an_unknown_layer_is_refused(vit, sample):
    with pytest.raises(QuantizerError, match=r"no quantized layer is called 'visual\.conv2'"):
        mixture(vit, sample, "rtn:w8").keep_float(["visual.conv2"])


def test_a_method_with_modules_of_its_own_is_refused(vit, sample):
    def foreign(model, spec, calibration):
        model.visual.conv1.weight.data.mul_(0.99)
        return model

    quantizers.add("foreign", foreign)
    try:
        with pytest.raises(QuantizerError, match="brings modules of its own"):
            mixture(vit, sample, "foreign")
    finally:
        quantizers.remove("foreign")
