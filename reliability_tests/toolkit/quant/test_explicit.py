"""Explicit models: same features, every product with a weight a module that really runs."""

from __future__ import annotations

import copy

import pytest
import torch
from open_clip.transformer import Attention
from timm.layers import Conv2dSame, StdConv2d
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.attention import ExplicitAttention
from clipq.quant.coverage import count_operations
from clipq.quant.explicit import make_explicit
from clipq.quant.modules import quantized_twin
from clipq.quant.surgery import plain_layers
from clipq.quant.towers import named_sites


def identity_quantized(model: nn.Module) -> nn.Module:
    """Return a copy with every layer replaced by a twin that rounds nothing."""
    model = copy.deepcopy(model)
    make_explicit(model, "both")
    twins = {
        x: quantized_twin(x, x.weight.detach(), None) for x in plain_layers(model, "both").values()
    }
    for _, parent, attribute, child in named_sites(model, "both"):
        if child in twins:
            setattr(parent, attribute, twins[child])
    return model


def explicit(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    make_explicit(model, "both")
    return model


def assert_same_features(ours: nn.Module, original: nn.Module, sample) -> None:
    for mine, theirs in zip(sample.encode(ours), sample.encode(original), strict=True):
        assert theirs.abs().max() > 0.01, "features too small to tell anything"
        assert (mine - theirs).abs().max() <= 1e-5


def test_explicit_features_are_the_original_ones(any_model: nn.Module, sample) -> None:
    assert_same_features(explicit(any_model), any_model, sample)


def test_replacing_every_layer_by_an_identity_changes_nothing(any_model, sample) -> None:
    assert_same_features(identity_quantized(any_model), any_model, sample)


def test_every_listed_layer_matters(any_model: nn.Module, sample) -> None:
    model = explicit(any_model)
    before = torch.cat(sample.encode(model), dim=-1)
    for name, layer in plain_layers(model, "both").items():
        weight = layer.weight.data
        layer.weight.data = 1.5 * weight
        after = torch.cat(sample.encode(model), dim=-1)
        layer.weight.data = weight
        assert not torch.equal(before, after), f"{name} has no effect"


def test_every_product_with_a_weight_is_a_layer(any_model: nn.Module, sample) -> None:
    model = identity_quantized(any_model)
    operations = count_operations(model, lambda: sample.encode(model))
    assert not operations.weights
    assert set(operations.quantized) == {
        name for name, _, _, child in named_sites(model, "both") if hasattr(child, "inputs")
    }


def test_the_fast_path_of_torch_is_taken_before_and_never_after(
    vit: nn.Module, sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trap(*_: object) -> Tensor:
        raise AssertionError("fast path")

    model = explicit(vit)
    monkeypatch.setattr(torch, "_native_multi_head_attention", trap)
    with pytest.raises(AssertionError, match="fast path"):
        sample.encode(vit)
    sample.encode(model)


def test_one_tower_is_left_exactly_alone(vit: nn.Module, sample) -> None:
    for towers, kept in (("vision", 1), ("text", 0)):
        model = copy.deepcopy(vit)
        make_explicit(model, towers)
        assert torch.equal(sample.encode(model)[kept], sample.encode(vit)[kept])
        assert all(
            name.startswith("visual.") == (towers == "vision")
            for name in plain_layers(model, towers)
        )


def test_making_explicit_twice_is_making_it_once(vit: nn.Module, sample) -> None:
    once = explicit(vit)
    assert torch.equal(sample.encode(explicit(once))[0], sample.encode(once)[0])


def test_the_captioning_decoder_of_coca_is_no_tower(fresh) -> None:
    model = explicit(fresh("coca"))
    assert not any("text_decoder" in name for name in plain_layers(model, "both"))


def test_a_layer_used_twice_is_replaced_twice(fresh, sample) -> None:
    model = fresh("vit")
    first, second = model.transformer.resblocks
    second.mlp.c_fc = first.mlp.c_fc
    assert_same_features(identity_quantized(model), model, sample)
    swapped = identity_quantized(model).transformer.resblocks
    assert swapped[0].mlp.c_fc is swapped[1].mlp.c_fc


MASKS = {
    "none": {},
    "causal": {"attn_mask": torch.full((5, 5), -torch.inf).triu(1)},
    "boolean": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    "per head": {"attn_mask": torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(0))},
    "padding": {"key_padding_mask": torch.arange(5).expand(3, 5) > 3},
    "both": {
        "attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1),
        "key_padding_mask": torch.arange(5).expand(3, 5) > 3,
    },
}


@pytest.mark.parametrize("mask", sorted(MASKS))
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 10}])
def test_explicit_attention_is_torch_attention(mask, batch_first, bias, sizes) -> None:
    torch.manual_seed(0)
    original = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=bias, **sizes).eval()
    for parameter in original.parameters():
        nn.init.normal_(parameter)
    widths = (8, sizes.get("kdim", 8), sizes.get("vdim", 8))
    inputs = [torch.randn(*((3, 5) if batch_first else (5, 3)), width) for width in widths]
    theirs, _ = original(*inputs, need_weights=False, **MASKS[mask])
    ours, weights = ExplicitAttention(original)(*inputs, need_weights=False, **MASKS[mask])
    assert weights is None
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_explicit_attention_refuses_what_it_does_not_compute() -> None:
    attention = ExplicitAttention(nn.MultiheadAttention(8, 2, batch_first=True))
    x = torch.zeros(1, 5, 8)
    with pytest.raises(QuantizerError, match="need_weights=True"):
        attention(x, x, x)
    with pytest.raises(QuantizerError, match=r"shape \(5, 8\)"):
        attention(x[0], x[0], x[0], need_weights=False)
    with pytest.raises(QuantizerError, match="is_causal=True"):
        attention(x, x, x, need_weights=False, is_causal=True)


UNSUPPORTED = {
    "weight standardisation": lambda: StdConv2d(4, 4, 1),
    "padding of its own": lambda: Conv2dSame(4, 4, 3, stride=2),
    "fused encoder layer": lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True),
    "parametrization": lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "TorchScript": lambda: torch.jit.script(nn.Linear(4, 4)),
    "scaled cosine": lambda: Attention(8, 2, scaled_cosine=True),
    "key bias": lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True),
    "zero key": lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True),
    "quantized already": lambda: quantized_twin(nn.Linear(4, 4), torch.zeros(4, 4), None),
}


@pytest.mark.parametrize("what", sorted(UNSUPPORTED))
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_what_cannot_be_rewritten_faithfully_is_refused(what: str, fresh) -> None:
    model = fresh("vit")
    model.visual.strange = UNSUPPORTED[what]()
    with pytest.raises(
        QuantizerError, match=r"^visual\.strange .* cannot be quantized: "
    ) as caught:
        make_explicit(model, "both")
    assert caught.value.hint
    make_explicit(model, "text")  # the other tower is not concerned
