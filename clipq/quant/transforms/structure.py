"""Where a model can be rewritten: which norm feeds which layers, which blocks share a stream.

Names propose, a run disposes: blocks of open_clip and timm keep norms and layers under known names,
but the same names stand for norms *behind* a layer elsewhere (Swin v2). A proposal counts only if,
when the model runs, its layers are the very next ones after the norm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from clipq.quant.methods import Calibration
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.spec import Towers
from clipq.quant.towers import named_sites, tower_batches

__all__ = [
    "NormGroup",
    "ValuePair",
    "does_nothing",
    "execution_order",
    "norm_groups",
    "value_pairs",
]

# (norm, layers that read nothing but its output), relative to a block.
_PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ln_1", ("attn.q_proj", "attn.k_proj", "attn.v_proj")),
    ("ln_1", ("attn.in_proj",)),
    ("ln_2", ("mlp.c_fc",)),
    ("norm1", ("attn.qkv",)),
    ("norm1", ("attn.q_proj", "attn.k_proj", "attn.v_proj")),
    ("norm2", ("mlp.fc1",)),
    ("norm2", ("mlp.fc1_g", "mlp.fc1_x")),
    ("norm", ("mlp.fc1",)),
)


@dataclass(frozen=True, slots=True, eq=False)
class NormGroup:
    """A layer norm with an affine map, and all layers that read its output.

    Args:
        name: of the norm.
        norm: its weight (C,) and bias (C,) act on the layers' inputs.
        layers: by name; linear, or 1 x 1 convolutions.
    """

    name: str
    norm: nn.LayerNorm
    layers: dict[str, nn.Linear | nn.Conv2d]

    @property
    def width(self) -> int:
        """Number of features C."""
        return int(self.norm.weight.numel())


@dataclass(frozen=True, slots=True, eq=False)
class ValuePair:
    """A value projection and the output projection that reads its values, mixed over tokens only.

    Args:
        name: of the attention.
        value: (heads · d, in).
        output: (out, heads · d).
        num_heads: heads.
        rows: which rows of `value` are values: all, or the last third of a packed projection.
    """

    name: str
    value: nn.Linear
    output: nn.Linear
    num_heads: int
    rows: slice


def execution_order(model: nn.Module, towers: Towers, calibration: Calibration) -> list[str]:
    """Return the names of all modules without children, in the order in which they first run.

    A single image and a single text are encoded.
    """
    order: dict[str, None] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: order.setdefault(name)

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                stack.enter_context(module.register_forward_pre_hook(note(name)))
        for encode, batches in tower_batches(model, towers, calibration):
            encode(next(batches)[:1])
    return list(order)


def norm_groups(model: nn.Module, towers: Towers, order: list[str]) -> dict[str, NormGroup]:
    """Return norms whose every reader is known, by name.

    Args:
        model: an explicit model.
        towers: where to look.
        order: from `execution_order`; modules that do nothing (`nn.Identity`, dropout) are skipped.

    A norm or layer that is used in two places belongs to no group: it cannot serve both.
    """
    modules = dict(model.named_modules())
    running = [name for name in order if not does_nothing(modules[name])]
    after = {name: running[i + 1 :] for i, name in enumerate(running)}
    used = Counter(id(child) for *_, child in named_sites(model, towers))
    groups: dict[str, NormGroup] = {}
    for name, *_ in named_sites(model, towers):
        for norm_name, layer_names in _PATTERNS:
            norm_name = f"{name}.{norm_name}"
            names = [f"{name}.{layer}" for layer in layer_names]
            if norm_name in groups or not all(n in modules for n in (norm_name, *names)):
                continue
            norm, layers = modules[norm_name], {n: modules[n] for n in names}
            next_ones = after.get(norm_name, [])[: len(names)]
            parts = [norm, *layers.values()]
            if (
                isinstance(norm, nn.LayerNorm)
                and norm.weight is not None
                and all(map(_reads_features, layers.values()))
                and set(next_ones) == set(names)
                and all(used[id(part)] == 1 for part in parts)
            ):
                groups[norm_name] = NormGroup(
                    norm_name, norm, cast(dict[str, nn.Linear | nn.Conv2d], layers)
                )
    return groups


def value_pairs(model: nn.Module, towers: Towers) -> dict[str, ValuePair]:
    """Return attentions in which a change of basis of the values reaches the output unchanged.

    Those are `v_proj` (or the last third of `qkv` or `in_proj`) and `out_proj` (`proj`) with
    nothing but the average over tokens between them.
    """
    used = Counter(id(child) for *_, child in named_sites(model, towers))
    pairs = {}
    for name, _, _, attention in named_sites(model, towers):
        heads = getattr(attention, "num_heads", None)
        if not isinstance(heads, int) or _acts_on_values(attention):
            continue
        output = getattr(attention, "out_proj", None) or getattr(attention, "proj", None)
        value = getattr(attention, "v_proj", None)
        packed = getattr(attention, "qkv", None) or getattr(attention, "in_proj", None)
        source = value if isinstance(value, nn.Linear) else packed
        if not isinstance(source, nn.Linear) or not isinstance(output, nn.Linear):
            continue
        width = output.in_features
        third = source is packed
        if source.out_features != (3 * width if third else width) or width % heads:
            continue
        if any(used[id(part)] != 1 for part in (attention, source, output)):
            continue
        rows = slice(2 * width, 3 * width) if third else slice(0, width)
        pairs[name] = ValuePair(name, source, output, heads, rows)
    return pairs


def _acts_on_values(attention: nn.Module) -> bool:
    """Whether something other than the average over tokens lies between values and output."""
    between = (getattr(attention, name, None) for name in ("ln_inner", "norm", "head_scale"))
    return any(x is not None and not isinstance(x, nn.Identity) for x in between)


def _reads_features(layer: nn.Module) -> bool:
    if isinstance(layer, QuantizedLinear | QuantizedConv2d):
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def does_nothing(module: nn.Module) -> bool:
    """Whether a module without children only passes its input on, in eval mode."""
    return isinstance(module, nn.Identity | nn.Dropout) or type(module).__name__ == "DropPath"
