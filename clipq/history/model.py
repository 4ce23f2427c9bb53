"""What a store tells of its runs: plain values, no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["RunInfo", "TrendTable"]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One recorded run, without its cases.

    Args:
        id: of the run record (sha256, hex).
        number: position in the store, counted up from 1 in the order of recording.
        started: UTC, ISO 8601.
        commit: ``sha``, ``date``, ``subject``, ``branch``, ``dirty``; empty outside of a repository.
        policy: of the gate.
        passed: the gate's outcome.
        cases: how many.
        counts: cases per verdict.
        environment: the record's environments and versions, flattened to texts.
        predictions: cells whose per-sample predictions are kept.
    """

    id: str
    number: int
    started: str
    commit: Mapping[str, Any]
    policy: str
    passed: bool
    cases: int
    counts: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    predictions: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrendTable:
    """Cases over runs: what trend pages and step detection read.

    Args:
        runs: oldest first (R).
        cases: ids, sorted (C).
        units: per case.
        directions: per case: ``lower``, ``higher`` or ``zero``.
        margins: per case, of the latest run that has it; NaN where it has none (C,).
        observed: float64 (C, R); NaN where a run lacks the case or its value.
        baseline: FP32's value, likewise.
        loss: positive = worse than FP32, likewise.
        error: standard error of the loss, likewise; NaN where nothing was resampled.
        verdicts: int8 (C, R): index into `clipq.records.Verdict` in its order, -1 where absent.
    """

    runs: tuple[RunInfo, ...]
    cases: tuple[str, ...]
    units: tuple[str, ...]
    directions: tuple[str, ...]
    margins: np.ndarray
    observed: np.ndarray
    baseline: np.ndarray
    loss: np.ndarray
    error: np.ndarray
    verdicts: np.ndarray
