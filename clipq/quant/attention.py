"""Attention written out: every projection a plain `nn.Linear` that is called as a module.

torch's and open_clip's attention hand their weights to fused functions (`in_proj_weight`, the
native fast path, `out_proj.weight` without calling `out_proj`), where a replaced layer would
never run. These twins compute the same function, to float32 rounding, from parts that can be
replaced one by one.
"""

from __future__ import annotations

import torch
from open_clip.modified_resnet import AttentionPool2d  # type: ignore[import-untyped, unused-ignore]
from open_clip.transformer import Attention  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, softmax

from clipq.errors import QuantizerError
from clipq.quant.affine import choose_qparams_asymmetric, choose_qparams_symmetric
from clipq.quant.formats import AttentionFormat
from clipq.quant.grids import fake_quantize
from clipq.quant.spec import Towers
from clipq.quant.towers import named_sites

__all__ = [
    "AttentionProducts",
    "ExplicitAttention",
    "ExplicitAttentionPool2d",
    "ExplicitSelfAttention",
    "linear_of",
    "quantize_attention",
]


class AttentionProducts(nn.Module):
    """Attention with rounded operands, rounded probabilities, or both.

    Queries and keys have one scale per token and head, values one per head and channel: each scale
    is constant along the sum that its product forms, so integer arithmetic could compute it.
    Probabilities are unsigned over [0, 1] in steps of 1 / (2^b - 1).
    """

    def __init__(self, number_format: AttentionFormat) -> None:
        super().__init__()
        self.number_format = number_format

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, dropout: float
    ) -> Tensor:
        """Return attended values of q (N, heads, L, d) and k, v (N, heads, S, d), shaped like q."""
        bits = self.number_format.operands
        if bits is not None:
            q, k, v = (_rounded(x, dim, bits) for x, dim in ((q, -1), (k, -1), (v, -2)))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        probabilities = softmax(scores if mask is None else scores + mask, dim=-1)
        bits = self.number_format.probabilities
        if bits is not None:
            zero = torch.zeros((), device=q.device)
            grid = choose_qparams_asymmetric(zero, zero + 1.0, bits=bits)
            probabilities = fake_quantize(probabilities, grid)
        return torch.dropout(probabilities, dropout, train=dropout > 0.0) @ v

    def extra_repr(self) -> str:
        """Return the format."""
        return str(self.number_format)


def quantize_attention(model: nn.Module, towers: Towers, number_format: AttentionFormat) -> None:
    """Round the attention products of the towers, in place.

    Raises:
        QuantizerError: an attention of timm's, which keeps its products to itself, or none at all.
    """
    attentions = 0
    for name, _, _, child in named_sites(model, towers):
        if isinstance(child, _Attentive):
            child.products = AttentionProducts(number_format)
            attentions += 1
        elif hasattr(child, "num_heads") and any(
            isinstance(x, nn.Linear) for x in child.children()
        ):
            raise QuantizerError(
                f"{name} ({type(child).__name__}) computes its attention products itself: "
                f"{number_format} cannot reach them",
                hint="leave k and s out of the format, or quantize the other tower only",
            )
    if not attentions:
        raise QuantizerError(
            f"the {towers} tower(s) have no attention for {number_format} to round",
            hint="leave k and s out of the format",
        )


def _rounded(values: Tensor, dim: int, bits: int) -> Tensor:
    absmax = values.detach().abs().amax(dim, keepdim=True)
    return fake_quantize(values, choose_qparams_symmetric(absmax, bits=bits))


class _Attentive(nn.Module):
    """Attention whose products can be rounded."""

    products: AttentionProducts | None

    def __init__(self) -> None:
        super().__init__()
        self.products = None


