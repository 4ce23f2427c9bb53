"""Step one of every method: write the model so that each product with a weight is a module.

Afterwards every such product in the chosen towers is the call of an `nn.Linear` or `nn.Conv2d`,
and the features are those of the original to float32 rounding. Smoothing, rotation and
second-order methods start from here as well.

| found | becomes |
|---|---|
| `nn.MultiheadAttention` (also inside `AttentionalPooler`) | `ExplicitAttention` |
| open_clip `Attention` | `ExplicitSelfAttention` |
| open_clip `AttentionPool2d` | `ExplicitAttentionPool2d` |
| bare matrices `visual.proj`, `text_projection` | `Projection` |
| timm `qkv` with its bias kept aside (EVA, BEiT, Swin v2) | the same with the bias in `qkv` |

Embedding tables are looked up, not multiplied, and stay as they are. What cannot be rewritten
faithfully is refused by name.
"""

from __future__ import annotations

import torch
from open_clip.modified_resnet import AttentionPool2d  # type: ignore[import-untyped, unused-ignore]
from open_clip.transformer import Attention  # type: ignore[import-untyped, unused-ignore]
from timm.layers.linear import Linear as TimmLinear
from torch import nn
from torch.nn.utils import parametrize

from clipq.errors import QuantizerError
from clipq.quant.attention import (
    ExplicitAttention,
    ExplicitAttentionPool2d,
    ExplicitSelfAttention,
    linear_of,
)
from clipq.quant.modules import Projection, QuantizedConv2d, QuantizedLinear
from clipq.quant.spec import Towers
from clipq.quant.towers import in_towers, named_sites

__all__ = ["make_explicit"]

_PROJECTIONS = ("proj", "text_projection")
# timm's Linear only adds casts under TorchScript.
_KNOWN_FORWARDS = (nn.Linear.forward, nn.Conv2d.forward, TimmLinear.forward)


def make_explicit(model: nn.Module, towers: Towers) -> None:
    """Rewrite the chosen towers of `model` in place.

    Raises:
        QuantizerError: a module multiplies with its weight in a way that cannot be rewritten.

    >>> from clipq.testing import small_clip
    >>> model = small_clip()
    >>> make_explicit(model, "vision")
    >>> type(model.visual.transformer.resblocks[0].attn).__name__
    'ExplicitAttention'
    """
    rewritten: dict[nn.Module, nn.Module] = {}
    for name, parent, attribute, child in named_sites(model, towers):
        _refuse_unsupported(name, child)
        if child not in rewritten:
            rewritten[child] = _explicit(child).train(child.training)
            _release(child, rewritten[child])
        if rewritten[child] is not child:
            setattr(parent, attribute, rewritten[child])
    for prefix, module in list(model.named_modules()):
        for attribute in _PROJECTIONS:
            matrix = getattr(module, attribute, None)
            name = f"{prefix}.{attribute}" if prefix else attribute
            if not isinstance(matrix, nn.Parameter) or matrix.dim() != 2:
                continue
            if in_towers(name, towers):
                delattr(module, attribute)  # torch refuses a module in a parameter's place
                setattr(module, attribute, _projection(matrix).train(module.training))


def _explicit(module: nn.Module) -> nn.Module:
    match module:
        case nn.MultiheadAttention():
            return ExplicitAttention(module)
        case Attention():
            return ExplicitSelfAttention(module)
        case AttentionPool2d():
            return ExplicitAttentionPool2d(module)
    if getattr(module, "q_bias", None) is not None and isinstance(
        getattr(module, "qkv", None), nn.Linear
    ):
        _move_bias_into_qkv(module)
    return module


def _release(module: nn.Module, twin: nn.Module) -> None:
    """Drop the parameters that a replaced module does not share with its twin."""
    kept = set(twin.modules())
    for part in module.modules():
        if part not in kept:
            part._parameters.update(dict.fromkeys(part._parameters))


def _projection(matrix: nn.Parameter) -> Projection:
    """Return the layer that computes ``x @ matrix``, matrix (in, out)."""
    layer = Projection(matrix.shape[0], matrix.shape[1], bias=False, device="meta")
    layer.weight = nn.Parameter(
        matrix.detach().t().contiguous(), requires_grad=matrix.requires_grad
    )
    return layer


def _move_bias_into_qkv(attention: nn.Module) -> None:
    """Let timm attention call `qkv` as a module: without `q_bias` it does nothing else."""
    parts = (attention.q_bias, attention.k_bias, attention.v_bias)
    bias = torch.cat([part for part in parts if isinstance(part, torch.Tensor)]).detach()
    qkv = attention.qkv
    if not isinstance(qkv, nn.Linear) or len(bias) != qkv.out_features or qkv.bias is not None:
        raise QuantizerError(
            f"{type(attention).__name__} keeps a separate bias in a layout unknown to clipq",
            hint="timm's EVA, BEiT and Swin v2 are supported; report the architecture",
        )
    attention.qkv = linear_of(qkv.weight, bias)
    attention.q_bias = attention.k_bias = attention.v_bias = None


def _refuse_unsupported(name: str, module: nn.Module) -> None:
    reason = _unsupported(module)
    if reason:
        raise QuantizerError(
            f"{name} ({type(module).__name__}) cannot be quantized: {reason}",
            hint="quantize only the other tower (@vision or @text), or write a quantizer method "
            "that knows this module",
        )


def _unsupported(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript cannot be rewritten; load the model without precision='jit'"
    if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        return "it reads its attention's weights in a fused fast path"
    if isinstance(module, nn.MultiheadAttention) and (
        module.bias_k is not None or module.add_zero_attn
    ):
        return (
            "it adds a key of its own (add_bias_kv, add_zero_attn), unknown to open_clip's models"
        )
    if isinstance(module, Attention) and module.scaled_cosine:
        return "open_clip 3.3 itself cannot run scaled cosine (torch.bmm on four dimensions)"
    if parametrize.is_parametrized(module) or hasattr(module, "weight_g"):
        return "its weight is computed on the fly (parametrization, weight norm)"
    if isinstance(module, QuantizedLinear | QuantizedConv2d):
        return "it is quantized already"
    if isinstance(module, nn.Linear | nn.Conv2d) and type(module).forward not in _KNOWN_FORWARDS:
        return "it transforms its weight or input in a forward of its own"
    return ""
