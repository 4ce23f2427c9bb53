"""From a run record to rows: everything a store writes about one run."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from clipq.errors import RecordError
from clipq.history.model import PARTIAL
from clipq.history.schema import blobs, cases, code_of, results, run_predictions, runs
from clipq.provenance import canonical_json
from clipq.records import CaseResult, RunRecord

__all__ = [
    "Prepared",
    "environment_of",
    "insert",
    "key_of",
    "prepare",
    "remarks_of",
    "with_tables",
]

_BLOCK = 2000  # rows per statement


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run ready to be written, so that nothing is computed while other writers wait.

    Args:
        id: of the run.
        run: values of its row, its number apart.
        cases: of the record.
        tables: (cell, sha256, size in bytes, compressed content or None where it is stored).
    """

    id: str
    run: Mapping[str, Any]
    cases: tuple[CaseResult, ...]
    tables: tuple[tuple[str, str, int, bytes | None], ...] = ()


def key_of(case: str) -> str:
    """Return what a case is found by: the sha256 (hex) of its id."""
    return hashlib.sha256(case.encode("utf-8", "surrogatepass")).hexdigest()


def prepare(record: RunRecord, *, now: datetime) -> Prepared:
    """Return a record's rows. What is stored is its canonical JSON, whose sha256 is the run's id.

    Raises:
        RecordError: a case twice, a number that JSON does not have, or half of a character.
    """
    try:
        plain = record.to_plain()
        identity = plain.pop("id")
        content = canonical_json(plain).encode("ascii")
        if b"\\ud" in content:
            json.dumps(plain, ensure_ascii=False).encode()  # not with half of a character
    except ValueError as error:
        raise RecordError(
            f"a run record that is no strict JSON: {error}",
            hint="numbers that are not finite are None in a record (see `clipq.estimate.number`), "
            "texts are of whole characters",
        ) from error
    _refuse_twins(record.cases)
    commit = record.commit
    row = {
        "id": identity,
        "started": record.started,
        "recorded": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "commit_sha": str(commit.get("sha", "")),
        "commit_date": str(commit.get("date", "")),
        "commit_subject": str(commit.get("subject", "")),
        "commit_branch": str(commit.get("branch", "")),
        "commit_dirty": bool(commit.get("dirty", False)),
        "policy": record.policy,
        "blocks": canonical_json(list(record.blocks)),
        "passed": record.passed,
        "cases": len(record.cases),
        "planned": record.planned,
        "counts": canonical_json(record.counts),
        "environment": canonical_json(
            environment_of(record.versions, record.evidence().get("environments", {}))
        ),
        "remarks": canonical_json(remarks_of(record)),
        "record": zlib.compress(content),
    }
    return Prepared(identity, row, record.cases)


def insert(connection: sa.Connection, prepared: Prepared, tables: Mapping[str, bytes]) -> int:
    """Write a run within the connection's transaction; return its number."""
    inserted = connection.execute(sa.insert(runs).values(**prepared.run))
    number = int(inserted.inserted_primary_key[0])  # type: ignore[index]
    ids = _case_ids(connection, prepared.cases)
    rows: list[dict[str, Any]] = [
        {
            "case_id": ids[key_of(case.id)],
            "run": number,
            "verdict": code_of(case.verdict),
            "observed": case.observed,
            "baseline": case.baseline,
            "loss": case.estimate.loss,
            "margin": case.estimate.margin,
            "low": case.estimate.low,
            "high": case.estimate.high,
            "standard_error": case.estimate.standard_error,
        }
        for case in prepared.cases
    ]
    rows.sort(key=lambda row: row["case_id"])  # in the order of the key
    _insert_many(connection, results, rows)
    _insert_tables(connection, prepared, number, tables)
    return number


def _refuse_twins(case_results: Sequence[CaseResult]) -> None:
    seen: set[str] = set()
    for case in case_results:
        if case.id in seen:
            raise RecordError(
                f"a run record that has the case {case.id!r} twice",
                hint="a run judges each case once; run the gate again",
            )
        seen.add(case.id)


