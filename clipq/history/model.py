"""What a store tells of its runs: plain values, no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipq.estimate import Estimate
from clipq.records import severity
from clipq.verdicts import POLICIES, Policy, Verdict

__all__ = [
    "PARTIAL",
    "Pruned",
    "Recorded",
    "RunInfo",
    "StoredResult",
    "TrendTable",
]

PARTIAL = "part of the matrix"
"""The remark that says what a narrowed run measured."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One recorded run, without its cases.

    Args:
        id: of the run record (sha256, hex).
        number: position in the store, counted up from 1 in the order of recording.
        started: UTC, ISO 8601.
        commit: ``sha``, ``date``, ``subject``, ``branch``, ``dirty``; empty outside of git.
        policy: of the gate.
        passed: the gate's outcome.
        cases: how many.
        counts: cases per verdict.
        environment: the record's environments and versions, flattened to texts.
        predictions: cells whose per-sample predictions are kept.
        planned: cases that were collected.
        recorded: when the store took it; UTC, ISO 8601.
        remarks: what was odd about the run as a whole, one text per kind, such as `PARTIAL`.
        blocks: verdicts that fail a run under the policy; empty for the usual ones of its name.

    >>> run = RunInfo("0f" * 32, 12, "2026-01-31T04:00:00+00:00", {}, "ci", False, 2, {"fail": 2})
    >>> run.number, run.counts
    (12, {'fail': 2})
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
    planned: int = 0
    recorded: str = ""
    remarks: Mapping[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()

    @property
    def rule(self) -> Policy:
        """The policy, with the verdicts that block under it."""
        return Policy(self.policy, self.blocks) if self.blocks else POLICIES[self.policy]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a run that was handed to a store: `new` is False where it was there before.

    >>> run = RunInfo("0f" * 32, 12, "2026-01-31T04:00:00+00:00", {}, "ci", True, 2)
    >>> Recorded(run, new=False).run.number  # it was there before
    12
    """

    run: RunInfo
    new: bool


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One case in one run, in the metric's unit; None where a number does not exist.

    Args:
        case: its id.
        run: which it was measured in.
        verdict: the gate's.
        observed, baseline: values of the quantized model and of FP32.
        loss: positive = worse than FP32; `low` and `high` bound it, `error` is its standard error.
        margin: the one applied.

    >>> run = RunInfo("0f" * 32, 12, "2026-01-31T04:00:00+00:00", {}, "ci", True, 2)
    >>> numbers = {"observed": 0.89, "baseline": 0.9, "loss": 0.01, "margin": 0.02}
    >>> found = StoredResult("vit/rtn:w8/id.top1", run, Verdict.PASS, **numbers,
    ...                      low=0.0, high=0.015, error=0.002)
    >>> round(found.severity, 6)  # half a margin
    0.5
    """

    case: str
    run: RunInfo
    verdict: Verdict
    observed: float | None
    baseline: float | None
    loss: float | None
    margin: float | None
    low: float | None
    high: float | None
    error: float | None

    @property
    def severity(self) -> float:
        """How many margins the loss is worth; `clipq.records.severity` says what that means."""
        estimate = Estimate(loss=self.loss, margin=self.margin)
        return severity(self.verdict, self.baseline, estimate)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning removed, or would remove: runs, and the prediction tables only they had.

    >>> Pruned(runs=(), tables=0, table_bytes=0).table_bytes  # nothing was old enough
    0
    """

    runs: tuple[RunInfo, ...]
    tables: int
    table_bytes: int


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
