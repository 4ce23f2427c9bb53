"""Latencies measured where the model is deployed, for reports to set against reliability.

A simulated quantizer's own time says nothing of the kernels that will run, so a gate measures none:
the file that `latency` in clipq.toml names holds what was measured elsewhere, of quantizers and of
artifacts. Where it holds FP32's time of a model as well, reports show ratios.

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

from clipq.cases import Candidate
from clipq.errors import SettingsError, did_you_mean
from clipq.shapes import Document, Text, between, table

__all__ = ["Latencies", "load_latencies"]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds per ``model/quantizer``, and the device that they were measured on.

    >>> measured = Latencies("laptop, batch 1", {"vit/ort-int8": 2.0, "vit/fp32": 8.0})
    >>> measured.evidence("vit/ort-int8")["ratio_to_fp32"]
    0.25
    """

    device: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    def evidence(self, pair: str) -> dict[str, float | str]:
        """Return what a record says of a pair; {} where nothing was measured.

        ``ratio_to_fp32`` where FP32 was measured beside it.
        """
        if pair not in self.milliseconds:
            return {}
        measured = self.milliseconds[pair]
        said: dict[str, float | str] = {"milliseconds": measured, "measured_on": self.device}
        beside = self.milliseconds.get(str(Candidate.parse(pair).reference))
        return said if beside is None else said | {"ratio_to_fp32": measured / beside}


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
        pairs: every ``model/quantizer`` of the matrix, artifacts among them, and ``model/fp32``.

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
