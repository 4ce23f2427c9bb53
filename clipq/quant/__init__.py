"""Quantizers: number formats, methods, and the surgery that applies them to an open_clip model.

Names below the line load torch at first use; planning and `--collect-only` never do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clipq.quant.code_identity import MethodCode, method_code, method_code_hash
from clipq.quant.formats import ActivationFormat, Format, WeightFormat
from clipq.quant.methods import Calibration, Method, is_trained, method_version, quantizers
from clipq.quant.spec import QuantizerSpec, Towers

if TYPE_CHECKING:
    from clipq.quant.apply import Quantized, quantize
    from clipq.quant.coverage import Coverage

__all__ = [
    "ActivationFormat",
    "Calibration",
    "Coverage",
    "Format",
    "Method",
    "MethodCode",
    "Quantized",
    "QuantizerSpec",
    "Towers",
    "WeightFormat",
    "is_trained",
    "method_code",
    "method_code_hash",
    "method_version",
    "quantize",
    "quantizers",
]

_LAZY = {
    "Coverage": "clipq.quant.coverage",
    "Quantized": "clipq.quant.apply",
    "quantize": "clipq.quant.apply",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
