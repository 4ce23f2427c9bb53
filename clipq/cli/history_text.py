"""What the history commands print, as tables and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from clipq.history.model import PARTIAL, RunInfo, StoredResult, TrendTable
from clipq.history.sparkline import sparkline
from clipq.report.text import number_text
from clipq.terminal import one_line
from clipq.verdicts import POLICIES, Verdict

__all__ = [
    "commit_text",
    "is_partial",
    "result_plain",
    "run_plain",
    "run_text",
    "runs_text",
    "table_plain",
    "table_text",
    "trend_text",
]

_SHOWN = ("fail", "suspect", "inconclusive", "waived")
_OTHER = tuple(
    verdict.value
    for verdict in Verdict
    if POLICIES["release"].blocks(verdict) and verdict.value not in _SHOWN
)
_SUBJECT = 40


def commit_text(run: RunInfo) -> str:
    """Return a run's commit, marked where files differed from it."""
    if not run.commit:
        return "-"
    return one_line(str(run.commit["sha"])[:10]) + ("+changes" if run.commit["dirty"] else "")


def is_partial(run: RunInfo) -> bool:
    """Return whether a run was narrowed or ended before everything planned was reported."""
    return PARTIAL in run.remarks or run.cases < run.planned


def run_plain(run: RunInfo) -> dict[str, Any]:
    """Return a run as built-in types, ready for strict JSON."""
    return {
        "run": run.number,
        "id": run.id,
        "started": run.started,
        "recorded": run.recorded,
        "commit": dict(run.commit),
        "policy": run.policy,
        "passed": run.passed,
        "partial": is_partial(run),
        "cases": run.cases,
        "planned": run.planned,
        "counts": dict(run.counts),
        "environment": dict(run.environment),
        "remarks": dict(run.remarks),
        "predictions": run.predictions,
    }


def result_plain(result: StoredResult) -> dict[str, Any]:
    """Return a case's result in one run, likewise."""
    return {
        "case": result.case,
        "verdict": result.verdict.value,
        "observed": result.observed,
        "baseline": result.baseline,
        "loss": result.loss,
        "margin": result.margin,
        "low": result.low,
        "high": result.high,
        "standard_error": result.error,
    }


def runs_text(runs: Sequence[RunInfo]) -> str:
    """Return a table of runs."""
    rows = [
        (
            f"#{run.number}",
            run.id[:12],
            one_line(run.started),
            commit_text(run),
            one_line(str(run.commit.get("branch", ""))),
            run.policy,
            ("passed" if run.passed else "FAILED") + (", partial" if is_partial(run) else ""),
            run.cases,
            *(run.counts.get(name, "") for name in _SHOWN),
            sum(run.counts.get(name, 0) for name in _OTHER) or "",
            one_line(str(run.commit.get("subject", "")))[:_SUBJECT],
        )
        for run in runs
    ]
    first = ("run", "id", "started", "commit", "branch", "policy", "gate", "cases")
    headers = (*first, *_SHOWN, "other", "")
    return tabulate(rows, headers, disable_numparse=True)


def run_text(run: RunInfo, worst: Sequence[StoredResult]) -> str:
    """Return what a run was, and its worst cases."""
    counts = ", ".join(f"{number:,} {verdict}" for verdict, number in run.counts.items())
    facts = [
        ("run", f"#{run.number}  {run.id}"),
        ("gate", f"{'passed' if run.passed else 'FAILED'} under policy {run.policy}"),
        ("cases", f"{run.cases:,} of {run.planned:,} planned: {counts or 'none'}"),
        *((name, one_line(text)) for name, text in run.remarks.items()),
        ("started", f"{one_line(run.started) or '-'}, recorded {run.recorded}"),
        ("commit", f"{commit_text(run)} {one_line(str(run.commit.get('subject', '')))}".rstrip()),
        ("branch", one_line(str(run.commit.get("branch", ""))) or "-"),
        ("predictions", f"of {run.predictions:,} cells kept"),
        *((one_line(name), one_line(value)) for name, value in run.environment.items()),
    ]
    parts = [tabulate(facts, tablefmt="plain", disable_numparse=True)]
    if worst:
        rows = [(one_line(row.case), *_result_row(row)) for row in worst]
        headers = ("worst cases", "verdict", "FP32", "observed", "loss", "margin")
        parts.append(tabulate(rows, headers, disable_numparse=True))
    return "\n\n".join(parts)


def trend_text(rows: Sequence[StoredResult]) -> str:
    """Return one case over runs: a sparkline of its value, then a row per run, newest first."""
    table = [
        (
            f"#{row.run.number}",
            one_line(row.run.started),
            commit_text(row.run),
            *_result_row(row),
            one_line(str(row.run.commit.get("subject", "")))[:_SUBJECT],
        )
        for row in reversed(rows)
    ]
    headers = ("run", "started", "commit", "verdict", "FP32", "observed", "loss", "margin", "")
    line = sparkline([row.observed for row in rows])
    return f"{one_line(rows[0].case)}\nobserved {line}\n\n" + tabulate(
        table, headers, disable_numparse=True
    )


def table_text(table: TrendTable) -> str:
    """Return one line per case: the course of its value, the latest value and verdict."""
    rows = []
    for at, case in enumerate(table.cases):
        values = _values(table.observed[at])
        latest = int(table.verdicts[at][-1])
        rows.append(
            (
                one_line(case),
                sparkline(values),
                number_text(values[-1]),
                number_text(_values(table.loss[at])[-1]),
                table.units[at],
                "(not in the latest)" if latest < 0 else list(Verdict)[latest].value,
            )
        )
    headers = ("case", f"{len(table.runs)} runs", "latest", "loss", "unit", "verdict")
    return tabulate(rows, headers, disable_numparse=True)


def table_plain(table: TrendTable) -> dict[str, Any]:
    """Return the table as built-in types, ready for strict JSON."""
    verdicts = [verdict.value for verdict in Verdict]
    return {
        "runs": [run_plain(run) for run in table.runs],
        "cases": [
            {
                "case": case,
                "unit": table.units[at],
                "direction": table.directions[at],
                "margin": _values(table.margins[at : at + 1])[0],
                "observed": _values(table.observed[at]),
                "baseline": _values(table.baseline[at]),
                "loss": _values(table.loss[at]),
                "standard_error": _values(table.error[at]),
                "verdict": [None if v < 0 else verdicts[v] for v in table.verdicts[at].tolist()],
            }
            for at, case in enumerate(table.cases)
        ],
    }


def _result_row(row: StoredResult) -> tuple[str, ...]:
    numbers = (row.baseline, row.observed, row.loss, row.margin)
    return (row.verdict.value, *(number_text(value) for value in numbers))


def _values(row: Any) -> list[float | None]:
    return [None if math.isnan(value) else value for value in row.tolist()]
