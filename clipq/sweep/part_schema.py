"""What a part holds: one row per case of a unit; the first one holds the unit's evidence, too.

A part's content follows from the unit and its results alone: no time, no machine, no order of
cases. Its bytes follow from these and from pyarrow, whose version is in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from clipq.cases import Case, Cell
from clipq.errors import SweepError
from clipq.estimate import Estimate
from clipq.provenance import canonical_json
from clipq.records import CaseResult
from clipq.sweep.part_columns import (
    CASE,
    ESTIMATE,
    SCHEMA,
    arrow_schema,
    by_unit,
    described,
    parquet,
    stored_columns,
)
from clipq.sweep.part_seal import UNSEALED, is_sealed, seal
from clipq.sweep.units import CalibrationDraw, Unit
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Part", "from_bytes", "from_table", "to_bytes"]

_OWN = tuple(name for name in CASE if name not in ("probe", "metric", "verdict"))


class Part(NamedTuple):
    """What is stored of a unit.

    Args:
        unit: whose it is.
        results: of its cases, sorted by probe and metric.
        evidence: what they share, by kind.

    >>> Part(Unit("vit", "rtn:w8"), (), {}).unit.model
    'vit'
    """

    unit: Unit
    results: tuple[CaseResult, ...]
    evidence: Mapping[str, Any]


def to_bytes(
    unit: Unit, results: Sequence[CaseResult], evidence: Mapping[str, Any] | None = None
) -> bytes:
    """Return the part of a unit, as a Parquet file.

    Halves of characters in sentences, which Parquet cannot hold, are written as escapes.

    Args:
        unit: whose part.
        results: of its cases, without evidence, commands and waivers of their own.
        evidence: what they share, by kind, as strict JSON has it.

    Raises:
        SweepError: there is no result, one is of another candidate, a case is there twice, or
            something of them cannot be stored.
    """
    _check(unit, results)
    pa = parquet()
    ordered = sorted(results, key=lambda each: (each.probe, each.metric))
    described = _described(unit)
    rows = [described | _row(result) | {"evidence": None} for result in ordered]
    rows[0]["evidence"] = _evidence(unit, evidence or {})
    schema = arrow_schema()
    schema = schema.with_metadata(schema.metadata | {b"clipq.seal": UNSEALED.encode()})
    arrays = []
    for field in schema:
        values = [row[field.name] for row in rows]
        try:
            arrays.append(pa.array(values, field.type, from_pandas=False))
        except (OverflowError, pa.ArrowException) as error:
            raise SweepError(
                f"{field.name} of {unit} cannot be stored as {field.type}: {error}",
                hint="whole numbers are below 2**63",
            ) from error
    sink = BytesIO()
    pa.parquet.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        version="2.6",
        store_schema=True,
    )
    return seal(sink.getvalue(), unit.id, SCHEMA)


def from_bytes(content: bytes, unit_id: str, where: str) -> Part:
    """Return the part of a unit.

    Args:
        content: of its file.
        unit_id: that it is stored under.
        where: what messages call it.

    Raises:
        SweepError: it is of another schema, another unit's, or not what was written.
    """
    pa = parquet()
    try:
        table = pa.parquet.ParquetFile(BytesIO(content)).read()
    except (OSError, pa.ArrowException) as error:
        raise SweepError(f"{where} cannot be read as Parquet: {error}", hint=_MOVE) from error
    (part, *_) = [*from_table(table, where), None]
    if part is not None and part.unit.id != unit_id:
        raise SweepError(f"{where} holds another unit: {part.unit}", hint=_MOVE)
    if part is None or not is_sealed(content, unit_id, SCHEMA):
        raise SweepError(f"{where} does not hold what was written", hint=_MOVE)
    return part


def from_table(table: pa.Table, where: str) -> Iterator[Part]:
    """Yield the parts in rows that are sorted by their unit's id.

    Args:
        table: as it was read.
        where: what messages call it.

    Raises:
        SweepError: it is of another schema, or cannot be understood.
    """
    found = (table.schema.metadata or {}).get(b"clipq.schema", b"").decode(errors="replace")
    if found != SCHEMA or table.schema.names != list(stored_columns()):
        raise SweepError(
            f"{where} is no part of a sweep as this clipq writes it: its schema is "
            f"{found or 'unknown'}, not {SCHEMA}",
            hint="give the folder of a sweep that this version ran, or move that file away",
        )
    try:
        for _, rows in by_unit(table):
            yield _part(rows.to_pylist())
    except (KeyError, ValueError, TypeError) as error:
        raise SweepError(f"{where} cannot be understood: {error!r}", hint=_MOVE) from error


_MOVE = "move it away: `clipq sweep resume` makes its unit again"


def _part(rows: list[dict[str, Any]]) -> Part:
    first = rows[0]
    drawn = CalibrationDraw(first["calibration_samples"], first["calibration_seed"])
    unit = Unit(first["model"], first["quantizer"], drawn, first["context"])
    if unit.id != first["unit_id"]:
        raise ValueError(f"{unit} has another id than {first['unit_id']}")
    return Part(unit, tuple(map(_result, rows)), json.loads(first["evidence"]))


def _evidence(unit: Unit, evidence: Mapping[str, Any]) -> str:
    try:
        return canonical_json(dict(evidence))
    except (ValueError, TypeError) as error:
        raise SweepError(
            f"the evidence of {unit} is no strict JSON: {error}",
            hint="numbers that are not finite are written as null",
        ) from error


def _check(unit: Unit, results: Sequence[CaseResult]) -> None:
    if not results:
        raise SweepError(f"{unit} has no result", hint="select a metric that its probes have")
    cases = {result.case for result in results}
    others = {case.candidate for case in cases} - {unit.candidate}
    if others:
        raise SweepError(f"{min(map(str, others))} is another candidate than {unit}")
    if len(cases) < len(results):
        raise SweepError(f"a case of {unit} is there twice")
    for result in results:
        for name in ("evidence", "next_command", "waived_by"):
            if getattr(result, name):
                raise SweepError(
                    f"{result.id} comes with {name} of its own: a sweep stores none",
                    hint="evidence is given for all cases of a unit; commands and waivers belong "
                    "to the gate of a day",
                )
    for name in (unit.model, unit.quantizer, unit.context, *(case.id for case in cases)):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise SweepError(
                f"{name!a} holds half a character: it cannot be stored",
                hint="rename the model, quantizer, probe or metric",
            ) from error


def _described(unit: Unit) -> dict[str, Any]:
    return {
        "unit_id": unit.id,
        "model": unit.model,
        "quantizer": unit.quantizer,
        **described(unit.quantizer),
        "calibration_samples": unit.calibration.samples,
        "calibration_seed": unit.calibration.seed,
        "context": unit.context,
    }


def _row(result: CaseResult) -> dict[str, Any]:
    own = {name: getattr(result, name) for name in _OWN}
    estimate = {name: getattr(result.estimate, name) for name in ESTIMATE}
    case = {"probe": result.probe, "metric": result.metric, "verdict": result.verdict.value}
    return {name: _whole(value) for name, value in (case | own | estimate).items()}


def _whole(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if type(value) is str else value


def _result(row: dict[str, Any]) -> CaseResult:
    return CaseResult(
        Case(Cell(row["model"], row["quantizer"], row["probe"]), row["metric"]),
        Verdict(row["verdict"]),
        estimate=Estimate(**{name: row[name] for name in ESTIMATE}),
        **{name: row[name] for name in _OWN},
    )
