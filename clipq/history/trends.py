"""Cases over runs, read in bulk: 2.5 million rows in seconds, without an object per row.

SQLite hands over rows, which become arrays block by block. PostgreSQL packs each case's column into
one byte string itself: a quarter of the time that rows would take.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import sqlalchemy as sa

from clipq.errors import StoreError
from clipq.history.model import StoredResult, TrendTable
from clipq.history.recording import key_of
from clipq.history.schema import CODES, cases, results
from clipq.history.stored_rows import RESULT_COLUMNS, as_result, run_infos, select_runs
from clipq.verdicts import Verdict

__all__ = ["trend", "trend_table"]

_BLOCK = 2_000  # rows at a time: few enough to stay in the processor's cache
_VALUES = ("verdict", "observed", "baseline", "loss", "standard_error")
_ORDER = np.array([list(Verdict).index(Verdict(code)) for code in CODES], np.int8)


def trend(connection: sa.Connection, case: str) -> tuple[StoredResult, ...]:
    """Return one case over the runs that have it, oldest first; see `Store.trend`."""
    query = (
        sa.select(results.c.run, *RESULT_COLUMNS)
        .join(cases, cases.c.id == results.c.case_id)
        .where(cases.c.sha256 == key_of(case))
        .order_by(results.c.run)
    )
    rows = connection.execute(query).all()
    if not rows:
        raise _unknown(case, list(connection.execute(sa.select(cases.c.name)).scalars()))
    infos = {run.number: run for run in run_infos(connection, select_runs())}
    return tuple(as_result(row, case, infos[row.run]) for row in rows if row.run in infos)


def trend_table(
    connection: sa.Connection, patterns: Sequence[str], *, limit: int | None
) -> TrendTable:
    """Return the cases that match over the newest runs; see `Store.trend_table`."""
    infos = run_infos(connection, select_runs().limit(limit))[::-1]
    if not infos:
        raise StoreError(
            "the store is empty: no run was recorded yet",
            hint="record one with `clipq history record REPORT.json` or `clipq gate --record`",
        )
    every = connection.execute(
        sa.select(cases.c.id, cases.c.name, cases.c.unit, cases.c.direction)
    ).all()
    chosen = sorted((row for row in every if _matches(row.name, patterns)), key=lambda r: r.name)
    if not chosen:
        raise _unknown(" ".join(patterns), [row.name for row in every])
    ids = [row.id for row in chosen]
    first = infos[0].number
    row_of = _positions(ids)
    column_of = _positions([run.number for run in infos])
    values = {name: np.full((len(ids), len(infos)), np.nan) for name in _VALUES}
    wanted = None if len(ids) == len(every) else ids
    for block in _blocks(connection, wanted, first):
        at = row_of[block["case_id"]], column_of[block["run"]]
        for name in _VALUES:
            values[name][at] = block[name]
    codes = values["verdict"]
    absent = np.isnan(codes)
    verdicts = np.where(absent, -1, _ORDER[np.where(absent, 0, codes).astype(np.int64)])
    present = ~absent.all(axis=1)  # a case may have no run among the newest ones
    rows = [row for row, there in zip(chosen, present, strict=True) if there]
    return TrendTable(
        runs=infos,
        cases=tuple(row.name for row in rows),
        units=tuple(row.unit for row in rows),
        directions=tuple(row.direction for row in rows),
        margins=_margins(connection, ids, row_of, first)[present],
        observed=values["observed"][present],
        baseline=values["baseline"][present],
        loss=values["loss"][present],
        error=values["standard_error"][present],
        verdicts=verdicts[present].astype(np.int8),
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _unknown(case: str, known: Sequence[str]) -> StoreError:
    close = difflib.get_close_matches(case, known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    return StoreError(
        f"no recorded run has the case {case!r}",
        hint=f"{meant}a case is MODEL/QUANTIZER/PROBE.METRIC; `clipq history trend '*'` lists all "
        f"{len(known)} of them",
    )


def _positions(numbers: Sequence[int]) -> np.ndarray:
    """Return an array that maps each of `numbers` to its place among them."""
    places = np.zeros(max(numbers) + 1, np.int64)
    places[list(numbers)] = np.arange(len(numbers))
    return places


def _blocks(
    connection: sa.Connection, ids: list[int] | None, first: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield columns of the results from run `first` on, of the cases `ids` or of all."""
    of = _rows if connection.dialect.name == "sqlite" else _packed
    if ids is None:
        yield from of(connection, first, sa.true())
        return
    for start in range(0, len(ids), 500):  # an index look-up per case, not one look at all rows
        part = ids[start : start + 500]
        yield from of(connection, first, results.c.case_id.in_(part))


def _rows(
    connection: sa.Connection, first: int, condition: sa.ColumnElement[bool]
) -> Iterator[dict[str, np.ndarray]]:
    columns = (results.c.case_id, results.c.run, *(results.c[name] for name in _VALUES))
    query = sa.select(*columns).where(condition, results.c.run >= first)
    text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
    driver: Any = connection.connection.driver_connection
    cursor = driver.execute(text)
    while rows := cursor.fetchmany(_BLOCK):
        columns_of_block = np.array(rows, np.float64).T  # None becomes NaN; ids are exact
        case_id, run = columns_of_block[:2].astype(np.int64)
        block = dict(zip(_VALUES, columns_of_block[2:], strict=True))
        yield block | {"case_id": case_id, "run": run}


def _packed(
    connection: sa.Connection, first: int, condition: sa.ColumnElement[bool]
) -> Iterator[dict[str, np.ndarray]]:
    nothing = sa.cast(sa.literal("NaN"), sa.Double)

    def packed(column: sa.ColumnElement[Any], send: str) -> sa.ColumnElement[Any]:
        sent = getattr(sa.func, send)(column)
        return sa.func.string_agg(sent, sa.literal(b"", sa.LargeBinary))

    query = (
        sa.select(
            results.c.case_id,
            packed(results.c.run, "int4send"),
            packed(sa.cast(results.c.verdict, sa.Double), "float8send"),
            *(
                packed(sa.func.coalesce(results.c[name], nothing), "float8send")
                for name in _VALUES[1:]
            ),
        )
        .where(condition, results.c.run >= first)
        .group_by(results.c.case_id)
    )
    for case_id, run, *values in connection.execute(query):
        numbers = np.frombuffer(run, ">i4")
        block = {name: np.frombuffer(v, ">f8") for name, v in zip(_VALUES, values, strict=True)}
        yield block | {"case_id": np.full(len(numbers), case_id), "run": numbers}


def _margins(
    connection: sa.Connection, ids: list[int], row_of: np.ndarray, first: int
) -> np.ndarray:
    latest = (
        sa.select(results.c.margin)
        .where(results.c.case_id == cases.c.id, results.c.run >= first)
        .where(results.c.margin.is_not(None))
        .order_by(results.c.run.desc())
        .limit(1)
        .scalar_subquery()
    )
    margins = np.full(len(ids), np.nan)
    wanted = set(ids)
    for case_id, margin in connection.execute(sa.select(cases.c.id, latest)):
        if case_id in wanted and margin is not None:
            margins[row_of[case_id]] = margin
    return margins
