"""What models multiply with, side by side: weights, and inputs before and after rounding."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.coverage import Product, count_operations
from clipq.quant.explicit import make_explicit
from clipq.testing.models import SmallInputs

__all__ = ["inputs_of", "weight_pairs"]


def weight_pairs(
    model: nn.Module, quantized: nn.Module, inputs: SmallInputs
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (layer, float weight, quantized weight), each (out, in), as they are multiplied.

    Args:
        model: the float model.
        quantized: what a method made of it.
        inputs: that both encode.

    >>> from clipq.testing.models import small_clip
    >>> next(weight_pairs(small_clip(), small_clip(), SmallInputs()))[0]
    'visual.conv1'
    """
    explicit = copy.deepcopy(model).eval()
    forms = [model]
    try:
        make_explicit(explicit, "both")
        forms.insert(0, explicit)
    except QuantizerError:
        pass  # the method could not start from that form either
    known = [_weights(form, inputs) for form in forms]
    for name, found in _weights(quantized, inputs).items():
        exact = next((form[name] for form in known if name in form), [])
        for before, after in zip(exact, found, strict=False):
            if before.shape == after.shape and after.isfinite().all():
                yield name, before, after


def inputs_of(quantized: nn.Module, inputs: SmallInputs) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (layer, input, input as it is multiplied), each (tokens, in) or (N, C·H·W).

    Args:
        quantized: a model.
        inputs: that it encodes.

    >>> from clipq.testing.models import small_clip
    >>> name, before, after = next(inputs_of(small_clip(), SmallInputs()))
    >>> name, bool((before == after).all())
    ('visual.conv1', True)
    """
    given: dict[nn.Module, Tensor] = {}
    found: list[tuple[str, Tensor, Tensor]] = []

    def remember(module: nn.Module, values: tuple[Any, ...]) -> None:
        if values and isinstance(values[0], Tensor):
            given[module] = values[0].detach()

    def look(product: Product) -> None:
        before, after = given.get(product.module), product.values.detach()
        if before is None or before.numel() != after.numel() or not after.is_floating_point():
            return
        if before.is_floating_point() and after.isfinite().all() and after.numel():
            rows = after.flatten(1)
            found.append((_layer(product), before.reshape(rows.shape).clone(), rows.clone()))

    with ExitStack() as stack:
        for module in quantized.modules():
            # Before hooks of the method's own, which may be what rounds.
            stack.enter_context(module.register_forward_pre_hook(remember, prepend=True))
        count_operations(quantized, lambda: inputs.encode(quantized), observe=look)
    yield from found


def _weights(model: nn.Module, inputs: SmallInputs) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = defaultdict(list)

    def look(product: Product) -> None:
        weight = product.weight.detach()
        if weight.is_floating_point() and weight.numel():
            found[_layer(product)].append(weight.flatten(1).clone())

    count_operations(model, lambda: inputs.encode(model), observe=look)
    return found


def _layer(product: Product) -> str:
    """Return a layer's name, whether it multiplies with its weight or with what it makes of it."""
    return product.name.removesuffix(".weight")
