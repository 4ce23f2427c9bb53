"""How much of a model's arithmetic a quantizer covers, measured by running it.

One image and one text pass through the towers while every matrix product and convolution is
recorded, with torch's own operation formulas. A product is *weight-bearing* if it is a
convolution or one operand is a view of a parameter or buffer; it is *quantized* if it happens
inside a quantized module. A weight used behind its module's back therefore counts as uncovered.
Products of two activations (attention scores and their application) are named apart: only formats
with `k` or `s` round them. A matrix computed from a weight on the fly, other than a convolution's,
counts among them, as it can no longer be told from an activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from clipq.quant.modules import InputTransform, QuantizedConv2d, QuantizedLinear

aten = torch.ops.aten

__all__ = ["Coverage", "Operations", "Product", "count_operations", "quantized_layers"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of the weight-bearing arithmetic that runs quantized, for one image and one text.

    Args:
        layers: quantized modules that ran.
        macs_quantized: multiply-accumulates inside them; None where the method brings modules of
            its own, which clipq cannot count.
        macs_total: weight-bearing multiply-accumulates of the float model's chosen towers.
        uncovered: weights that were multiplied in float, by name.
        activation_products: modules that multiply activations with activations, whether in float or
            rounded by a format's `k` and `s`.
        macs_activation: multiply-accumulates of those.
        macs_transform: multiply-accumulates of rotations of inputs, in float, which the float model
            does not have.

    >>> Coverage(layers=3, macs_quantized=75, macs_total=100, uncovered=("visual.proj",)).share
    0.75
    """

    layers: int
    macs_quantized: int | None
    macs_total: int
    uncovered: tuple[str, ...] = ()
    activation_products: tuple[str, ...] = ()
    macs_activation: int = 0
    macs_transform: int = 0

    @property
    def share(self) -> float | None:
        """Quantized share in 0 … 1; None where unreported."""
        if self.macs_quantized is None or self.macs_total == 0:
            return None
        return self.macs_quantized / self.macs_total

    def to_plain(self) -> dict[str, Any]:
        """Return the coverage as strict-JSON values."""
        return {
            "layers": self.layers,
            "macs_quantized": self.macs_quantized,
            "macs_total": self.macs_total,
            "share": self.share,
            "uncovered": list(self.uncovered),
            "activation_products": list(self.activation_products),
            "macs_activation": self.macs_activation,
            "macs_transform": self.macs_transform,
        }


@dataclass(frozen=True, slots=True)
class Operations:
    """Multiply-accumulates of one pass, by name.

    Args:
        quantized: by quantized module.
        weights: weight-bearing ones in float, by parameter (a convolution whose weight is
            computed on the fly: by module).
        activations: activation times activation, by module.
        transforms: inside of a layer's input transform, by module.

    >>> found = Operations(Counter({"fc": 75}), Counter({"proj": 25}), Counter(), Counter())
    >>> found.quantized.total(), found.weights.total()
    (75, 25)
    """

    quantized: Counter[str]
    weights: Counter[str]
    activations: Counter[str]
    transforms: Counter[str]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """One product of an input with a weight, as it ran.

    Args:
        name: of the weight's parameter; of the module, where the weight is computed on the fly.
        module: in which it happened, innermost.
        weight: (out, in) or (out, in/groups, kh, kw), as it was multiplied.
        values: the input (tokens, in) or (N, C, H, W), as it was multiplied.
        macs: multiply-accumulates.

    >>> layer, seen = nn.Linear(4, 3), []
    >>> _ = count_operations(layer, lambda: layer(torch.ones(2, 4)), observe=seen.append)
    >>> [(each.name, each.weight.shape, each.values.shape, each.macs) for each in seen]
    [('weight', torch.Size([3, 4]), torch.Size([2, 4]), 24)]
    """

    name: str
    module: nn.Module
    weight: Tensor
    values: Tensor
    macs: int


