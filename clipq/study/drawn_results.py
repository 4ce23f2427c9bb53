"""What was measured of a configuration with one seed, and what a sweep's unit says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipq.records import CaseResult

__all__ = ["DrawnResults", "MeasuredUnit"]


@dataclass(frozen=True, slots=True)
class MeasuredUnit:
    """A unit of a sweep, as `clipq.study.gather` takes it: a record of one candidate.

    Args:
        id: of the unit.
        cases: their results.
        shared: evidence of them all, by kind.
        samples: of the calibration split that the quantizer saw; 0 for all of them.
        seed: which of them.

    >>> MeasuredUnit("0f", (), {}, samples=64, seed=3).suffix
    ' (calibration: 64 samples, seed 3)'
    """

    id: str
    cases: tuple[CaseResult, ...]
    shared: Mapping[str, Mapping[str, Any]]
    samples: int = 0
    seed: int = 0

    @property
    def suffix(self) -> str:
        """What its cases' ids end in, so that other draws' ids differ."""
        return f" (calibration: {self.samples} samples, seed {self.seed})" if self.samples else ""

    def evidence(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the evidence of all cases."""
        return self.shared


@dataclass(slots=True)
class DrawnResults:
    """The results of a candidate, and what is known of it.

    Args:
        quantizer: its text.
        suffix: of the ids of its cases.
        unit: of the sweep, by its id; "" where a run's record is all there is.
        results: by probe and metric.
        units: of the results that a unit holds, its id; a record may hold more of them.
        facts: of the quantizer: ``weight_bits``, ``bytes``, ``trained`` and so on.
        spectrum: signal and residual by rank, in distribution; empty where it was not kept.
    """

    quantizer: str
    suffix: str = ""
    unit: str = ""
    results: dict[tuple[str, str], CaseResult] = field(default_factory=dict)
    units: dict[tuple[str, str], str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    spectrum: Mapping[str, Any] = field(default_factory=dict)
