"""One rounding of what queries, keys and values of an attention all read.

torch's attention is one layer of three times the width; `make_explicit` writes it as three. LSQ has
one step for the input of a layer, and here the three have one in common: it is rounded once, before
the attention, which costs a third of the time and memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from clipq.errors import QuantizerError
from clipq.quant.attention import ExplicitAttention
from clipq.quant.formats import Format
from clipq.quant.spec import Towers
from clipq.quant.towers import named_sites
from clipq.quant.trainable.trained_arithmetic import SeenInput

__all__ = ["attentions_of_one_input", "round_once"]

_READERS = ("q_proj", "k_proj", "v_proj")


def attentions_of_one_input(
    model: nn.Module, towers: Towers, formats: Mapping[str, Format], seen: Mapping[str, SeenInput]
) -> dict[str, tuple[str, ...]]:
    """Return the layers that share an input, by the attention that they belong to.

    Args:
        model: an explicit model.
        towers: where to look.
        formats: of each layer that is quantized.
        seen: what calibration shows of static inputs.
    """
    found = {}
    for name, _, _, child in named_sites(model, towers):
        readers = tuple(f"{name}.{reader}" for reader in _READERS)
        if isinstance(child, ExplicitAttention) and all(reader in seen for reader in readers):
            alike = {(formats[reader].activation, seen[reader].first.place) for reader in readers}
            if len(alike) == 1:
                found[name] = readers
    return found


def round_once(attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Round what an attention is called with, for all three of its readers; a forward hook."""
    query, key, value, *rest = inputs
    if query is not key or key is not value:
        raise QuantizerError(
            "an attention was calibrated with one tensor as query, key and value, and is now "
            "called with several",
            hint="train the model as it encodes images and texts",
        )
    rounded = cast(nn.Module, attention.inputs)(query)
    return (rounded, rounded, rounded, *rest)
