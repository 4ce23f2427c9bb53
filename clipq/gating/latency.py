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
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipq.errors import SettingsError, did_you_mean

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
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"latency file {path} cannot be read: {error}",
            hint='write device = "..." and a table [milliseconds] of "model/quantizer" = 3.1',
        ) from error
    device, table = document.pop("device", ""), document.pop("milliseconds", {})
    if document or not isinstance(device, str) or not device or not isinstance(table, dict):
        raise SettingsError(
            f"{path}: device = {device!r}, further keys: {', '.join(document) or 'none'}",
            hint='write device = "..." and a table [milliseconds], nothing else',
        )
    for pair, value in table.items():
        if pair not in pairs:
            raise SettingsError(f"{path}: unknown pair {pair!r}", hint=did_you_mean(pair, pairs))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise SettingsError(
                f"{path}: {pair!r} = {value!r}", hint="milliseconds per image, above 0"
            )
    return Latencies(device, {pair: float(value) for pair, value in table.items()})