def environment_of(
    versions: Mapping[str, str], environments: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return versions and environments as one text per name; several values are listed."""
    by_name: dict[str, set[str]] = {}
    for entries in (versions, *environments.values()):
        for name, value in entries.items():
            by_name.setdefault(str(name), set()).add(str(value))
    return {name: ", ".join(sorted(values)) for name, values in sorted(by_name.items())}


def remarks_of(record: RunRecord) -> dict[str, str]:
    """Return what was odd about the run as a whole, as one text per kind; {} if nothing was."""
    remarks = {
        PARTIAL if record.narrowed else "profile": record.partial,
        "problems": "; ".join(record.problems),
        "failed kernel checks": ", ".join(row.id for row in record.broken_kernels),
    }
    return {name: text for name, text in remarks.items() if text}


def _case_ids(connection: sa.Connection, case_results: Sequence[CaseResult]) -> dict[str, int]:
    """Return each case's number by its key; new cases are numbered, changed units noted."""
    known = {
        row.sha256: row
        for row in connection.execute(
            sa.select(cases.c.sha256, cases.c.id, cases.c.unit, cases.c.direction)
        )
    }
    fresh = []
    for case in case_results:
        key = key_of(case.id)
        if key not in known:
            fresh.append(
                {
                    "sha256": key,
                    "name": case.id,
                    "model": case.model,
                    "quantizer": case.quantizer,
                    "probe": case.probe,
                    "metric": case.metric,
                    "unit": case.unit,
                    "direction": case.direction,
                }
            )
        elif case.unit and (known[key].unit, known[key].direction) != (case.unit, case.direction):
            connection.execute(
                sa.update(cases)
                .where(cases.c.sha256 == key)
                .values(unit=case.unit, direction=case.direction)
            )
    ids = {key: int(row.id) for key, row in known.items()}
    if fresh:
        _insert_many(connection, cases, fresh)
        first = max(ids.values(), default=0)
        added = sa.select(cases.c.sha256, cases.c.id).where(cases.c.id > first)
        ids |= {row.sha256: int(row.id) for row in connection.execute(added)}
    return ids


def with_tables(
    prepared: Prepared, record: RunRecord, tables: Mapping[str, bytes], connection: sa.Connection
) -> Prepared:
    """Add the prediction tables; those that the store has already are not even read."""
    digests = record.evidence().get("predictions", {})
    stored = set(connection.execute(sa.select(blobs.c.sha256)).scalars()) if tables else set()
    rows: list[tuple[str, str, int, bytes | None]] = []
    for cell in sorted(tables):
        sha256 = digests.get(cell, {}).get("sha256", "")
        if sha256 in stored:
            rows.append((cell, sha256, 0, None))
            continue
        content = tables.get(cell)
        if content is None:
            continue  # gone meanwhile, as a lazy mapping says
        sha256 = sha256 or hashlib.sha256(content).hexdigest()
        rows.append((cell, sha256, len(content), zlib.compress(content)))
        stored.add(sha256)
    return replace(prepared, tables=tuple(rows))


def _insert_tables(
    connection: sa.Connection, prepared: Prepared, number: int, tables: Mapping[str, bytes]
) -> None:
    for position, (cell, sha256, size, content) in enumerate(prepared.tables):
        there = sa.select(blobs.c.sha256).where(blobs.c.sha256 == sha256)
        if connection.execute(there).first() is None:
            if content is None:  # pruned since `with_tables` looked
                plain = tables[cell]
                size, content = len(plain), zlib.compress(plain)
            row = {"sha256": sha256, "size": size, "content": content}
            connection.execute(sa.insert(blobs).values(**row))
        link = {"run": number, "position": position, "cell": cell, "sha256": sha256}
        connection.execute(sa.insert(run_predictions).values(**link))


def _insert_many(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _BLOCK):
        connection.execute(sa.insert(table), rows[start : start + _BLOCK])
