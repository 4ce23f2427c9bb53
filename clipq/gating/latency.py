"""Latencies measured where the model is deployed, for reports to set against reliability.

A simulated quantizer's own time says nothing of the kernels that will run, so clipq measures none:
the file that `latency` in clipq.toml names holds what was measured elsewhere.

    device = "Jetson Orin, batch 1"
    [milliseconds]
    "vit-b-32/rtn:w8a8" = 3.1
    "vit-b-32/fp32" = 7.9
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Required

from clipq.errors import SettingsError, did_you_mean
from clipq.shapes import Document, Text, between, table

__all__ = ["Latencies", "load_latencies"]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds per ``model/quantizer``, and the device that they were measured on."""

    device: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    def evidence(self, pair: str) -> dict[str, float | str]:
        """Return what a record says of a pair; {} where nothing was measured."""
        if pair not in self.milliseconds:
            return {}
        return {"milliseconds": self.milliseconds[pair], "measured_on": self.device}


_IMAGE = between(0.0, math.inf, "milliseconds per image,")
_FILE = table(
    "latencies",
    {
        "device": Required[Text],
        "milliseconds": Required[Mapping[str, Annotated[float, _IMAGE]]],
    },
)


def load_latencies(path: Path | None, pairs: Collection[str]) -> Latencies:
    """Read a latency file; none is no file.

    Args:
        path: of the file; None where the settings name none.
        pairs: every ``model/quantizer`` of the matrix, and ``model/fp32``.

    Raises:
        SettingsError: it is missing or malformed, or names a pair that the matrix lacks.
    """
    if path is None:
        return Latencies()
    fix = 'write device = "..." and a table [milliseconds] of "model/quantizer" = 3.1'
    document = Document(path, "TOML", SettingsError, fix)
    found = Latencies(**document.read(_FILE))
    for pair in found.milliseconds:
        if pair not in pairs:
            raise document.fail("milliseconds", f"unknown pair {pair!r}", did_you_mean(pair, pairs))
    return found
