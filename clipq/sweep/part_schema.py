"""What a part holds: one row per case of a unit, and the unit itself beside them.

A part's bytes follow from the unit and its results alone: no time, no machine, no order of cases.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from io import BytesIO
from typing import TYPE_CHECKING, Any

from clipq.cases import FP32, TUNED, Case, Cell
from clipq.errors import SweepError
from clipq.estimate import Estimate
from clipq.provenance import canonical_json
from clipq.records import CaseResult
from clipq.sweep.units import Unit
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SCHEMA", "columns", "from_table", "parquet", "to_bytes"]

SCHEMA = "clipq-sweep-part/1"

_UNIT = {
    "unit_id": "string",
    "model": "string",
    "quantizer": "string",
    "method": "string",
    "number_format": "string",
    "towers": "string",
    "seed": "int64",
    "calibration_samples": "int64",
    "calibration_seed": "int64",
}
_CASE = {
    "probe": "string",
    "metric": "string",
    "verdict": "string",
    "reason": "string",
    "unit": "string",
    "direction": "string",
    "metric_version": "int64",
    "samples": "int64",
    "baseline": "double",
    "observed": "double",
    "noise": "double",
}
_ESTIMATE = {
    field.name: "int64" if field.name == "samples_needed" else "double"
    for field in fields(Estimate)
}
_OWN = tuple(name for name in _CASE if name not in ("probe", "metric", "verdict"))
_SEED = re.compile(r",seed=(\d+)")


def columns() -> dict[str, str]:
    """Return the columns of a part and their Arrow types, in order.

    >>> [name for name in columns() if name.startswith("calibration")]
    ['calibration_samples', 'calibration_seed']
    """
    return _UNIT | _CASE | _ESTIMATE


def parquet() -> Any:
    """Return `pyarrow` with its Parquet half.

    Raises:
        SweepError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SweepError(
            f"a sweep's parts are Parquet files, and pyarrow is not there: {error}",
            hint="pip install 'pytest-clipq[sweep]'",
        ) from error
    return pyarrow


def to_bytes(
    unit: Unit, results: Sequence[CaseResult], evidence: Mapping[str, Any] | None = None
) -> bytes:
    """Return the part of a unit, as a Parquet file.

    Halves of characters, which names of files may hold and Parquet cannot, are written as escapes.

    Args:
        unit: whose part.
        results: of its cases, without evidence, commands and waivers of their own.
        evidence: what they share, by kind, as strict JSON has it.

    Raises:
        SweepError: there is no result, one is of another candidate, or a case is there twice.
    """
    _check(unit, results)
    pa = parquet()
    ordered = sorted(results, key=lambda each: (each.probe, each.metric))
    rows = [_described(unit) | _row(result) for result in ordered]
    types = columns()
    held = {
        "clipq.schema": SCHEMA,
        "clipq.unit": canonical_json(unit.to_plain()),
        "clipq.evidence": canonical_json(dict(evidence or {})),
    }
    schema = pa.schema(
        [(name, pa.type_for_alias(kind)) for name, kind in types.items()],
        metadata=held | {"clipq.sha256": _digest(rows, held["clipq.evidence"])},
    )
    arrays = [
        pa.array([row[name] for row in rows], schema.field(name).type, from_pandas=False)
        for name in types
    ]
    sink = BytesIO()
    pa.parquet.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        version="2.6",
        store_schema=True,
    )
    return sink.getvalue()


def from_table(table: pa.Table, where: str) -> tuple[Unit, tuple[CaseResult, ...], dict[str, Any]]:
    """Return the unit, the results and the evidence of a part.

    Args:
        table: as it was read.
        where: what messages call it.

    Raises:
        SweepError: it is of another schema, or not what was written.
    """
    held = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    found = held.get("clipq.schema")
    if found != SCHEMA or table.schema.names != list(columns()):
        raise SweepError(
            f"{where} is no part of a sweep as this clipq writes it: its schema is "
            f"{found or 'unknown'}, not {SCHEMA}",
            hint="give the folder of a sweep that this version ran, or move that file away",
        )
    rows = table.to_pylist()
    try:
        if held["clipq.sha256"] != _digest(rows, held["clipq.evidence"]):
            raise SweepError(f"{where} does not hold what was written", hint=_MOVE)
        unit = Unit.from_plain(json.loads(held["clipq.unit"]))
        return unit, tuple(map(_result, rows)), json.loads(held["clipq.evidence"])
    except (KeyError, ValueError, TypeError) as error:
        raise SweepError(f"{where} cannot be understood: {error!r}", hint=_MOVE) from error


_MOVE = "move it away: `clipq sweep resume` makes its unit again"


def _check(unit: Unit, results: Sequence[CaseResult]) -> None:
    if not results:
        raise SweepError(f"{unit} has no result", hint="select a metric that its probes have")
    cases = {result.case for result in results}
    others = {case.candidate for case in cases} - {unit.candidate}
    if others:
        raise SweepError(f"{min(map(str, others))} is another candidate than {unit}")
    if len(cases) < len(results):
        raise SweepError(f"a case of {unit} is there twice")
    if any(result.evidence for result in results):
        raise SweepError(f"evidence of {unit} belongs to all of its cases, and is given with them")


def _described(unit: Unit) -> dict[str, Any]:
    """Return what a unit's text says, by column."""
    body = unit.quantizer.removesuffix(TUNED)
    head, _, towers = body.partition("@")
    method, _, number_format = head.partition(",")[0].partition(":")
    seed = _SEED.search(head)
    return {
        "unit_id": unit.id,
        "model": unit.model,
        "quantizer": unit.quantizer,
        "method": method,
        "number_format": number_format,
        "towers": "" if body == FP32 else towers or "both",
        "seed": int(seed[1]) if seed else None,
        "calibration_samples": unit.calibration.samples,
        "calibration_seed": unit.calibration.seed,
    }


def _row(result: CaseResult) -> dict[str, Any]:
    own = {name: getattr(result, name) for name in _OWN}
    estimate = {name: getattr(result.estimate, name) for name in _ESTIMATE}
    case = {"probe": result.probe, "metric": result.metric, "verdict": result.verdict.value}
    return {name: _whole(value) for name, value in (case | own | estimate).items()}


def _whole(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if type(value) is str else value


def _result(row: dict[str, Any]) -> CaseResult:
    return CaseResult(
        Case(Cell(row["model"], row["quantizer"], row["probe"]), row["metric"]),
        Verdict(row["verdict"]),
        estimate=Estimate(**{name: row[name] for name in _ESTIMATE}),
        **{name: row[name] for name in _OWN},
    )


def _digest(rows: Sequence[dict[str, Any]], evidence: str) -> str:
    ordered = [[row[name] for name in columns()] for row in rows]
    return hashlib.sha256(repr([ordered, evidence]).encode()).hexdigest()
