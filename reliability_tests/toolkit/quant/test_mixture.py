"""Layers put back to float, one by one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from clipq.errors import QuantizerError
from clipq.quant import QuantizerSpec, quantize, quantizers
from clipq.quant.explicit import make_explicit
from clipq.quant.mixture import Mixture
from clipq.quant.towers import in_towers
from clipq.testing import small_clip

METHODS = [
    "rtn:w4a8",
    "rtn:w8a8,compute=integer",
    "rtn:w3,bias=correct",
    "smoothquant:w8a8",
    "quarot:w4a4",
    "gptq:w4,rotation=hadamard",
    "awq:w3",
    "raana,bits=3.3",
    "rot+lsq:w4a8,steps=0",
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


def rounded(weight):
    return weight.to(torch.bfloat16).to(weight.dtype)


def tutorial():
    """Return the quantizer that the tutorial writes, from its page."""
    page = Path(__file__).parents[3] / "docs" / "tutorial" / "quantizer.md"
    code = page.read_text(encoding="utf-8").split("```python", 1)[1].split("\n", 1)[1]
    space: dict = {}
    unregistered = code.split("```", 1)[0].replace('@clipq.quantizers.register("bf16", ', "# (")
    exec(compile(unregistered, str(page), "exec"), space)
    return space["bf16"]


TUTORIAL = tutorial()


def in_place(model, spec, calibration):
    return TUTORIAL(model, spec, calibration)


def as_it_was_written(model, spec, calibration):
    """Rounds every matrix where it lies, fused ones and bare ones too."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and in_towers(name, spec.towers):
            parameter.data.copy_(rounded(parameter.data))
    return model


class FakeQuantized(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, values):
        return nn.functional.linear(rounded(values), rounded(self.weight), self.bias)


def modules_of_its_own(model, spec, calibration):
    make_explicit(model, spec.towers)
    for parent in list(model.modules()):
        for attribute, child in list(parent.named_children()):
            if attribute in ("c_fc", "c_proj"):
                setattr(parent, attribute, FakeQuantized(child))
    return model


def hooks(model, spec, calibration):
    make_explicit(model, spec.towers)
    for module in model.modules():
        if type(module) is nn.Linear:
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return model


@pytest.fixture
def foreign():
    yield lambda function: quantizers.add("foreign", function)
    quantizers.remove("foreign")


@pytest.mark.parametrize("family", ["vit", "convnext"])
@pytest.mark.parametrize("method", [in_place, as_it_was_written, modules_of_its_own, hooks])
def test_what_any_method_changed_can_be_put_back(foreign, sample, method, family):
    foreign(method)
    model = small_clip(family)
    before = sample.encode(model)
    mixed = mixture(model, sample, "foreign")
    whole = quantize(model, "foreign", sample.calibration).model
    for floats, exact, tolerance in ((mixed.layers, before, 1e-5), ((), sample.encode(whole), 0.0)):
        mixed.keep_float(floats)
        for mine, theirs in zip(sample.encode(mixed.model), exact, strict=True):
            assert (mine - theirs).abs().max() <= tolerance * max(1.0, float(theirs.abs().max()))
    changed = "mlp.c_fc"
    assert any(changed in name for name in mixed.layers)
    found = mixed.distortions()
    assert all(found[name].total > 20 for name in mixed.layers if changed in name)
    assert all(macs > 0 for name, macs in mixed.macs().items() if changed in name)
    assert sorted(x for block in mixed.blocks().values() for x in block) == sorted(mixed.layers)


def test_the_tutorials_quantizer_changes_every_layer_that_is_multiplied(foreign, vit, sample):
    foreign(in_place)
    mixed = mixture(vit, sample, "foreign@vision")
    assert mixed.layers == mixture(vit, sample, "rtn:w8@vision").layers
    assert mixed.macs() == mixture(vit, sample, "rtn:w8@vision").macs()


def test_a_change_that_lies_in_no_layer_is_refused(foreign, vit, sample):
    def between(model, spec, calibration):
        encode = model.encode_image
        model.encode_image = lambda images, **options: 1.1 * encode(images, **options)
        return in_place(model, spec, calibration)

    foreign(between)
    with pytest.raises(QuantizerError, match=r"features lie 0\.1 of their length from FP32's"):
        mixture(vit, sample, "foreign")


def test_a_method_that_changes_nothing_has_nothing_to_blame(foreign, vit, sample):
    foreign(lambda model, spec, calibration: model)
    with pytest.raises(QuantizerError, match="all 0 layers"):
        mixture(vit, sample, "foreign")
