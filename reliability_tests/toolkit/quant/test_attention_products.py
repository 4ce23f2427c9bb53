"""Rounded attention probabilities and operands."""

from __future__ import annotations

import papers
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from clipq.errors import QuantizerError
from clipq.quant import QuantizerSpec, quantize
from clipq.quant.attention import AttentionProducts
from clipq.quant.formats import AttentionFormat


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, 3, length, 8, generator=generator) for length in (5, 7, 7))


@pytest.mark.parametrize(("operands", "probabilities"), [(8, None), (None, 8), (4, 6), (2, 2)])
def test_is_the_definition(operands, probabilities):
    q, k, v = tensors()
    mask = torch.zeros(5, 7)
    mask[1, 3:] = -torch.inf
    found = AttentionProducts(AttentionFormat(operands, probabilities))(
        q, k, v, mask=mask, dropout=0.0
    )
    expected = papers.attention(q, k, v, mask, operands, probabilities)
    assert (found - expected).abs().max() < 2e-6


def test_eight_bits_are_near_the_float_attention():
    q, k, v = tensors()
    found = AttentionProducts(AttentionFormat(8, 8))(q, k, v, mask=None, dropout=0.0)
    expected = scaled_dot_product_attention(q, k, v)
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_gradients_flow():
    q, k, v = (x.requires_grad_() for x in tensors())
    AttentionProducts(AttentionFormat(8, 8))(q, k, v, mask=None, dropout=0.0).sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in (q, k, v))


@pytest.mark.parametrize("name", ["vit", "vit-attention-variants", "modified-resnet", "coca"])
def test_every_attention_of_open_clip_is_reached(fresh, sample, name):
    model = fresh(name)
    plain = quantize(model, QuantizerSpec.parse("rtn:w8"), sample.calibration)
    found = quantize(model, QuantizerSpec.parse("rtn:w8k3s3"), sample.calibration)
    originals = sample.encode(plain.model)
    for mine, theirs in zip(sample.encode(found.model), originals, strict=True):
        assert mine.isfinite().all()
        assert 1e-3 * theirs.norm() < (mine - theirs).norm() < theirs.norm()


@pytest.mark.parametrize("name", ["siglip", "eva", "swin"])
def test_timm_s_attention_is_refused_by_name(fresh, sample, name):
    model = fresh(name)
    with pytest.raises(QuantizerError, match=r"visual\..* computes its attention products itself"):
        quantize(model, QuantizerSpec.parse("rtn:w8s8"), sample.calibration)
    quantize(model, QuantizerSpec.parse("rtn:w8s8@text"), sample.calibration)


def test_a_tower_without_attention_is_refused(fresh, sample):
    with pytest.raises(QuantizerError, match="have no attention for s8 to round"):
        quantize(fresh("convnext"), QuantizerSpec.parse("rtn:w8s8@vision"), sample.calibration)
