"""What a record says of a tuned logit scale, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipq.cases import Candidate

__all__ = ["tuning_of", "tuning_text"]


def tuning_of(candidate: Candidate, evidence: Mapping[str, Any]) -> str:
    """Return the line of a candidate's tuned logit scale; "" where none is tuned, or none is known.

    >>> tuning_of(Candidate("vit", "rtn:w8"), {})
    ''
    """
    entry = evidence.get("tunings", {}).get(str(candidate))
    return tuning_text(entry) if entry else ""


def tuning_text(entry: Mapping[str, Any]) -> str:
    """Return what a logit scale was and is, and what it was tuned on.

    Args:
        entry: of a record's evidence.

    >>> entry = {"scale_before": 42.13, "scale": 37.94, "bias_before": 0.0, "bias": 0.0,
    ...          "loss_before": 1.9824, "loss": 1.6842, "pairs": 1000, "proxy": "proxy"}
    >>> tuning_text(entry)
    "logit scale 42.1 -> 37.9, tuned on 1,000 pairs of 'proxy'"
    """
    said = f"logit scale {entry['scale_before']:.3g} -> {entry['scale']:.3g}"
    if entry["bias"] or entry["bias_before"]:
        said += f", bias {entry['bias_before']:.3g} -> {entry['bias']:.3g}"
    return f"{said}, tuned on {entry['pairs']:,} pairs of {entry['proxy']!r}"
