"""Rows of a store, held against the records that they were made of.

A run's id is the hash of its record; the rows beside it, which lists and trends read, are a copy.
Triggers refuse to change them, but whoever owns the database can drop a trigger. So what is about
to be shown is compared with the record: of that only the few fields which rows repeat are parsed.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from clipq.errors import StoreError
from clipq.history.model import RunInfo, StoredResult, TrendTable
from clipq.history.recording import environment_of, remarks_of
from clipq.history.schema import runs
from clipq.records import CaseResult, KernelResult, RunRecord
from clipq.verdicts import Verdict

__all__ = ["verify_results", "verify_runs", "verify_table"]

_NUMBERS = ("loss", "margin", "low", "high")


class _Numbers(msgspec.Struct):
    loss: float | None = None
    margin: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


class _Case(msgspec.Struct):
    case: str
    verdict: str
    estimate: _Numbers
    observed: float | None = None
    baseline: float | None = None


class _Evidence(msgspec.Struct):
    environments: dict[str, dict[str, Any]] = {}


class _Record(msgspec.Struct):
    started: str
    commit: dict[str, Any]
    policy: str
    blocks: list[str]
    passed: bool
    planned: int
    counts: dict[str, int]
    cases: list[_Case]
    versions: dict[str, str]
    evidence: _Evidence
    selection: dict[str, Any]
    unreported: list[str]
    problems: list[str]
    kernels: list[dict[str, str]]


def verify_runs(connection: sa.Connection, infos: Iterable[RunInfo]) -> None:
    """Refuse runs whose rows are not what their records say.

    Raises:
        StoreError: a row or a record was altered; the run is named.
    """
    for info in infos:
        _verified(connection, info)


def verify_results(connection: sa.Connection, results: Sequence[StoredResult]) -> None:
    """Refuse results, of any runs, that are not what their runs' records say.

    Raises:
        StoreError: likewise.
    """
    by_run: dict[str, list[StoredResult]] = {}
    for result in results:
        by_run.setdefault(result.run.id, []).append(result)
    for found in by_run.values():
        info = found[0].run
        cases = {case.case: case for case in _verified(connection, info).cases}
        for result in found:
            _same(info, result.case, _of_row(result), _of_record(cases.get(result.case)))


def verify_table(connection: sa.Connection, table: TrendTable) -> None:
    """Refuse a table of which a run, a value or a missing value is not what the records say.

    Raises:
        StoreError: likewise.
    """
    order = {verdict.value: number for number, verdict in enumerate(Verdict)}
    columns = (table.observed, table.baseline, table.loss, table.error)
    for at, info in enumerate(table.runs):
        cases = {case.case: case for case in _verified(connection, info).cases}
        verdicts = table.verdicts[:, at].tolist()
        values = zip(*(column[:, at].tolist() for column in columns), strict=True)
        for name, verdict, row in zip(table.cases, verdicts, values, strict=True):
            case = cases.get(name)
            if case is None:
                expected: tuple[object, ...] = (-1, None, None, None, None)
            else:
                own = case.estimate
                numbers = (case.observed, case.baseline, own.loss, own.standard_error)
                expected = (order[case.verdict], *numbers)
            shown = (verdict, *(None if math.isnan(value) else value for value in row))
            _same(info, name, shown, expected)


def _verified(connection: sa.Connection, info: RunInfo) -> _Record:
    """Return what rows repeat of a run's record, once its own row is as that says."""
    query = sa.select(runs.c.record).where(runs.c.id == info.id)
    content = connection.execute(query).scalar()
    try:
        plain = zlib.decompress(content or b"")
        if hashlib.sha256(plain).hexdigest() != info.id:
            raise ValueError("it hashes to another id")
        record = _parsed(plain)
    except (zlib.error, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise StoreError(
            f"the stored record of run #{info.number} ({info.id[:12]}) was altered or damaged: "
            f"{error}",
            hint="restore the store from a backup; its other runs can still be read",
        ) from error
    for name, expected in _row_of(record).items():
        _same(info, name, getattr(info, name), expected)
    return record


def _parsed(plain: bytes) -> _Record:
    try:
        return msgspec.json.decode(plain, type=_Record)
    except (
        msgspec.DecodeError
    ):  # a name that is no Unicode, which Python reads and msgspec does not
        return msgspec.convert(json.loads(plain), _Record)


def _row_of(record: _Record) -> dict[str, Any]:
    """Return what the row of a run must hold."""
    return {
        "started": record.started,
        "commit": record.commit if record.commit.get("sha") else {},
        "policy": record.policy,
        "blocks": tuple(record.blocks),
        "passed": record.passed,
        "cases": len(record.cases),
        "planned": record.planned,
        "counts": record.counts,
        "environment": environment_of(record.versions, record.evidence.environments),
        "remarks": remarks_of(_outline(record)),
    }


def _outline(record: _Record) -> RunRecord:
    """Return a record with as many cases as there are, and nothing known of them."""
    nothing = CaseResult.from_json(_ANY_CASE)
    return RunRecord(
        record.policy,
        record.planned,
        (nothing,) * len(record.cases),
        unreported=tuple(record.unreported),
        selection=record.selection,
        problems=tuple(record.problems),
        kernels=tuple(KernelResult(**row) for row in record.kernels),
        blocks=tuple(record.blocks),
    )


_ANY_CASE = (
    '{"model": "m", "quantizer": "fp32", "probe": "p", "metric": "m", "verdict": "pass", '
    '"estimate": {}}'
)


def _of_row(result: StoredResult) -> tuple[object, ...]:
    numbers = (getattr(result, name) for name in ("observed", "baseline", *_NUMBERS, "error"))
    return (result.verdict.value, *numbers)


def _of_record(case: _Case | None) -> tuple[object, ...]:
    if case is None:
        return ()
    own = case.estimate
    numbers = (getattr(own, name) for name in (*_NUMBERS, "standard_error"))
    return (case.verdict, case.observed, case.baseline, *numbers)


def _same(info: RunInfo, what: str, row: object, expected: object) -> None:
    if isinstance(row, Mapping):
        row = dict(row)
    if row != expected:
        raise StoreError(
            f"run #{info.number} ({info.id[:12]}) was altered in the store: {what} is {row}, its "
            f"record says {expected}",
            hint="restore the store from a backup, or record the run's report.json in another",
        )
