"""What a method changed, found by laying its model beside the float one.

A method need not build on clipq's own modules: it may round weights in place, hook what rounds an
input into a layer, or put modules of its own where layers were. Whatever differs from the float
model at the same name can be put back by that name. The float model is laid beside it in two forms,
as open_clip wrote it and with explicit attention, as a method may start from either.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.explicit import make_explicit
from clipq.quant.spec import Towers
from clipq.quant.towers import in_towers

__all__ = ["Changed", "changed_layers"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """One module, or one tensor that lies in a tower by itself, that a method changed.

    Args:
        rounded: what the quantized model has.
        exact: what the float model has in its place.
        sites: every (parent, attribute) that holds it.
    """

    rounded: nn.Module | Tensor
    exact: nn.Module | Tensor
    sites: list[tuple[nn.Module, str]] = field(default_factory=list)


def changed_layers(quantized: nn.Module, model: nn.Module, towers: Towers) -> dict[str, Changed]:
    """Return what differs between a quantized model and the float one, by name, as it lies there.

    A layer that is used in two places has one entry, under its first name. Both models stay as they
    are; the float layers returned are copies.

    Args:
        quantized: the model that a method made.
        model: the float model it was made from.
        towers: where to look.

    >>> from clipq.testing import small_clip
    >>> model, rounded = small_clip(), small_clip()
    >>> make_explicit(rounded, "vision")
    >>> layer = rounded.visual.transformer.resblocks[0].attn.out_proj
    >>> layer.weight.data.copy_(layer.weight.bfloat16()).shape
    torch.Size([64, 64])
    >>> list(changed_layers(rounded, model, "vision"))
    ['visual.transformer.resblocks.0.attn.out_proj']
    """
    originals = [copy.deepcopy(model).eval()]
    try:
        explicit = copy.deepcopy(model).eval()
        make_explicit(explicit, towers)
        originals.insert(0, explicit)
    except QuantizerError:
        pass  # the method could not start from that form either
    found: dict[str, Changed] = {}
    names: dict[int, str] = {}
    for name, parent, attribute, exact in _differences("", quantized, originals, towers):
        rounded = getattr(parent, attribute)
        first = names.setdefault(id(rounded), name)
        found.setdefault(first, Changed(rounded, exact)).sites.append((parent, attribute))
    return found


def _differences(
    prefix: str, module: nn.Module, originals: Sequence[nn.Module], towers: Towers
) -> Iterator[tuple[str, nn.Module, str, nn.Module | Tensor]]:
    """Yield (name, parent, attribute, float counterpart) of what differs, outermost names first."""
    for attribute, tensor in [*module._parameters.items(), *module._buffers.items()]:
        name = f"{prefix}{attribute}"
        others = [x for x in (_own(one, attribute) for one in originals) if x is not None]
        if tensor is None or not others or not in_towers(name, towers):
            continue
        if not any(_equal(tensor, other) for other in others):
            yield name, module, attribute, others[0]
    for attribute, child in module._modules.items():
        name = f"{prefix}{attribute}"
        twins = [x for x in (one._modules.get(attribute) for one in originals) if x is not None]
        if child is None or not twins or not in_towers(name, towers):
            continue
        alike = [twin for twin in twins if _built_alike(child, twin)]
        if not alike or (not child._modules and not any(_same_state(child, x) for x in alike)):
            yield name, module, attribute, (alike or twins)[0]
        elif child._modules:
            yield from _differences(f"{name}.", child, alike, towers)


def _own(module: nn.Module, name: str) -> Tensor | None:
    return module._parameters.get(name, module._buffers.get(name))


def _built_alike(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules compute the same wherever their tensors and children do."""

    def shape(one: nn.Module) -> tuple[Any, ...]:
        hooks = [len(getattr(one, name)) for name in _HOOKS]
        return type(one), hooks, "forward" in vars(one), list(one._modules)

    return shape(module) == shape(other)


def _same_state(module: nn.Module, other: nn.Module) -> bool:
    mine, theirs = (dict([*x.named_parameters(), *x.named_buffers()]) for x in (module, other))
    return mine.keys() == theirs.keys() and all(_equal(mine[n], theirs[n]) for n in mine)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
