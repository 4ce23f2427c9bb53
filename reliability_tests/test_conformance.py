"""clipq's own quantizers pass the suite that it offers to others."""

from __future__ import annotations

import pytest

from clipq.testing import check_quantizer

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
    *check_quantizer("raana,bits=3.3", families=("vit", "convnext"), beats="rtn:w3"),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_quantizer(check):
    check()
