"""`clipq sweep query`, `export` and `status`: what a sweep has measured so far."""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.cli.sweep_folders import add_plan, folder_of, planned_sweep
from clipq.terminal import emit, say

if TYPE_CHECKING:
    from clipq.sweep.sweep_query import Answer

__all__ = [
    "EXPORT",
    "QUERY",
    "STATUS",
    "declare_export",
    "declare_query",
    "declare_status",
    "export",
    "query",
    "status",
]

QUERY = """\
Ask a sweep's results in SQL: one SELECT of DuckDB's dialect. The table `cells` has a row per unit
and case: model, quantizer, method, number_format, towers, seed, calibration_samples, probe, metric,
baseline, observed, loss, low, high, standard_error, verdict and more: SELECT * FROM cells LIMIT 1.
The statement reads the sweep's parts and nothing else.
"""
EXPORT = """\
Write all rows, sorted, into one file: .parquet or .csv. Parts can also be read as they are, by
whatever reads Parquet.
"""
STATUS = """\
Say how far a sweep is: units done, tried and left of each model, what they took, and what failed.
"""


def declare_query(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep query`."""
    add_plan(parser)
    parser.add_argument("sql", metavar="SELECT", help="one statement, quoted")
    forms = ("text", "markdown", "csv", "json")
    parser.add_argument("--format", choices=forms, default="text", help="default: text")


def declare_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep export`."""
    add_plan(parser)
    parser.add_argument("output", type=Path, metavar="FILE", help="that ends in .parquet or .csv")


def declare_status(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep status`."""
    add_plan(parser)


def query(options: argparse.Namespace) -> int:
    """Print what a statement says; return 0."""
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_query import query as asked

    emit(_shown(asked(PartStore(folder_of(options)), options.sql), options.format))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write all rows into one file; return 0."""
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_query import export as written

    rows = written(PartStore(folder_of(options)), options.output)
    say(f"written: {options.output}, {rows:,} rows")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print how far a sweep is; return 0."""
    from collections import Counter

    from tabulate import tabulate

    from clipq.sweep.attempts import Attempts
    from clipq.sweep.part_store import PartStore

    folder = folder_of(options)
    store, attempts = PartStore(folder), Attempts(folder / "attempts")
    planned: Counter[str] = Counter()
    done: Counter[str] = Counter()
    there = store.ids()
    for unit in planned_sweep(options).units():
        planned[unit.model] += 1
        done[unit.model] += unit.id in there
    rows = [(model, count, done[model], count - done[model]) for model, count in planned.items()]
    rows.append(("all", planned.total(), done.total(), planned.total() - done.total()))
    emit(tabulate(rows, headers=("model", "units", "done", "left")))
    emit(f"processor time so far: {attempts.seconds:,.0f} s")
    for attempt in attempts.reasons.values():
        reason = attempt.reason.splitlines()[0]
        emit(f"failed {attempts.failures[attempt.unit_id]} times: {attempt.name}: {reason}")
    return 0


def _shown(answer: Answer, form: str) -> str:
    if form == "json":
        plain = [dict(zip(answer.names, row, strict=True)) for row in answer.rows]
        return json.dumps(plain, indent=1, default=str)
    if form == "csv":
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([answer.names, *answer.rows])
        return stream.getvalue().rstrip("\n")
    from tabulate import tabulate

    table_format = "github" if form == "markdown" else "simple"
    return tabulate(answer.rows, headers=answer.names, tablefmt=table_format, missingval="")
