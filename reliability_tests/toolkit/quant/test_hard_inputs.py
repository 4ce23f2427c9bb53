"""Every method on data and models that are legal and unkind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipq.errors import QuantizerError
from clipq.quant import Calibration, QuantizerSpec, quantize

METHODS = [
    "rtn:w8a8",
    "rtn:w4g16za8dg16",
    "smoothquant:w8a8",
    "quarot:w8a8",
    "gptq:w4g16,order=activation",
    "awq:w4",
    "raana,bits=4.5",
    "lsq:w8a8z,steps=0",
    "dorefa:w8a8,steps=0",
]


def found(model: nn.Module, text: str, calibration: Calibration) -> nn.Module:
    return quantize(model, QuantizerSpec.parse(text), calibration).model


def distance(mine, theirs) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_one_image_and_one_text_are_enough(self, vit, sample, method):
        one = Calibration(lambda: iter([sample.images[:1]]), lambda: iter([sample.texts[:1]]))
        assert distance(sample.encode(found(vit, method, one)), sample.encode(vit)) < 0.5

    def test_no_data_are_refused(self, vit, method):
        nothing = Calibration(lambda: iter([]), lambda: iter([]))
        with pytest.raises(QuantizerError, match="hold no images"):
            found(vit, method, nothing)

    def test_constant_and_dead_channels(self, fresh, sample, method):
        model = fresh("vit")
        with torch.no_grad():
            for block in [*model.visual.transformer.resblocks, *model.transformer.resblocks]:
                block.ln_1.weight[:4] = 0  # constant inputs
                block.ln_2.weight[:4] = 0  # dead ones
                block.ln_2.bias[:4] = 0
                block.mlp.c_fc.weight[:4] = 0  # a dead output
                block.mlp.c_proj.weight[:, 4:8] = 0  # a dead column
                block.attn.in_proj_weight[:, 0] = 1  # constant weights
        assert (
            distance(sample.encode(found(model, method, sample.calibration)), sample.encode(model))
            < 0.5
        )

    def test_an_extreme_outlier_among_the_weights(self, fresh, sample, method):
        model = fresh("vit")
        with torch.no_grad():
            model.visual.transformer.resblocks[0].mlp.c_fc.weight[0, 0] = 1e15
            model.visual.proj[0, 0] = 1e30
        assert sample.encode(model)[0].isfinite().all()
        for features in sample.encode(found(model, method, sample.calibration)):
            assert features.isfinite().all()

    def test_half_precision_weights(self, fresh, sample, method):
        model = fresh("vit").bfloat16()
        result = found(model, method, sample.calibration)
        assert {p.dtype for p in result.parameters()} == {torch.bfloat16}
        images = sample.images.bfloat16()
        with torch.no_grad():
            mine, theirs = result.encode_image(images), model.encode_image(images)
        assert mine.dtype == torch.bfloat16
        assert (mine - theirs).norm() < 0.5 * theirs.norm()

    def test_tied_weights_and_shared_modules(self, fresh, sample, method):
        model = fresh("vit")
        first, second = model.visual.transformer.resblocks
        second.mlp.c_fc = first.mlp.c_fc  # one module in two places
        if method.startswith("quarot"):
            with pytest.raises(QuantizerError, match="share no layers"):
                found(model, method, sample.calibration)
            return
        first, second = model.transformer.resblocks
        second.mlp.c_proj.weight = first.mlp.c_proj.weight  # one tensor in two modules
        result = found(model, method, sample.calibration)
        blocks = result.visual.transformer.resblocks
        assert blocks[0].mlp.c_fc is blocks[1].mlp.c_fc
        assert distance(sample.encode(result), sample.encode(model)) < 0.6

    def test_a_quantized_model_is_refused(self, vit, sample, method):
        once = found(vit, "rtn:w8", sample.calibration)
        with pytest.raises(QuantizerError, match="quantized already"):
            found(once, method, sample.calibration)

    def test_is_deterministic(self, vit, sample, method):
        first, second = (sample.encode(found(vit, method, sample.calibration)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
