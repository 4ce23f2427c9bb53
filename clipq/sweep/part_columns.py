"""The columns of a sweep's results: names, types, and what a quantizer's text says by column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from clipq.cases import FP32, TUNED
from clipq.errors import SweepError
from clipq.estimate import Estimate

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CASE",
    "ESTIMATE",
    "SCHEMA",
    "arrow_schema",
    "by_unit",
    "columns",
    "described",
    "parquet",
    "stored_columns",
]

SCHEMA = "clipq-sweep-part/2"

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
CASE = {
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
ESTIMATE = {
    field.name: "int64" if field.name == "samples_needed" else "double"
    for field in fields(Estimate)
}
_SEED = re.compile(r",seed=(\d+)")


def columns() -> dict[str, str]:
    """Return the columns of a case's row and their Arrow types, in order.

    >>> [name for name in columns() if name.startswith("calibration")]
    ['calibration_samples', 'calibration_seed']
    """
    return _UNIT | CASE | ESTIMATE


def stored_columns() -> dict[str, str]:
    """Return the columns of a file: those of cases, and what makes the unit whole.

    ``context`` is the unit's; ``evidence``, as JSON, stands in the first row of a unit alone.

    >>> list(stored_columns())[-2:]
    ['context', 'evidence']
    """
    return columns() | {"context": "string", "evidence": "string"}


def arrow_schema() -> pa.Schema:
    """Return the schema of a file, as pyarrow has it."""
    pa = parquet()
    return pa.schema(
        [(name, pa.type_for_alias(kind)) for name, kind in stored_columns().items()],
        metadata={"clipq.schema": SCHEMA},
    )


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


def by_unit(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the id and the rows of each unit of a table that is sorted by units.

    >>> pa = parquet()
    >>> table = pa.table({"unit_id": ["0f", "0f", "1b"]})
    >>> [(unit_id, rows.num_rows) for unit_id, rows in by_unit(table)]
    [('0f', 2), ('1b', 1)]
    """
    ids = table["unit_id"].to_pylist()
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or ids[end] != ids[start]:
            yield ids[start], table.slice(start, end - start)
            start = end


def described(quantizer: str) -> dict[str, Any]:
    """Return what a quantizer's text says, by column.

    >>> described("quarot:w4a8,seed=3@vision")
    {'method': 'quarot', 'number_format': 'w4a8', 'towers': 'vision', 'seed': 3}
    """
    body = quantizer.removesuffix(TUNED)
    head, _, towers = body.partition("@")
    method, _, number_format = head.partition(",")[0].partition(":")
    seed = _SEED.search(head)
    return {
        "method": method,
        "number_format": number_format,
        "towers": "" if body == FP32 else towers or "both",
        "seed": int(seed[1]) if seed else None,
    }
