"""Run records of a few cases, for tests and for the processes that they start."""

from __future__ import annotations

from clipq.cases import Cell
from clipq.estimate import Estimate
from clipq.records import CaseResult, RunRecord, sort_cases
from clipq.verdicts import Verdict

__all__ = ["small_run"]


def small_run(
    index: int = 0,
    *,
    value: float = 0.9,
    verdict: Verdict = Verdict.PASS,
    cases: int = 4,
    branch: str = "main",
    policy: str = "ci",
) -> RunRecord:
    """Return a record of a few cases; day and commit follow from `index`."""
    found = [
        CaseResult(
            Cell(f"vit-{number}", "rtn:w4", "id").case("top1"), verdict,
            unit="fraction", direction="higher", metric_version=1, samples=100, baseline=0.95,
            observed=value - 0.01 * number,
            estimate=Estimate(
                loss=0.95 - value + 0.01 * number, margin=0.02, low=0.0, high=0.1,
                standard_error=0.01,
            ),
        )
        for number in range(cases)
    ]  # fmt: skip
    return RunRecord(
        policy=policy,
        planned=cases,
        cases=sort_cases(found),
        versions={"torch": "2.15.0", "clipq": "0.1.0"},
        timings={"seconds": float(index)},
        started=f"2025-{index // 28 + 1:02}-{index % 28 + 1:02}T12:00:00Z",
        commit={
            "sha": f"{index + 1:x}".rjust(6, "0").ljust(40, "a"),
            "date": f"2025-01-{index % 28 + 1:02}T11:00:00+00:00",
            "subject": f"change {index}",
            "branch": branch,
            "dirty": False,
        },
    )
