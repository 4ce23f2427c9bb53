"""SQL over the parts of a sweep, by DuckDB, which reads them where they lie."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clipq.errors import SweepError, did_you_mean
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_tables import ChangedError, duckdb, opened, table_columns

__all__ = ["Answer", "export", "query"]

_LOOKS = 3
"""How often files that are compacted meanwhile are looked for."""
_COLUMN = re.compile(
    r'Referenced column "([^"]+)" not found|does not have a column named "([^"]+)"'
)
_TABLE = re.compile(r"Table with name (\S+) does not exist")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave: names of columns, and rows of them."""

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def query(store: PartStore, sql: str, *, attempts: Path | None = None) -> Answer:
    """Return what one SELECT says of a sweep.

    Table ``cells`` has a row per unit and case, ``units`` one per unit that is done, and
    ``attempts`` one for each time that a unit was tried. The statement may read these and nothing
    else, and write nothing. Every part is checked to be what was written.

    Args:
        store: whose parts.
        sql: one statement of DuckDB's dialect.
        attempts: the folder of the sweep's attempts; without it their table has no rows.

    Raises:
        SweepError: there is no part, one is damaged, DuckDB is not installed, or the statement is
            no SELECT, or wrong.

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
    library = duckdb()
    _one_select(library, sql)
    if attempts is not None and not any(attempts.glob("*.jsonl")):
        attempts = None

    def asked() -> Answer:
        try:
            with opened(store, attempts, confined=True) as connection:
                found = connection.execute(sql)
                names = tuple(str(each[0]) for each in found.description)
                return Answer(names, tuple(map(tuple, found.fetchall())))
        except library.Error as error:
            raise _wrong(sql, error) from error

    return _at_rest(store, asked)


def export(store: PartStore, path: Path) -> int:
    """Write all rows, sorted by unit, probe and metric, to one file; return how many there are.

    Args:
        store: whose parts; each is checked to be what was written.
        path: ``.parquet`` or ``.csv``; replaced where it is there.

    Raises:
        SweepError: there is no part, one is damaged, the ending is another one, or nothing can be
            written there.
    """
    form = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER"}
    if path.suffix not in form:
        raise SweepError(
            f"{path} ends in {path.suffix or 'nothing'}, an export in {' or '.join(form)}",
            hint=f"name a file that ends in {' or '.join(form)}",
        )
    library = duckdb()
    ordered = "SELECT * FROM cells ORDER BY model, quantizer, unit_id, probe, metric"

    def written() -> int:
        with (
            opened(store, confined=False) as connection,
            tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".clipq-") as folder,
        ):
            # Into that folder: its own name may hold anything, and this one no pattern.
            temporary = Path(folder) / f"export{path.suffix}"
            quoted = str(temporary).replace("'", "''")
            (rows,) = connection.execute(
                f"COPY ({ordered}) TO '{quoted}' ({form[path.suffix]})"
            ).fetchone()
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            return int(rows)

    try:
        return _at_rest(store, written)
    except (library.Error, OSError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise SweepError(
            f"{path} cannot be written: {said}", hint="name a file in a folder that can be written"
        ) from error


def _at_rest(store: PartStore, look: Callable[[], _Found]) -> _Found:
    for _ in range(_LOOKS):
        try:
            return look()
        except ChangedError:
            continue
    raise SweepError(
        f"files in {store.place} come and go", hint="ask again when nobody compacts it"
    )


def _one_select(library: Any, sql: str) -> None:
    try:
        statements = library.extract_statements(sql)
    except library.Error as error:
        raise _wrong(sql, error) from error
    kinds = [statement.type for statement in statements]
    if kinds != [library.StatementType.SELECT]:
        told = ", ".join(kind.name for kind in kinds) or "nothing"
        raise SweepError(
            f"{sql!r} is {told}, and a sweep is asked one SELECT",
            hint="SELECT method, avg(observed) FROM cells WHERE metric = 'ece' GROUP BY method",
        )


def _wrong(sql: str, error: Exception) -> SweepError:
    """Say what DuckDB has against a statement, and which column or table was meant."""
    told = str(error).strip()
    tables = table_columns()
    asked = [name for name in tables if re.search(rf"\b{name}\b", sql)] or ["cells"]
    known = dict.fromkeys(column for name in asked for column in tables[name])
    columns = ", ".join('"offset"' if name == "offset" else name for name in known)  # a keyword
    hint = f"columns of {' and '.join(asked)}: {columns}"
    if table := _TABLE.search(told):
        hint = did_you_mean(table[1].strip('"'), tables)
    elif column := _COLUMN.search(told):
        hint = did_you_mean(column[1] or column[2], known)
    return SweepError(f"{sql!r}: {told.splitlines()[0] if told else error!r}", hint=hint)
