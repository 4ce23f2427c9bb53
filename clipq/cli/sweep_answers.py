"""`clipq sweep query`, `export`, `compact` and `status`: what a sweep has measured so far."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.cli.sweep_folders import (
    add_folder,
    add_plan,
    folder_of,
    no_such_sweep,
    planned_sweep,
    store_of,
)
from clipq.terminal import emit, one_line, say

if TYPE_CHECKING:
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_query import Answer

__all__ = [
    "COMPACT",
    "EXPORT",
    "QUERY",
    "STATUS",
    "compact",
    "declare_compact",
    "declare_export",
    "declare_query",
    "declare_status",
    "export",
    "query",
    "shown",
    "status",
]

QUERY = """\
Ask a sweep's results in SQL: one SELECT of DuckDB's dialect. The table `cells` has a row per unit
and case: model, quantizer, method, number_format, towers, seed, calibration_samples, probe, metric,
baseline, observed, loss, low, high, standard_error, verdict and more: SELECT * FROM cells LIMIT 1.
The table `units` has a row per unit that is done, with its `evidence` as JSON, and `attempts` one
for each time that a unit was tried: unit_id, model, method, seconds, gpu_seconds, reason.
The statement reads the sweep's parts and attempts and nothing else.
"""
EXPORT = """\
Write all rows, sorted, into one file: .parquet or .csv. Parts can also be read as they are, by
whatever reads Parquet.
"""
COMPACT = """\
Put the parts of units that are done into few large files: smaller, and quicker to ask. Nothing is
lost or measured again, whatever ends the command; more units come into the same files later. A
sweep that is being run is left alone.
"""
STATUS = """\
Say how far a sweep is: units done, tried and left of each model, what they took, and what failed.
"""


def declare_query(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep query`."""
    add_folder(parser)
    parser.add_argument("sql", metavar="SELECT", help="one statement, quoted")
    forms = ("text", "markdown", "csv", "json")
    parser.add_argument("--format", choices=forms, default="text", help="default: text")


def declare_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep export`."""
    add_folder(parser)
    parser.add_argument("output", type=Path, metavar="FILE", help="that ends in .parquet or .csv")


def declare_compact(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep compact`."""
    add_folder(parser)


def declare_status(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clipq sweep status`."""
    add_plan(parser)


def query(options: argparse.Namespace) -> int:
    """Print what a statement says; return 0."""
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_query import query as asked

    folder, store = folder_of(options), PartStore(store_of(options))
    _needs_a_sweep(folder, store)
    answer = asked(store, options.sql, attempts=folder / "attempts")
    emit(shown(answer, options.format))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write all rows into one file; return 0."""
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_query import export as written

    store = PartStore(store_of(options))
    _needs_a_sweep(folder_of(options), store)
    rows = written(store, options.output)
    say(f"written: {options.output}, {rows:,} rows")
    return 0


def compact(options: argparse.Namespace) -> int:
    """Put parts into few large files; return 0."""
    from clipq.sweep.compaction import compact as compacted
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.sweep_folder import claimed

    folder, store = folder_of(options), PartStore(store_of(options))
    _needs_a_sweep(folder, store, locked=True)
    with claimed(folder):
        say(f"{folder}: {compacted(store)}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print how far a sweep is; return 0."""
    from collections import Counter

    from tabulate import tabulate

    sweep, folder = planned_sweep(options.plan), folder_of(options)
    from clipq.sweep.attempts import Attempts
    from clipq.sweep.part_store import PartStore
    from clipq.sweep.thrifty_run import read_dropped

    store, attempts = PartStore(store_of(options)), Attempts(folder / "attempts")
    planned: Counter[str] = Counter()
    done: Counter[str] = Counter()
    there = store.ids()
    for unit in sweep.units():
        planned[unit.model] += 1
        done[unit.model] += unit.id in there
    rows = [(model, count, done[model], count - done[model]) for model, count in planned.items()]
    rows.append(("all", planned.total(), done.total(), planned.total() - done.total()))
    emit(tabulate(rows, headers=("model", "units", "done", "left")))
    emit(
        f"processor time so far: {attempts.seconds:,.0f} s; not in it: what was under way when a "
        "run was ended, and the start of processes"
    )
    gone = sum(one.unit_id not in there for one in read_dropped(folder))
    if gone and sweep.plan.thrift is not None:
        emit(f"dropped by thrift, of what is left: {gone:,}: {folder}/thrift.jsonl")
    for attempt in attempts.reasons.values():
        reason = attempt.reason.splitlines()[0]
        emit(f"failed {attempts.failures[attempt.unit_id]} times: {attempt.name}: {reason}")
    return 0


def _needs_a_sweep(folder: Path, store: PartStore, *, locked: bool = False) -> None:
    """Refuse a folder that no sweep ever began in, unless its parts are in another store."""
    if (locked and not folder.is_dir()) or not ((folder / "sweep.json").exists() or store.ids()):
        raise no_such_sweep(f"there is no sweep in {folder}", folder)


def shown(answer: Answer, form: str) -> str:
    """Return an answer as text.

    Args:
        answer: of a query.
        form: ``text``, ``markdown``, ``csv`` or ``json``: strict, what is not finite is null there.

    Raises:
        SweepError: as JSON, two columns have one name.
    """
    if form == "json":
        return _json(answer)
    if form == "csv":
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([answer.names, *answer.rows])
        return stream.getvalue().rstrip("\n")
    from tabulate import tabulate

    escaped = "\\|" if form == "markdown" else "|"
    rows = [
        [one_line(each).replace("|", escaped) if type(each) is str else each for each in row]
        for row in answer.rows
    ]
    texts = [  # which are no numbers, though some look like one: 12e3
        at for at in range(len(answer.names)) if any(type(row[at]) is str for row in rows)
    ]
    return tabulate(
        rows,
        headers=[one_line(name).replace("|", escaped) for name in answer.names],
        tablefmt="github" if form == "markdown" else "simple",
        missingval="",
        disable_numparse=texts,
    )


def _json(answer: Answer) -> str:
    from clipq.errors import SweepError

    for name in answer.names:
        if (count := answer.names.count(name)) > 1:
            raise SweepError(
                f"{count} columns are called {name!r}: JSON keeps one of a name",
                hint=f"give them names: SELECT ... AS {name}_2",
            )
    plain = [
        {name: _plain(value) for name, value in zip(answer.names, row, strict=True)}
        for row in answer.rows
    ]
    return json.dumps(plain, indent=1, default=str, allow_nan=False)


def _plain(value: object) -> object:
    """Return a value of DuckDB as strict JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
