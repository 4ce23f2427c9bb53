"""The registry of quantizer methods, what a method is given, and what identifies its code.

A method is a function; a decorator or an entry point of the group `clipq.quantizers` registers it::

    from clipq.quant import quantizers

    @quantizers.register("mine", version=1)
    def mine(model, spec, calibration):
        ...
        return model

This module imports torch for type checkers only, so that names and versions stay cheap to know.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipq.cases import FP32
from clipq.errors import QuantizerError
from clipq.quant.spec import QuantizerSpec
from clipq.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Calibration",
    "Method",
    "find_method",
    "is_builtin",
    "method_code_hash",
    "method_version",
    "quantizers",
]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Unlabelled data a method may look at; streamed, and read again from the start per call.

    Args:
        images: batches of preprocessed images, (N, 3, H, W) floating point.
        texts: batches of tokens, (N, L) int64.

    >>> import torch
    >>> images, tokens = torch.zeros(2, 3, 32, 32), torch.zeros(2, 77, dtype=torch.int64)
    >>> calibration = Calibration(images=lambda: iter([images]), texts=lambda: iter([tokens]))
    >>> [tuple(batch.shape) for batch in calibration.images()]
    [(2, 3, 32, 32)]
    """

    images: Callable[[], Iterator[Tensor]]
    texts: Callable[[], Iterator[Tensor]]


class Method(Protocol):
    """A quantizer method.

    `model` is a private copy in eval mode: change it in place and return it, or return another
    module that offers open_clip's `encode_image` and `encode_text`. Gradients are off; a method
    that trains turns them on itself. The registered `version` is bumped whenever results change.
    """

    def __call__(
        self, model: nn.Module, spec: QuantizerSpec, calibration: Calibration, /
    ) -> nn.Module: ...


quantizers: Registry[Method] = Registry("quantizer", group="clipq.quantizers")
for _name in ("awq", "gptq", "quarot", "raana", "rtn", "smoothquant"):
    quantizers.register_lazy(_name, f"clipq.quant.{_name}:{_name}")


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
    if spec.is_reference:
        raise QuantizerError(
            f"{FP32!r} is the unquantized reference, not a quantizer",
            hint="use the model itself, or name a method such as rtn:w8a8",
        )
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


def method_code_hash(spec: QuantizerSpec | str) -> str:
    """Return the SHA-256 (hex) of the code behind a method, so that edits never reuse results.

    Hashed are every source file of `clipq.quant`, which any method may build upon, the file that
    defines the method, and the file of the option `table`, which changes results as code does. What
    the method's file imports from elsewhere is its author's to version.

    Raises:
        QuantizerError: the source or the table cannot be read.

    >>> method_code_hash("rtn:w8") == method_code_hash("rtn:w4@vision")  # one method, one code
    True
    """
    spec = QuantizerSpec.parse(spec)
    package = Path(__file__).parent
    sources = {path.resolve() for path in package.rglob("*.py")}
    own = _source_file(find_method(spec), spec.method).resolve()
    digest = hashlib.sha256()
    for path in [*sorted(sources), *([own] if own not in sources else [])]:
        content = path.read_bytes()
        digest.update(f"{path.name}:{len(content)}\n".encode() + content)
    table = dict(spec.options).get("table")
    if table is not None:
        try:
            digest.update(b"table:" + Path(table).read_bytes())
        except OSError as error:
            raise QuantizerError(
                f"the table of formats {table!r} cannot be read: {error}",
                hint="paths are relative to where clipq runs",
            ) from error
    return digest.hexdigest()


def is_builtin(method: Method) -> bool:
    """Whether a method is clipq's own.

    >>> is_builtin(find_method("rtn:w8")), is_builtin(print)  # anybody else's function
    (True, False)
    """
    return _defining_module(method).startswith("clipq.quant.")


def _defining_module(method: Any) -> str:
    while isinstance(method, functools.partial):
        method = method.func
    method = inspect.unwrap(method)
    return str(getattr(method, "__module__", None) or type(method).__module__)


def _source_file(method: Method, name: str) -> Path:
    module = sys.modules.get(_defining_module(method))
    path = getattr(module, "__file__", None)
    if path is None or not Path(path).is_file():
        raise QuantizerError(
            f"the source of quantizer method {name!r} (module {_defining_module(method)!r}) "
            "cannot be found, so its results could not be told from those of another edit",
            hint="define the method in a file",
        )
    return Path(path)
