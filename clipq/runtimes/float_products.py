"""Which weights a module of torch multiplies in float, found by running it on one sample.

A product counts as one in float where a factor is a plain parameter of floats or a view of one.
What tools of quantization put in its place, subclasses of Tensor and packed parameters, is none:
so a weight that escapes one of them, as `in_proj_weight` does where only modules are replaced, is
seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

__all__ = ["Products", "float_products", "quantized_weights"]

_NAMES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
}


@dataclass(frozen=True, slots=True)
class Products:
    """Products of one pass.

    Args:
        weights: multiply-adds with parameters in float, by name of the parameter.
        precisions: multiply-adds of all products in float, by what they are executed in.
        ran: modules that ran.

    >>> Products(Counter({"proj": 96})).weights.total()
    96
    """

    weights: Counter[str] = field(default_factory=Counter)
    precisions: Counter[str] = field(default_factory=Counter)
    ran: set[nn.Module] = field(default_factory=set)


def float_products(module: object, run: Callable[[], object]) -> Products:
    """Return the products in float of one pass.

    Args:
        module: whose parameters name the weights; of what is no `nn.Module` none is known.
        run: what calls it.

    >>> layer = nn.Linear(4, 3)
    >>> found = float_products(layer, lambda: layer(torch.ones(2, 4)))
    >>> found.weights, found.precisions, found.ran == {layer}
    (Counter({'weight': 24}), Counter({'f32': 24}), True)
    """
    counter = _Counter(module)
    with ExitStack() as stack:
        for part in module.modules() if isinstance(module, nn.Module) else ():
            hook = part.register_forward_pre_hook(lambda ran, _: counter.products.ran.add(ran))
            stack.callback(hook.remove)
        stack.enter_context(_without_fast_path())
        stack.enter_context(torch.no_grad())
        stack.enter_context(counter)
        run()
    return counter.products


def quantized_weights(module: object, ran: Collection[nn.Module] = ()) -> Counter[str]:
    """Return how many weights of a module are not plain floats, by what they are.

    These are tensors of subclasses (torchao, quanto), parameters and buffers of bytes of two
    dimensions or more, and modules that pack theirs (torch.ao).

    Args:
        module: of what is no `nn.Module` none is known.
        ran: count those alone that these modules, or the ones right in them, hold; () for all.

    >>> quantized_weights(nn.Linear(4, 3))
    Counter()
    """
    found: Counter[str] = Counter()
    if not isinstance(module, nn.Module):
        return found
    parts = set(module.modules())
    if ran:  # attention reads the weights of its projection and never calls it
        parts = {part for one in ran for part in (one, *one.children())}
    for part in parts:
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
                found[type(tensor).__name__] += 1
            elif tensor.dtype in (torch.int8, torch.uint8) and tensor.dim() >= 2:
                found[str(tensor.dtype).removeprefix("torch.")] += 1
        packs = hasattr(part, "_packed_params") and not type(part).__name__.endswith("PackedParams")
        if packs:
            found[f"packed {type(part).__name__}"] += 1
    return found


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    def __init__(self, module: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.products = Products()
        named = module.named_parameters() if isinstance(module, nn.Module) else ()
        self._names = {
            _address(tensor): name
            for name, tensor in named
            if _is_plain(tensor) and tensor.is_floating_point()
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self._record(func, args, formula(*args, **(kwargs or {}), out_val=result) // 2)
        return result

    def _record(self, func: Any, args: Any, macs: int) -> None:
        factors = [x for x in args if isinstance(x, Tensor)]
        if func.overloadpacket in (aten.addmm, aten.baddbmm):
            factors = factors[1:]
        factors = factors[:2]
        if not factors or not factors[0].is_floating_point():
            return
        self.products.precisions[_NAMES.get(factors[0].dtype, str(factors[0].dtype))] += macs
        plain = (x for x in factors if _is_plain(x))
        known = [self._names[x] for x in map(_address, plain) if x in self._names]
        if known:
            self.products.weights[known[-1]] += macs


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter)


def _address(tensor: Tensor) -> int:
    """Return what a tensor and its views share."""
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Let attention be products of its own, not one fused operation that no formula counts."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
