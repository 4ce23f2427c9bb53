"""SQL over the parts of a sweep, by DuckDB, which reads them where they lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipq.errors import SweepError, did_you_mean
from clipq.sweep.part_schema import columns
from clipq.sweep.part_store import PartStore

__all__ = ["Answer", "export", "query"]

_TABLE = "cells"
_UNKNOWN = re.compile(r'Referenced column "([^"]+)" not found')


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave: names of columns, and rows of them."""

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def query(store: PartStore, sql: str) -> Answer:
    """Return what one SELECT says of the table ``cells``: a row per unit and case.

    The statement may read the parts and nothing else, and write nothing.

    Args:
        store: whose parts.
        sql: one statement of DuckDB's dialect.

    Raises:
        SweepError: there is no part, DuckDB is not installed, or the statement is no SELECT, or
            wrong.

    >>> from tempfile import TemporaryDirectory
    >>> from clipq.cases import Case
    >>> from clipq.records import CaseResult
    >>> from clipq.sweep.units import Unit
    >>> from clipq.verdicts import Verdict
    >>> unit, case = Unit("vit", "rtn:w8"), Case.parse("vit/rtn:w8/id.ece")
    >>> with TemporaryDirectory() as folder:
    ...     store = PartStore(Path(folder))
    ...     stored = store.commit(unit, [CaseResult(case, Verdict.PASS, observed=0.05)])
    ...     query(store, "SELECT method, avg(observed) AS ece FROM cells GROUP BY method")
    Answer(names=('method', 'ece'), rows=(('rtn', 0.05),))
    """
    duckdb = _duckdb()
    _one_select(duckdb, sql)
    with _opened(duckdb, store) as connection:
        try:
            found = connection.execute(sql)
            names = tuple(str(each[0]) for each in found.description)
            return Answer(names, tuple(map(tuple, found.fetchall())))
        except duckdb.Error as error:
            raise _wrong(sql, error) from error


def export(store: PartStore, path: Path) -> int:
    """Write all rows, sorted by unit, probe and metric, to one file; return how many there are.

    Args:
        store: whose parts.
        path: ``.parquet`` or ``.csv``; replaced where it is there.

    Raises:
        SweepError: there is no part, the ending is another one, or nothing can be written there.
    """
    form = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER"}
    if path.suffix not in form:
        raise SweepError(
            f"{path}: an export ends in {path.suffix or 'nothing'}",
            hint=f"name a file that ends in {' or '.join(form)}",
        )
    duckdb = _duckdb()
    temporary = path.with_name(f".{path.name}.tmp")
    with _opened(duckdb, store, confined=False) as connection:
        ordered = f"SELECT * FROM {_TABLE} ORDER BY model, quantizer, unit_id, probe, metric"
        try:
            quoted = str(temporary).replace("'", "''")
            (written,) = connection.execute(
                f"COPY ({ordered}) TO '{quoted}' ({form[path.suffix]})"
            ).fetchone()
            temporary.replace(path)
        except (duckdb.Error, OSError) as error:
            raise SweepError(f"{path} cannot be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
    return int(written)


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise SweepError(
            f"a sweep is queried by DuckDB, which is not there: {error}",
            hint="pip install 'pytest-clipq[sweep]'",
        ) from error
    return duckdb


def _one_select(duckdb: Any, sql: str) -> None:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise _wrong(sql, error) from error
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        told = ", ".join(kind.name for kind in kinds) or "nothing"
        raise SweepError(
            f"{sql!r} is {told}, and a sweep is asked one SELECT",
            hint=f"SELECT method, avg(observed) FROM {_TABLE} WHERE metric = 'ece' GROUP BY method",
        )


def _opened(duckdb: Any, store: PartStore, *, confined: bool = True) -> Any:
    """Return a connection whose table ``cells`` is the parts, and that opens no other file."""
    paths = sorted(map(str, store.paths()))
    if not paths:
        raise SweepError(
            f"no unit is done yet in {store.folder}", hint="`clipq sweep run` does the units"
        )
    connection = duckdb.connect(":memory:")
    try:
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        connection.execute(f"CREATE VIEW {_TABLE} AS SELECT * FROM read_parquet([{quoted}])")
        if confined:
            connection.execute("SET allowed_paths = [" + quoted + "]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        connection.close()
        raise SweepError(f"the parts in {store.folder} cannot be read: {error}") from error
    return connection


def _wrong(sql: str, error: Exception) -> SweepError:
    """Say what DuckDB has against a statement, and which column was meant."""
    told = str(error).strip()
    hint = f"columns of {_TABLE}: {', '.join(columns())}"
    if meant := _UNKNOWN.search(told):
        hint = did_you_mean(meant[1], columns())
    return SweepError(f"{sql!r}: {told.splitlines()[0] if told else error!r}", hint=hint)
