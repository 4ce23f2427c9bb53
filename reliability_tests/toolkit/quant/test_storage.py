"""What a quantized model's codes would take, counted by hand and against packed bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clipq.quant import QuantizerSpec, quantize
from clipq.quant.formats import Format
from clipq.quant.modules import QuantizedLinear
from clipq.quant.storage import measure_storage, state_bytes, stored_bits


@pytest.mark.parametrize(
    ("text", "shape", "bits"),
    [
        ("w8", (8, 64), 8 * 64 * 8 + 8 * 32),  # a float scale per channel
        ("w8t", (8, 64), 8 * 64 * 8 + 32),
        ("w4g32", (8, 64), 8 * 64 * 4 + 8 * 2 * 32),
        ("w4g32z", (8, 64), 8 * 64 * 4 + 8 * 2 * (32 + 4)),
        ("w4g32", (8, 70), 8 * 70 * 4 + 8 * 3 * 32),  # a last group that is shorter
        ("w4g64", (8, 16), 8 * 16 * 4 + 8 * 32),  # a row shorter than the group
        ("w8p", (8, 64), 8 * 64 * 8 + 8 * 8),
        ("wmxfp4", (8, 64), 8 * 64 * 4 + 8 * 2 * 8),
        ("wnf4g64", (8, 64), 8 * 64 * 4 + 8 * 32),
        ("w8", (8, 3, 4, 4), 8 * 48 * 8 + 8 * 32),
    ],
)
def test_codes_scales_and_zero_points_are_counted(text, shape, bits):
    assert stored_bits(shape, Format.parse(text).weight) == bits


def test_four_bit_codes_take_what_packing_them_takes():
    codes = np.random.default_rng(0).integers(0, 16, (24, 64), dtype=np.uint8)
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).nbytes
    scales = np.zeros((24, 2), np.float32).nbytes
    assert stored_bits(codes.shape, Format.parse("w4g32").weight) == 8 * (packed + scales)


def quantized(bits: int | None) -> nn.Module:
    layer = nn.Linear(64, 8)
    twin = QuantizedLinear(layer, layer.weight.detach(), None)
    twin.stored_bits = bits
    return nn.Sequential(twin, nn.Linear(8, 4))


def test_a_model_is_its_codes_and_what_stays_in_float():
    found = measure_storage(quantized(8 * 64 * 4 + 8 * 32), float_bytes=2260)
    assert found.bytes == (8 * 64 * 4 + 8 * 32) // 8 + 4 * (8 + 8 * 4 + 4)
    assert found.weight_bits == pytest.approx(4 + 32 / 64)
    assert found.float_bytes == 2260


def test_an_unknown_layer_makes_no_number():
    assert measure_storage(quantized(None), float_bytes=1) is None
    assert measure_storage(nn.Linear(4, 4), float_bytes=1) is None


def test_shared_weights_are_stored_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert state_bytes(model) == 64
    model.register_buffer("extra", torch.zeros(4, dtype=torch.float16))
    assert state_bytes(model) == 72


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("rtn:w8", 8.0, 9.0),
        ("rtn:w4g32", 5.0, 5.0),
        ("rtn:w8a8,compute=integer", 8.0, 9.0),
        ("gptq:w4", 4.0, 5.0),
        ("raana,bits=5.3", 5.3, 7.0),
    ],
)
def test_methods_say_what_their_weights_take(vit, sample, text, least, most):
    storage = quantize(vit, QuantizerSpec.parse(text), sample.calibration).storage
    assert least <= storage.weight_bits <= most
    assert storage.bytes < storage.float_bytes == state_bytes(vit)
