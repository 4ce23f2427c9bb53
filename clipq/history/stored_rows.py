"""From rows to values: runs, whole records, results."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import sqlalchemy as sa

from clipq.errors import RecordError, StoreError
from clipq.history.model import RunInfo, StoredResult
from clipq.history.schema import CODES, results, run_predictions, runs, verdict_of
from clipq.records import RunRecord

__all__ = ["RESULT_COLUMNS", "as_result", "run_infos", "select_runs", "verified"]

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
    commit = {name: row[f"commit_{name}"] for name in _COMMIT} if row["commit_sha"] else {}
    counts = json.loads(row["counts"])
    return RunInfo(
        id=row["id"],
        number=row["number"],
        started=row["started"],
        commit=commit,
        policy=row["policy"],
        passed=row["passed"],
        cases=row["cases"],
        counts={verdict: counts[verdict] for verdict in CODES if verdict in counts},
        environment=json.loads(row["environment"]),
        predictions=row["predictions"],
        planned=row["planned"],
        recorded=row["recorded"],
        remarks=json.loads(row["remarks"]),
        blocks=tuple(json.loads(row["blocks"])),
    )


def verified(content: bytes, run: RunInfo) -> RunRecord:
    """Return the record that was stored compressed as `content`.

    Raises:
        StoreError: it is not what was recorded under the run's id.
    """
    try:
        plain = zlib.decompress(content)
        if hashlib.sha256(plain).hexdigest() != run.id:
            raise ValueError("it hashes to another id")
        return RunRecord.from_plain({"id": run.id, **json.loads(plain)})
    except (zlib.error, ValueError, RecordError) as error:
        raise StoreError(
            f"the stored record of run #{run.number} ({run.id[:12]}) was altered or damaged: "
            f"{error}",
            hint="restore the store from a backup; its other runs can still be read",
        ) from error


def as_result(row: Any, case: str, run: RunInfo) -> StoredResult:
    """Return a row of `RESULT_COLUMNS` as a value."""
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
