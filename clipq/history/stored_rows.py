"""From rows to values: runs, whole records, results."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import replace
from types import NoneType
from typing import Any

import sqlalchemy as sa

from clipq.errors import RecordError, StoreError
from clipq.history.model import RunInfo, StoredResult
from clipq.history.schema import CODES, results, run_predictions, runs, verdict_of
from clipq.records import RunRecord
from clipq.shapes import Document, shown
from clipq.verdicts import POLICIES

__all__ = ["RESULT_COLUMNS", "as_result", "inflated", "run_infos", "select_runs", "verified"]

_FIX = "the store was altered or damaged: restore it from a backup"
_RECORD_BYTES = 1 << 30
_COMMIT = ("sha", "date", "subject", "branch", "dirty")
RESULT_COLUMNS = (
    results.c.verdict,
    results.c.observed,
    results.c.baseline,
    results.c.loss,
    results.c.margin,
    results.c.low,
    results.c.high,
    results.c.standard_error,
)


def select_runs() -> sa.Select[Any]:
    """Return the query for what `run_infos` reads, newest first; conditions may be added."""
    table_count = (
        sa.select(sa.func.count())
        .select_from(run_predictions)
        .where(run_predictions.c.run == runs.c.number)
        .scalar_subquery()
    )
    columns = [column for column in runs.c if column.name != "record"]
    return sa.select(*columns, table_count.label("predictions")).order_by(runs.c.number.desc())


def run_infos(connection: sa.Connection, query: sa.Select[Any]) -> tuple[RunInfo, ...]:
    """Return the runs that a query made from `select_runs` finds."""
    return tuple(_info(row._mapping) for row in connection.execute(query))


def _info(row: Any) -> RunInfo:
    """Return a row of `runs` as a value.

    Raises:
        StoreError: it holds what is never recorded.
    """
    where = f"run {shown(row['number'])} in the history store"
    document = Document(where, "JSON", StoreError, _FIX)
    same = ("id", "number", "started", "policy", "cases", "predictions", "planned", "recorded")
    values = {name: row[name] for name in same} | {"passed": bool(row["passed"])}
    values["commit"] = {n: row[f"commit_{n}"] for n in _COMMIT} if row["commit_sha"] else {}
    for name in ("counts", "environment", "remarks", "blocks"):
        if not isinstance(row[name], str):
            raise document.fail(name, f"it is {shown(row[name])}", "it must be a text")
        values[name] = document.parse(row[name].encode("utf-8", "surrogatepass"))
    found = document.shaped(values, RunInfo)
    if not found.blocks and found.policy not in POLICIES:
        raise document.fail("", f"policy = {shown(found.policy)} without what it blocks", "")
    counts = {verdict: found.counts[verdict] for verdict in CODES if verdict in found.counts}
    return replace(found, counts=counts)


def verified(content: bytes, run: RunInfo) -> RunRecord:
    """Return the record that was stored compressed as `content`.

    Raises:
        StoreError: it is not what was recorded under the run's id.
    """
    try:
        plain = inflated(content, _RECORD_BYTES)
        if hashlib.sha256(plain).hexdigest() != run.id:
            raise ValueError("it hashes to another id")
        return RunRecord.from_plain({"id": run.id, **json.loads(plain)})
    except (ValueError, TypeError, RecursionError, RecordError) as error:
        raise StoreError(
            f"the stored record of run #{run.number} ({run.id[:12]}) was altered or damaged: "
            f"{error}",
            hint="restore the store from a backup; its other runs can still be read",
        ) from error


def inflated(content: bytes, most: int) -> bytes:
    """Return what was compressed, of at most so many bytes.

    Raises:
        ValueError: it is damaged, or longer: a kilobyte can stand for a gigabyte.

    >>> inflated(zlib.compress(bytes(9)), 8)
    Traceback (most recent call last):
    ValueError: it has more than 8 bytes
    """
    if not isinstance(content, bytes):
        raise ValueError(f"it is {shown(content)}")
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(content, most + 1)
        if len(plain) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        plain += unpacker.flush()
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError("it is cut off")
    return plain


def as_result(row: Any, case: str, run: RunInfo) -> StoredResult:
    """Return a row of `RESULT_COLUMNS` as a value.

    Raises:
        StoreError: it holds what is never recorded.
    """
    verdict, *numbers = held = [getattr(row, column.name) for column in RESULT_COLUMNS]
    known = type(verdict) is int and 0 <= verdict < len(CODES)
    if not known or any(type(number) not in (float, int, NoneType) for number in numbers):
        values = ", ".join(map(shown, held))
        raise StoreError(f"the result of {case!r} in run #{run.number} holds {values}", hint=_FIX)
    return StoredResult(
        case=case,
        run=run,
        verdict=verdict_of(row.verdict),
        observed=row.observed,
        baseline=row.baseline,
        loss=row.loss,
        margin=row.margin,
        low=row.low,
        high=row.high,
        error=row.standard_error,
    )
