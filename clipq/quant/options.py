"""Options that every built-in post-training method takes, and how option texts are read.

| option | default | meaning |
|---|---|---|
| `range` | `minmax` | how static activation ranges are chosen, see `clipq.quant.ranges` |
| `wrange` | `minmax` | how weight ranges are chosen: `minmax` or `mse` |
| `bias` | `keep` | `correct`: shift biases by the mean output error (Nagel et al. 2019) |
| `include` | all layers | quantize only layers whose name matches one of these `+`-joined globs |
| `exclude` | none | leave these in float |
| `ends` | `quantized` | `float`: leave the first and the last layer of each tower in float |
| `table` | none | a TOML file of `"glob" = "format"` lines: per-layer formats, first match wins |
| `compute` | `simulated` | `integer`: run 8-bit layers as integer matrix products |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clipq.errors import QuantizerError, did_you_mean
from clipq.quant.spec import QuantizerSpec
from clipq.quant.weights import WEIGHT_RANGES

__all__ = ["COMMON", "SELECTION", "CommonOptions", "read_choice", "read_number"]

COMMON = ("range", "wrange", "bias", "include", "exclude", "ends", "table", "compute")
SELECTION = ("include", "exclude", "ends")
_RANGES = ("ema", "entropy", "minmax", "mse", "percentile")


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options above, read."""

    range: str = "minmax"
    weight_range: str = "minmax"
    correct_bias: bool = False
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    float_ends: bool = False
    table: str | None = None
    integer: bool = False

    @classmethod
    def read(cls, spec: QuantizerSpec) -> CommonOptions:
        """Read them from a quantizer's text.

        Raises:
            QuantizerError: a value is not among those allowed.
        """
        options = dict(spec.options)
        return cls(
            range=read_choice(spec, "range", _RANGES, "minmax"),
            weight_range=read_choice(spec, "wrange", WEIGHT_RANGES, "minmax"),
            correct_bias=read_choice(spec, "bias", ("correct", "keep"), "keep") == "correct",
            include=tuple(options.get("include", "*").split("+")),
            exclude=tuple(filter(None, options.get("exclude", "").split("+"))),
            float_ends=read_choice(spec, "ends", ("float", "quantized"), "quantized") == "float",
            table=options.get("table"),
            integer=read_choice(spec, "compute", ("integer", "simulated"), "simulated")
            == "integer",
        )


def read_choice(spec: QuantizerSpec, key: str, allowed: Iterable[str], default: str) -> str:
    """Return the value of an option with few values.

    Raises:
        QuantizerError: another value is given.
    """
    value = dict(spec.options).get(key, default)
    allowed = sorted(allowed)
    if value not in allowed:
        raise QuantizerError(
            f"option {key}={value!r} of quantizer {str(spec)!r} is unknown",
            hint=did_you_mean(value, allowed),
        )
    return value


def read_number(spec: QuantizerSpec, key: str, default: float, *, low: float, high: float) -> float:
    """Return the value of a numeric option within [low, high].

    Raises:
        QuantizerError: it is no number or lies outside.
    """
    text = dict(spec.options).get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise QuantizerError(
            f"option {key}={text!r} of quantizer {str(spec)!r} is no number from {low:g} to "
            f"{high:g}",
            hint=f"for example {key}={default:g}",
        )
    return value
