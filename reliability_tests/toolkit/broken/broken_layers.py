"""Quantizers that leave out, misplace or exchange parts of the model."""

from __future__ import annotations

import math

import torch
from faithful_quantizers import (
    LEVELS,
    as_claimed,
    block,
    broken,
    change_weights,
    claiming,
    scale_of,
)
from torch import Tensor, nn

from clipq.quant.surgery import plain_layers


@broken
def one_layer_zeroed(model, spec, calibration):
    """One MLP's output weight rounds to nothing."""
    change_weights(model)
    block(model, 1).mlp.c_proj.weight.data.zero_()
    return model


@broken
def one_head_dropped(model, spec, calibration):
    """The values of one attention head are lost."""
    change_weights(model)
    attention = block(model, -1).attn
    width = attention.v_proj.out_features // attention.num_heads
    attention.v_proj.weight.data[:width] = 0
    return model


@broken
def one_block_skipped(model, spec, calibration):
    """The loop over the blocks ends one too early."""
    change_weights(model)
    del model.visual.transformer.resblocks[-1]
    return model


@broken
def biases_lost(model, spec, calibration):
    """Integer kernels without a bias argument."""
    change_weights(model)
    for layer in plain_layers(model, "vision").values():
        if layer.bias is not None:
            layer.bias.data.zero_()
    return model


@broken
def attention_scale_lost(model, spec, calibration):
    """Scores are not divided by the root of the head's width."""
    change_weights(model)
    for index in range(len(model.visual.transformer.resblocks)):
        attention = block(model, index).attn
        factor = math.sqrt(attention.q_proj.out_features // attention.num_heads)
        attention.q_proj.weight.data *= factor
        attention.q_proj.bias.data *= factor
    return model


@broken
def query_weight_transposed(model, spec, calibration):
    """A square weight is stored column by column."""

    change_weights(model)
    weight = block(model).attn.q_proj.weight
    weight.data = weight.data.T.contiguous()
    return model


@broken
def activation_function_replaced(model, spec, calibration):
    """The fused kernel has a ReLU where the model has a GELU."""
    change_weights(model)
    for index in range(len(model.visual.transformer.resblocks)):
        block(model, index).mlp.gelu = nn.ReLU()
    return model


@broken
def text_tower_quantized_twice(model, spec, calibration):
    """The text tower's codes are taken for weights and quantized again, scales lost."""
    change_weights(model, towers="vision")

    def twice(weight: Tensor) -> Tensor:
        codes = (weight / scale_of(weight)).round()
        return (codes / LEVELS / 8).round() * 8 * scale_of(weight).mean()

    return change_weights(model, twice, "text")


@broken
def positions_lost(model, spec, calibration):
    """The position embedding is not copied."""
    change_weights(model)
    model.visual.positional_embedding.data.zero_()
    return model


@broken
def norms_rounded_coarsely(model, spec, calibration):
    """Layer norms are quantized to 2 bits along with the weights."""
    change_weights(model)
    for module in model.visual.modules():
        if isinstance(module, nn.LayerNorm):
            weight = module.weight.data
            step = weight.abs().max()
            module.weight.data = (weight / step).round() * step
    return model


@claiming("w8a8")
def bias_lost_in_one_layer(model, spec, calibration):
    """One fused layer has no bias argument."""
    as_claimed(model, calibration)
    block(model, 1).mlp.c_fc.bias.data.zero_()
    return model


@claiming("w8a8")
def residual_added_twice(model, spec, calibration):
    """The fused MLP adds its input, and so does the block around it."""
    as_claimed(model, calibration)
    mlp = block(model, 2).mlp
    mlp.register_forward_hook(lambda _module, inputs, output: output + inputs[0])
    return model


@claiming("w8a8")
def heads_permuted(model, spec, calibration):
    """The output projection expects another order of heads."""
    as_claimed(model, calibration)
    attention = block(model, 1).attn
    weight = attention.v_proj.weight.data
    heads = weight.reshape(attention.num_heads, -1, weight.shape[1])
    attention.v_proj.weight.data = heads.roll(1, 0).reshape(weight.shape).contiguous()
    return model


@claiming("w8a8")
def blocks_exchanged(model, spec, calibration):
    """Shards are loaded in the order of their names: block 10 before block 2."""
    as_claimed(model, calibration)
    blocks = model.visual.transformer.resblocks
    blocks[0].mlp, blocks[-1].mlp = blocks[-1].mlp, blocks[0].mlp
    return model


@claiming("w8a8")
def norm_epsilon_of_another_model(model, spec, calibration):
    """A layer norm was rebuilt with an epsilon that is large for these activations."""
    as_claimed(model, calibration)
    for index in range(len(model.visual.transformer.resblocks)):
        block(model, index).ln_1.eps = 0.3
    return model


@claiming("w8a8")
def causal_mask_lost(model, spec, calibration):
    """The exported text tower attends to what comes after."""
    as_claimed(model, calibration)
    model.attn_mask = None
    return model


@claiming("w8a8")
def class_token_lost(model, spec, calibration):
    """The class embedding is no layer, and was not exported."""
    as_claimed(model, calibration)
    model.visual.class_embedding.data.zero_()
    return model


@broken
def text_positions_shifted(model, spec, calibration):
    """Position embeddings of texts begin at one."""
    change_weights(model)
    model.positional_embedding.data = model.positional_embedding.data.roll(1, 0)
    return model


@claiming("w8")
def final_norm_lost(model, spec, calibration):
    """The norm before the projection was folded, but into nothing."""
    change_weights(model)
    model.visual.ln_post.weight.data.fill_(1.0)
    model.visual.ln_post.bias.data.zero_()
    return model


@claiming("w8a8")
def dropout_left_on(model, spec, calibration):
    """One MLP still drops a twentieth of its outputs."""
    as_claimed(model, calibration)
    block(model, 2).mlp.register_forward_hook(
        lambda _module, _inputs, output: nn.functional.dropout(output, 0.05, training=True)
    )
    return model


@claiming("w8a8")
def smoothed_but_not_undone(model, spec, calibration):
    """Weights of one layer are multiplied by smoothing scales that its inputs never see."""
    as_claimed(model, calibration)
    weight = block(model, 0).mlp.c_fc.weight
    factors = torch.linspace(0.7, 1.4, len(weight)).reshape(-1, 1)
    weight.data = weight.data * factors
    return model
