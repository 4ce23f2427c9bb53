"""The registry of quantizer methods, and what a method is given.

A method is a function; a decorator or an entry point of the group `clipq.quantizers` registers it::

    from clipq.quant import quantizers

    @quantizers.register("mine", version=1, files=("scales.npy",), environment=("MY_SCALE",))
    def mine(model, spec, calibration):
        ...
        return model

`files` (globs, relative to the module) and `environment` are what it reads and its source does not
name; `clipq.quant.code_identity` makes both a part of what identifies its results. ``draws=True``
and ``calibrates=False`` say what a result hangs on, see `clipq.quant.randomness`.

This module imports torch for type checkers only, so that names and versions stay cheap to know.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from clipq.cases import FP32
from clipq.dependencies.file_reads import watching_imports
from clipq.errors import QuantizerError
from clipq.quant.spec import QuantizerSpec
from clipq.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "OWN",
    "Calibration",
    "Method",
    "defining_module",
    "find_method",
    "is_builtin",
    "is_trained",
    "method_version",
    "quantizers",
    "trained_methods",
]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Unlabelled data a method may look at; streamed, and read again from the start per call.

    Args:
        images: batches of preprocessed images, (N, 3, H, W) floating point.
        texts: batches of tokens, (N, L) int64.
        trained: what a method that trains has learnt, tensors by name; None where nothing was.

    >>> import torch
    >>> images, tokens = torch.zeros(2, 3, 32, 32), torch.zeros(2, 77, dtype=torch.int64)
    >>> calibration = Calibration(images=lambda: iter([images]), texts=lambda: iter([tokens]))
    >>> [tuple(batch.shape) for batch in calibration.images()]
    [(2, 3, 32, 32)]
    """

    images: Callable[[], Iterator[Tensor]]
    texts: Callable[[], Iterator[Tensor]]
    trained: Mapping[str, Tensor] | None = None


class Method(Protocol):
    """A quantizer method.

    `model` is a private copy in eval mode: change it in place and return it, or return another
    module that offers open_clip's `encode_image` and `encode_text`. Gradients are off; a method
    that trains turns them on itself. The registered `version` is bumped whenever results change.
    """

    def __call__(
        self, model: nn.Module, spec: QuantizerSpec, calibration: Calibration, /
    ) -> nn.Module: ...


OWN = "clipq.quant."
"""What names of modules begin with that hold clipq's own methods."""

quantizers: Registry[Method] = Registry("quantizer", group="clipq.quantizers")
for _name in ("awq", "gptq", "smoothquant"):
    quantizers.register_lazy(_name, f"clipq.quant.{_name}:{_name}")
for _name in ("noise", "raana"):
    quantizers.register_lazy(_name, f"clipq.quant.{_name}:{_name}", draws=True)
quantizers.register_lazy("rtn", "clipq.quant.rtn:rtn", calibrates=False)
quantizers.register_lazy("quarot", "clipq.quant.quarot:quarot", draws=True, calibrates=False)
for _name in ("dorefa", "lsq", "pact"):
    quantizers.register_lazy(_name, f"clipq.quant.{_name}:{_name}", trains=True, calibrates=False)
quantizers.register_lazy(
    "rot+lsq", "clipq.quant.rot_lsq:rot_lsq", trains=True, draws=True, calibrates=False
)


def find_method(spec: QuantizerSpec | str) -> Method:
    """Return the method that `spec` names.

    Raises:
        UnknownNameError: no such method.
        QuantizerError: `spec` is the unquantized reference, which no method makes.

    >>> find_method("rtn:w8a8").__name__
    'rtn'
    >>> find_method("rtm:w8a8")
    Traceback (most recent call last):
    clipq.errors.UnknownNameError: unknown quantizer 'rtm'
      fix: did you mean 'rtn'? ...
    """
    spec = QuantizerSpec.parse(spec)
    if spec.method == FP32:
        raise QuantizerError(
            f"{FP32!r} is the unquantized reference, not a quantizer",
            hint="use the model itself, or name a method such as rtn:w8a8",
        )
    with watching_imports():
        return quantizers.get(spec.method)


def method_version(spec: QuantizerSpec | str) -> int:
    """Return the version its author gave the method, 1 if none; part of every result's key.

    >>> method_version("rtn:w8a8")
    1
    """
    spec = QuantizerSpec.parse(spec)
    version = getattr(find_method(spec), "version", 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise QuantizerError(
            f"quantizer method {spec.method!r} has version {version!r}, not an integer",
            hint=f'register it with @quantizers.register("{spec.method}", version=1)',
        )
    return version


def is_trained(spec: QuantizerSpec | str) -> bool:
    """Whether what a quantizer does is learnt: its method was registered with ``trains=True``.

    >>> is_trained("rtn:w8a8")
    False
    """
    spec = QuantizerSpec.parse(spec)
    return spec.method != FP32 and bool(getattr(find_method(spec), "trains", False))


def trained_methods() -> list[str]:
    """Return the names of methods that learn, sorted, without importing any.

    >>> trained_methods()
    ['dorefa', 'lsq', 'pact', 'rot+lsq']
    """
    return [name for name in quantizers.names() if quantizers.said(name, "trains", default=False)]


def is_builtin(method: Method) -> bool:
    """Whether a method is clipq's own.

    >>> is_builtin(find_method("rtn:w8")), is_builtin(print)  # anybody else's function
    (True, False)
    """
    return defining_module(method).startswith(OWN)


def defining_module(method: Any) -> str:
    """Return the name of the module that defines a method, beneath partial calls and wrappers.

    >>> defining_module(find_method("rtn:w8"))
    'clipq.quant.rtn'
    """
    while isinstance(method, functools.partial):
        method = method.func
    method = inspect.unwrap(method)
    return str(getattr(method, "__module__", None) or type(method).__module__)