class ExplicitAttention(_Attentive):
    """`nn.MultiheadAttention` with modules `q_proj`, `k_proj`, `v_proj` and `out_proj`."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if attention.in_proj_weight is not None:
            weights = attention.in_proj_weight.chunk(3)
        else:
            weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        has_bias = attention.in_proj_bias is not None
        biases = attention.in_proj_bias.chunk(3) if has_bias else (None, None, None)
        self.q_proj, self.k_proj, self.v_proj = map(linear_of, weights, biases)
        self.out_proj = linear_of(attention.out_proj.weight, attention.out_proj.bias)
        self.num_heads = attention.num_heads
        self.batch_first = attention.batch_first
        self.dropout = attention.dropout

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Return the attended values and None; arguments as in `nn.MultiheadAttention`.

        Args:
            query: (N, L, E), or (L, N, E) where `batch_first` is off.
            key: (N, S, kdim), or (S, N, kdim).
            value: (N, S, vdim), or (S, N, vdim).
            key_padding_mask: (N, S); boolean (True = ignore) or added to the scores.
            need_weights: must be False; attention weights are not computed.
            attn_mask: (L, S) or (N·heads, L, S); boolean (True = ignore) or added to the scores.
            average_attn_weights: without effect, as no weights are returned.
            is_causal: a hint only; `attn_mask` must be given.

        Raises:
            QuantizerError: attention weights are asked for, or the input is not batched.
        """
        if need_weights or query.dim() != 3 or (is_causal and attn_mask is None):
            raise QuantizerError(
                f"explicit attention got need_weights={need_weights}, is_causal={is_causal} and a "
                f"query of shape {tuple(query.shape)}",
                hint="call it with need_weights=False, a batched query and, if causal, attn_mask",
            )
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        mask = _score_mask(attn_mask, key_padding_mask, query, self.num_heads)
        attended = attend(
            self.q_proj(query),
            self.k_proj(key),
            self.v_proj(value),
            num_heads=self.num_heads,
            mask=mask,
            dropout=self.dropout if self.training else 0.0,
            products=self.products,
        )
        attended = self.out_proj(attended)
        return (attended if self.batch_first else attended.transpose(0, 1)), None


class ExplicitSelfAttention(_Attentive):
    """open_clip's own `Attention` with its packed input projection as the module `in_proj`."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.in_proj = linear_of(attention.in_proj_weight, attention.in_proj_bias)
        self.ln_q, self.ln_k = attention.ln_q, attention.ln_k
        self.head_scale = attention.head_scale
        self.ln_inner = attention.ln_inner
        self.out_proj, self.out_drop = attention.out_proj, attention.out_drop
        self.num_heads = attention.num_heads
        self.dropout = attention.attn_drop.p

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return the attended `x`, (N, L, E); a mask as `ExplicitAttention` takes it."""
        batch, length, width = x.shape
        q, k, v = (split_heads(part, self.num_heads) for part in self.in_proj(x).chunk(3, dim=-1))
        attended = attend_heads(
            self.ln_q(q),
            self.ln_k(k),
            v,
            mask=_score_mask(attn_mask, None, x, self.num_heads),
            dropout=self.dropout if self.training else 0.0,
            products=self.products,
        )
        if self.head_scale is not None:
            attended = attended * self.head_scale
        attended = attended.transpose(1, 2).reshape(batch, length, width)
        result: Tensor = self.out_drop(self.out_proj(self.ln_inner(attended)))
        return result


class ExplicitAttentionPool2d(_Attentive):
    """The attention pool of open_clip's `ModifiedResNet`, calling its four projections."""

    def __init__(self, pool: AttentionPool2d) -> None:
        super().__init__()
        self.positional_embedding = pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj = pool.q_proj, pool.k_proj, pool.v_proj
        self.c_proj = pool.c_proj
        self.num_heads = pool.num_heads

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features, (N, C, H, W) to (N, output_dim)."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        x = x + self.positional_embedding.to(x.dtype)
        # All positions are queried, as in the original, so that operation counts agree.
        attended = attend(
            self.q_proj(x),
            self.k_proj(x),
            self.v_proj(x),
            num_heads=self.num_heads,
            products=self.products,
        )
        pooled: Tensor = self.c_proj(attended)[:, 0]
        return pooled


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    num_heads: int,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    products: AttentionProducts | None = None,
) -> Tensor:
    """Return multi-head attention of projected (N, L, E), (N, S, E), (N, S, E) as (N, L, E)."""
    q, k, v = (split_heads(x, num_heads) for x in (q, k, v))
    attended = attend_heads(q, k, v, mask=mask, dropout=dropout, products=products)
    return attended.transpose(1, 2).flatten(2)


def attend_heads(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None,
    dropout: float,
    products: AttentionProducts | None,
) -> Tensor:
    """Return attended values (N, heads, L, d)."""
    if products is not None:
        attended: Tensor = products(q, k, v, mask=mask, dropout=dropout)
        return attended
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Return (N, L, E) as (N, heads, L, E / heads)."""
    return x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return an `nn.Linear` that owns copies of `weight` (out, in) and `bias` (out,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return layer


def _score_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor, num_heads: int
) -> Tensor | None:
    """Return one additive mask that broadcasts to (N, heads, L, S)."""
    mask = _additive(attn_mask, query.dtype)
    if mask is not None and mask.dim() == 3:
        mask = mask.reshape(query.shape[0], num_heads, *mask.shape[1:])
    padding = _additive(key_padding_mask, query.dtype)
    if padding is None:
        return mask
    padding = padding[:, None, None, :]
    return padding if mask is None else mask + padding


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return None if mask is None else mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)
