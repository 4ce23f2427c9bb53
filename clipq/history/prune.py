"""Removing runs, the only thing in a store that ever goes."""

from __future__ import annotations

from datetime import date

import sqlalchemy as sa

from clipq.errors import StoreError
from clipq.history.model import Pruned, RunInfo
from clipq.history.schema import blobs, cases, results, run_predictions, runs
from clipq.history.stored_rows import run_infos, select_runs

__all__ = ["prune"]


def prune(
    connection: sa.Connection, *, keep: int | None, before: date | None, dry_run: bool
) -> Pruned:
    """Remove runs within the connection's transaction, or say what would go.

    A run goes if it is not among the `keep` newest and started before `before`, where given.
    """
    if keep is None and before is None:
        raise StoreError(
            "pruning without saying what", hint="--keep N, --before YYYY-MM-DD, or both"
        )
    if keep is not None and keep < 1:
        raise StoreError(f"--keep {keep}", hint="keep at least 1 run")
    older = run_infos(connection, select_runs())[keep or 0 :]
    going = [run for run in older if before is None or _day(run) < before.isoformat()]
    numbers = [run.number for run in going]
    of_going = sa.select(run_predictions.c.sha256).where(run_predictions.c.run.in_(numbers))
    of_remaining = sa.select(run_predictions.c.sha256).where(run_predictions.c.run.not_in(numbers))
    orphans = sa.select(blobs.c.sha256, blobs.c.size).where(
        blobs.c.sha256.in_(of_going), blobs.c.sha256.not_in(of_remaining)
    )
    freed = connection.execute(orphans).all()
    if not dry_run and numbers:
        connection.execute(sa.delete(run_predictions).where(run_predictions.c.run.in_(numbers)))
        for row in freed:
            connection.execute(sa.delete(blobs).where(blobs.c.sha256 == row.sha256))
        connection.execute(sa.delete(results).where(results.c.run.in_(numbers)))
        connection.execute(sa.delete(runs).where(runs.c.number.in_(numbers)))
        left = sa.exists().where(results.c.case_id == cases.c.id)
        connection.execute(sa.delete(cases).where(~left))
    return Pruned(tuple(going), len(freed), sum(row.size for row in freed))


def _day(run: RunInfo) -> str:
    return (run.started or run.recorded)[:10]
