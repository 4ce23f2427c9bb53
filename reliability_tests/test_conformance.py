"""clipq's own quantizers and transforms pass the suites that it offers to others."""

from __future__ import annotations

import pytest
import torch

from clipq.quant.explicit import make_explicit
from clipq.quant.transforms.rotation import rotate
from clipq.quant.transforms.smoothing import scale_group
from clipq.quant.transforms.structure import execution_order, norm_groups
from clipq.testing import SMALL_CLIPS, check_identity, check_quantizer

TRANSFORMERS = ("vit", "siglip")
CHECKS = [
    *check_quantizer("rtn:w8a8", families=("vit", "modified-resnet", "convnext"), nearest=True),
    *check_quantizer("rtn:w4g16za8d", families=("vit", "coca"), nearest=True),
    *check_quantizer("rtn:wmxfp4amxfp8", nearest=True),
    *check_quantizer("rtn:w8a8,compute=integer"),
    *check_quantizer("rtn:w8a8k8s8"),
    *check_quantizer("rtn:w3a8,bias=correct,range=mse", beats="rtn:w3a8"),
    *check_quantizer("smoothquant:w8a8", families=TRANSFORMERS),
    *check_quantizer("quarot:w4a8", families=TRANSFORMERS),
    *check_quantizer("gptq:w4", families=TRANSFORMERS, beats="rtn:w4"),
    *check_quantizer("gptq:w3g16,order=activation,rotation=hadamard", beats="rtn:w3g16"),
    *check_quantizer("awq:w3", families=TRANSFORMERS, beats="rtn:w3"),
    *check_quantizer("lsq:w4a8,steps=0", families=("vit", "modified-resnet")),
    *check_quantizer("rot+lsq:w4a8,steps=0", families=("siglip",)),
    *check_quantizer("pact:w4a8,steps=0", families=("vit",)),
    *check_quantizer("raana,bits=3.3", families=("vit", "convnext"), beats="rtn:w3"),
]


def explicit(model, inputs):
    make_explicit(model, "both")
    return model, execution_order(model, "both", inputs.calibration)


def rewriting(model, inputs):
    explicit(model, inputs)


def smoothing(model, inputs):
    model, order = explicit(model, inputs)
    generator = torch.Generator().manual_seed(0)
    for group in norm_groups(model, "both", order).values():
        scale_group(group, torch.randn(group.width, generator=generator).exp())


def rotating(model, inputs):
    model, order = explicit(model, inputs)
    rotate(model, "both", order, seed=0)


HIERARCHICAL = {"modified-resnet", "swin-v2", "convnext", "fastvit"}  # no one residual stream
IDENTITIES = [
    *check_identity(rewriting),
    *check_identity(smoothing),
    *check_identity(rotating, families=[x for x in SMALL_CLIPS if x not in HIERARCHICAL]),
]


@pytest.mark.parametrize("check", IDENTITIES, ids=str)
def test_identity(check):
    check()


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_quantizer(check):
    check()
