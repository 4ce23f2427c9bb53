"""What a configuration costs: bits, bytes, time per image where known, time to measure it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clipq.study.calculable import calculable
from clipq.study.configurations import Configuration
from clipq.study.measurements import Measurements

__all__ = ["COSTS", "costs_of"]

COSTS = (
    {"key": "bytes", "title": "size of both towers", "unit": "bytes"},
    {"key": "weight-bits", "title": "bits per quantized weight, scales included", "unit": "bits"},
    {"key": "nominal-bits", "title": "bits of weights, by the format's name", "unit": "bits"},
    {"key": "activation-bits", "title": "bits of activations, by the format's name",
     "unit": "bits"},
    {"key": "milliseconds", "title": "time per image where it is deployed", "unit": "ms"},
    {"key": "unit-seconds", "title": "processor time to measure (and train) a unit",
     "unit": "s"},
)  # fmt: skip
"""Costs that a document may hold; lower is better of each.

Only the first tells a whole model from one of which a tower is left in float.
"""

_WEIGHT = re.compile(r"w(\d+)")
_FLOAT_BITS = 32.0


def costs_of(
    measurements: Measurements,
    model: str,
    of: Configuration,
    *,
    seconds: Mapping[str, float],
    milliseconds: Mapping[str, float],
) -> dict[str, float | None]:
    """Return each cost of `COSTS`, the mean over seeds; None where it is not known.

    Args:
        measurements: which hold what records say of quantizers.
        model: its name.
        of: the configuration.
        seconds: processor seconds of units, by id.
        milliseconds: per image, by ``model/quantizer``.
    """
    held = list(measurements.drawn.get((model, of.text), {}).values())
    named = _WEIGHT.match(of.bits)
    facts = [each.facts for each in held]
    times = [milliseconds.get(f"{model}/{each.quantizer}") for each in held]
    return {
        "weight-bits": _mean([each.get("weight_bits") for each in facts]),
        "nominal-bits": float(named[1]) if named else None,
        "activation-bits": float(of.activation_bits or _FLOAT_BITS) if of.bits else None,
        "bytes": _mean([each.get("bytes") for each in facts]),
        "milliseconds": _mean(
            [t or each.get("milliseconds") for t, each in zip(times, facts, strict=True)]
        ),
        "unit-seconds": _mean([seconds.get(each.unit) for each in held]),
    }


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in map(calculable, values) if value is not None]
    return float(f"{sum(known) / len(known):.6g}") if known else None