def quantized_layers(model: nn.Module) -> list[str]:
    """Return the names of clipq's quantized modules in `model`.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> model = small_clip()
    >>> quantized_layers(model)
    []
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, QuantizedLinear | QuantizedConv2d)
    ]


def count_operations(
    model: nn.Module,
    run: Callable[[], object],
    *,
    observe: Callable[[Product], None] | None = None,
) -> Operations:
    """Return the operations that `run`, which calls `model`, performs.

    Args:
        model: whose parameters name the operations.
        run: what calls it.
        observe: called with each product of a matrix, or a convolution, as it happens. Products of
            batches of matrices are left out where neither is a parameter, nor one matrix for the
            whole batch that is as large as a weight of the module: attention's are none of a
            weight.

    >>> layer = nn.Linear(4, 4)
    >>> count_operations(layer, lambda: layer(torch.ones(2, 4))).weights  # 2 * 4 * 4
    Counter({'weight': 32})
    """
    counter = _Counter(model, observe)
    # As plain products, attention is counted alike on every torch: older ones have no formula for
    # the fused kernel of the CPU.
    plain = sdpa_kernel(SDPBackend.MATH)
    with _without_fast_path(), plain, counter.watching(), torch.no_grad(), counter:
        run()
    return counter.operations


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    def __init__(self, model: nn.Module, observe: Callable[[Product], None] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.operations = Operations(Counter(), Counter(), Counter(), Counter())
        self._model, self._observe = model, observe
        self._running: list[tuple[str, nn.Module]] = []
        self._names: dict[int, str] = {
            _address(tensor): name
            for tensors in (model.named_buffers(), model.named_parameters())
            for name, tensor in tensors
            if tensor.numel()
        }

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow which module runs, innermost last."""

        def enter(name: str) -> Callable[[nn.Module, Any], None]:
            return lambda module, _: self._running.append((name, module))

        def leave(*_: object) -> None:
            self._running.pop()

        with ExitStack() as stack:
            self._running.append((type(self._model).__name__, self._model))
            for name, module in self._model.named_modules():
                stack.enter_context(module.register_forward_pre_hook(enter(name)))
                stack.enter_context(module.register_forward_hook(leave, always_call=True))
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _formula(func)
        if formula is None:  # under inference mode composites such as linear arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self._record(func, formula(*args, **kwargs, out_val=result) // 2, args)
        return result

    def _record(self, func: Any, macs: int, args: Any) -> None:
        name, module = self._running[-1]
        if self._observe is not None and not isinstance(module, InputTransform):
            self._show(func, macs, args)
        if isinstance(module, QuantizedLinear | QuantizedConv2d):
            self.operations.quantized[name] += macs
            return
        if isinstance(module, InputTransform):
            self.operations.transforms[name] += macs
            return
        factors = _factors(func, args)
        weights = [self._names[x] for x in map(_address, factors) if x in self._names]
        if weights:
            self.operations.weights[weights[-1]] += macs
        elif "convolution" in str(func):
            self.operations.weights[name] += macs
        else:
            self.operations.activations[name] += macs

    def _show(self, func: Any, macs: int, args: Any) -> None:
        factors = _factors(func, args)
        if len(factors) < 2:
            return
        name, module = self._running[-1]
        left, right = factors
        known = [self._names.get(_address(x)) for x in factors]
        first, second = (x is not None for x in known)
        batches = func.overloadpacket in (aten.bmm, aten.baddbmm)
        if batches and not (first or second):
            first, second = _is_parameter_like(left, module), _is_parameter_like(right.mT, module)
            if not (first or second):
                return  # two activations
        if "convolution" in str(func):
            weight, values = right, left
        elif first and not second:  # weight @ input
            weight, values = _rows(left), _rows(right.mT)
        else:
            weight, values = _rows(right.mT), _rows(left)
        found = next((x for x in reversed(known) if x is not None), name)
        self._observe(Product(found, module, weight, values, macs))  # type: ignore[misc]


def _formula(func: Any) -> Any:
    """Return torch's formula of an operation's floating-point operations; None for other ones."""
    if func.overloadpacket is aten._int_mm:
        return flop_registry[aten.mm]
    return flop_registry.get(func.overloadpacket)


def _factors(func: Any, args: Any) -> list[Tensor]:
    """Return what a linear operation multiplies, without the bias it adds."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    if func.overloadpacket in (aten.addmm, aten.baddbmm):
        return tensors[1:]
    if func.overloadpacket in (aten.mm, aten._int_mm, aten.bmm) or "convolution" in str(func):
        return tensors[:2]
    return []  # fused attention multiplies activations whatever they are views of


def _rows(matrices: Tensor) -> Tensor:
    """Return a matrix, or a batch of them, as one matrix; one that is repeated only once."""
    if matrices.dim() == 2:
        return matrices
    return matrices[0] if matrices.stride(0) == 0 else matrices.flatten(0, 1)


def _is_parameter_like(matrices: Tensor, module: nn.Module) -> bool:
    """Whether a batch repeats one matrix as large as a weight of the module it happens in.

    Where a weight was rounded on the way to a product of batches, that is all that tells it from an
    activation.
    """
    if matrices.shape[0] != 1 and matrices.stride(0) != 0:
        return False
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    shapes = [x.flatten(1).shape for x in own if x.dim() >= 2]
    return matrices.shape[1:] in shapes or matrices.mT.shape[1:] in shapes


def _address(tensor: Tensor) -> int:
    """Return what a tensor and its views share, on the meta device too, which has no memory."""
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Keep torch's fused attention from hiding its products from the counter."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
