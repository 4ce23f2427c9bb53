"""Quantizers that are not what they are called."""

from __future__ import annotations

import torch
from faithful_quantizers import (
    as_claimed,
    block,
    change_weights,
    claiming,
    input_ranges,
    quantize_inputs,
    rounded,
)

from clipq.quant.formats import Format
from clipq.quant.methods import find_method
from clipq.quant.modules import Projection
from clipq.quant.spec import QuantizerSpec
from clipq.quant.surgery import plain_layers


@claiming("w8a8")
def pretends(model, spec, calibration):
    """Quantizes nothing, and adds a little noise so that something changed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 1e-5 * parameter.data.abs().mean() * noise
    return model


@claiming("w4a8")
def sloppy(model, spec, calibration):
    """Computes w8a8 with a bug, and is judged by the margins of w4."""
    as_claimed(model, calibration)
    attention = block(model, -1).attn
    attention.v_proj.weight.data[:14] = 0
    return model


@claiming("w8a8")
def one_layer_at_four_bits(model, spec, calibration):
    """clipq's own modules, one of which was made for another format."""
    rtn = QuantizerSpec("rtn", Format.parse("w8a8"))
    model = find_method(rtn)(model, rtn, calibration)
    layer = block(model, 1).mlp.c_fc
    layer.weight.data = rounded(layer.weight.data, 7)
    return model


@claiming("w8a8")
def four_bit_activations(model, spec, calibration):
    """clipq's own modules, at the bits of another candidate."""
    rtn = QuantizerSpec("rtn", Format.parse("w8a4"))
    return find_method(rtn)(model, rtn, calibration)


@claiming("w8a8")
def activations_left_in_float(model, spec, calibration):
    """Weights only, under the name of weights and activations."""
    return change_weights(model)


@claiming("w8a8")
def text_tower_left_out(model, spec, calibration):
    """The text tower is cached anyway, they said."""
    return as_claimed(model, calibration, "vision")


@claiming("w8a8")
def last_block_left_out(model, spec, calibration):
    """Layers are taken by a range that ends one too early."""
    names = {id(m): n for n, m in model.named_modules()}
    last = names[id(block(model, -1))]
    kept = {n: p.data.clone() for n, p in block(model, -1).named_parameters()}
    change_weights(model)
    _restore(block(model, -1), kept)
    ranges = input_ranges(model, calibration, "both")
    return quantize_inputs(model, {n: r for n, r in ranges.items() if not n.startswith(last)})


@claiming("w8a8")
def projections_left_out(model, spec, calibration):
    """What is a bare matrix and no module is not found: the input projections of attention."""
    plain = [
        (n, m) for n, m in model.named_modules() if type(m) in (torch.nn.Linear, torch.nn.Conv2d)
    ]
    for _, layer in plain:
        layer.weight.data = rounded(layer.weight.data)
    return model


@claiming("w4a8")
def eight_bits_by_einsum(model, spec, calibration):
    """Weights of another candidate, in products of batches of matrices."""
    as_claimed(model, calibration)
    return _multiply(model, lambda x, weight: torch.einsum("...d,od->...o", x, weight))


@claiming("w8a8")
def float_by_elements(model, spec, calibration):
    """Nothing is rounded, in products that nobody can tell from other ones."""
    change_weights(model, lambda weight: weight)
    return _multiply(model, lambda x, weight: (x.unsqueeze(-2) * weight).sum(-1))


class _Multiplied(Projection):
    """A linear layer with a product of its own."""

    def forward(self, input):
        output = self.product(input, self.weight)
        return output if self.bias is None else output + self.bias


def _multiply(model, product):
    for layer in plain_layers(model, "both").values():
        if isinstance(layer, torch.nn.Linear):
            layer.__class__, layer.product = _Multiplied, product
    return model


def _restore(resblock, kept):
    """Put float weights back into a block that is written out by now."""
    for name, part in (("q", 0), ("k", 1), ("v", 2)):
        weight = kept["attn.in_proj_weight"].chunk(3)[part]
        getattr(resblock.attn, f"{name}_proj").weight.data = weight
    resblock.attn.out_proj.weight.data = kept["attn.out_proj.weight"]
    resblock.mlp.c_fc.weight.data = kept["mlp.c_fc.weight"]
    resblock.mlp.c_proj.weight.data = kept["mlp.c_proj.weight"]
