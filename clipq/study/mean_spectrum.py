"""Signal and residual of a configuration by rank: the mean over its seeds."""

from __future__ import annotations

from typing import Any

from clipq.study.calculable import calculable
from clipq.study.configurations import Configuration
from clipq.study.measurements import Measurements

__all__ = ["mean_spectrum"]


def mean_spectrum(measurements: Measurements, model: str, of: Configuration) -> dict[str, Any]:
    """Return ``rank``, ``signal`` and ``residual``, each a list; {} where none was kept.

    Mean square along FP32's directions, from the strongest (rank 1). Energies are averaged, not
    decibels: a seed with hardly any residual would outweigh all others there.

    Args:
        measurements: which have the spectra of some seeds.
        model: its name.
        of: the configuration.
    """
    held = measurements.drawn.get((model, of.text), {})
    kept = [held[seed].spectrum for seed in sorted(held) if held[seed].spectrum]
    alike = [each for each in kept if each["rank"] == kept[0]["rank"]]
    if not alike:
        return {}
    return {
        "rank": list(alike[0]["rank"]),
        "signal": _mean([each["signal"] for each in alike]),
        "residual": _mean([each["residual"] for each in alike]),
    }


def _mean(lists: list[list[float | None]]) -> list[float | None]:
    """Return the mean of each place; None where one of them has none."""
    found: list[float | None] = []
    for values in zip(*lists, strict=True):
        known = [value for value in map(calculable, values) if value is not None]
        whole = len(known) == len(values)
        found.append(float(f"{sum(known) / len(known):.5g}") if whole else None)
    return found
