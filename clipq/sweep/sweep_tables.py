"""A sweep as tables of DuckDB: cells, units and attempts. Only what is whole is in them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from clipq.errors import SweepError
from clipq.sweep.attempts import Attempt, Attempts
from clipq.sweep.part_columns import columns, described, parquet, stored_columns
from clipq.sweep.part_store import PartStore, Stored

__all__ = ["ChangedError", "attempt_columns", "duckdb", "opened", "table_columns", "unit_columns"]

_PATTERN = re.compile(r"[*?\[\]{}\\]")
"""What DuckDB takes for a pattern in the path of a file."""
_ARROW = {"str": "string", "bool": "bool", "int": "int64", "float": "double"}
_DERIVED = ("model", "method")


class ChangedError(Exception):
    """Files were compacted while they were looked at: look again."""


def duckdb() -> Any:
    """Return DuckDB.

    Raises:
        SweepError: it is not installed.
    """
    try:
        import duckdb as found
    except ImportError as error:
        raise SweepError(
            f"a sweep is queried by DuckDB, which is not there: {error}",
            hint="pip install 'pytest-clipq[sweep]'",
        ) from error
    return found


def unit_columns() -> list[str]:
    """Return the columns of the table ``units``.

    >>> unit_columns()[:4], unit_columns()[-2:]
    (['unit_id', 'model', 'quantizer', 'method'], ['context', 'evidence'])
    """
    names = list(columns())
    return [*names[: names.index("probe")], "context", "evidence"]


def attempt_columns() -> dict[str, str]:
    """Return the columns of the table ``attempts`` and their Arrow types.

    >>> list(attempt_columns())[:3], list(attempt_columns())[-2:]
    (['unit_id', 'name', 'reason'], ['model', 'method'])
    """
    kept = {field.name: _ARROW.get(str(field.type), "string") for field in fields(Attempt)}
    return kept | dict.fromkeys(_DERIVED, "string")


def table_columns() -> Mapping[str, list[str]]:
    """Return the columns of every table."""
    return {"cells": list(columns()), "units": unit_columns(), "attempts": list(attempt_columns())}


@contextmanager
def opened(store: PartStore, attempts: Path | None = None, *, confined: bool) -> Iterator[Any]:
    """Yield a connection to DuckDB that has the tables.

    Args:
        store: whose parts; each is checked to be what was written.
        attempts: the folder of attempts; None for a table without rows.
        confined: whether it can open no other file.

    Raises:
        SweepError: nothing is there, or a part is damaged.
        ChangedError: a file went away meanwhile.
    """
    held = store.stored()
    if not held.ids and attempts is None:
        raise SweepError(
            f"no unit is done yet in {store.place}", hint="`clipq sweep run` does the units"
        )
    try:
        for unit_id in store.damaged(held):
            store.read(unit_id)  # says what is the matter
            raise ChangedError
    except FileNotFoundError as error:
        raise ChangedError from error
    library = duckdb()
    with ExitStack() as stack:
        found = _local(store, held)
        plain = stack.enter_context(_without_patterns([path for path, _ in found]))
        connection = stack.enter_context(library.connect(":memory:"))
        try:
            connection.execute(f"CREATE VIEW stored AS {_union(plain, found)}")
            listed = {
                name: ", ".join(f'"{one}"' for one in columns_of)
                for name, columns_of in table_columns().items()
            }
            connection.execute(f"CREATE VIEW cells AS SELECT {listed['cells']} FROM stored")
            connection.execute(
                f"CREATE VIEW units AS SELECT {listed['units']} FROM stored "
                "WHERE evidence IS NOT NULL"  # the first row of each unit
            )
            _add_attempts(connection, attempts)
            connection.execute("SET python_enable_replacements = false")
            if confined:
                allowed = ", ".join(map(_quoted, plain))
                connection.execute(f"SET allowed_paths = [{allowed}]")
                connection.execute("SET enable_external_access = false")
                connection.execute("SET lock_configuration = true")
        except library.Error as error:
            if not all(path.exists() for path, _ in found):
                raise ChangedError from error
            raise SweepError(f"the parts in {store.place} cannot be read: {error}") from error
        try:
            yield connection
        except library.Error as error:
            if not all(path.exists() for path, _ in found):
                raise ChangedError from error
            raise


def _local(store: PartStore, held: Stored) -> list[tuple[Path, frozenset[str] | None]]:
    """Return the files to read, and of which units, where it is not all of a file."""
    try:
        parts = store.files.local(list(held.parts.values()))
    except FileNotFoundError as error:
        raise ChangedError from error
    found: list[tuple[Path, frozenset[str] | None]] = [(path, None) for path in parts]
    for file, ids in held.compacted:
        found.append((file.path, None if len(ids) == len(file.row_groups) else ids))
    return found


def _union(paths: list[str], found: list[tuple[Path, frozenset[str] | None]]) -> str:
    whole = [path for path, (_, ids) in zip(paths, found, strict=True) if ids is None]
    selects = []
    if whole or not found:
        files = ", ".join(map(_quoted, whole))
        selects.append(f"SELECT * FROM read_parquet([{files}])" if whole else _nothing())
    for path, (_, ids) in zip(paths, found, strict=True):
        if ids is not None:
            taken = ", ".join(map(_quoted, sorted(ids)))
            selects.append(
                f"SELECT * FROM read_parquet([{_quoted(path)}]) WHERE unit_id IN ({taken})"
            )
    return " UNION ALL ".join(selects)


def _nothing() -> str:
    kinds = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE"}
    each = [f'CAST(NULL AS {kinds[kind]}) AS "{name}"' for name, kind in stored_columns().items()]
    return f"SELECT {', '.join(each)} WHERE false"


def _add_attempts(connection: Any, folder: Path | None) -> None:
    pa = parquet()
    read = [] if folder is None else list(map(_attempt, Attempts(folder).read()))
    kinds = attempt_columns()
    table = pa.table(
        {
            name: pa.array([row[name] for row in read], pa.type_for_alias(kind))
            for name, kind in kinds.items()
        }
    )
    connection.register("attempts_read", table)
    connection.execute("CREATE TABLE attempts AS SELECT * FROM attempts_read")
    connection.unregister("attempts_read")


def _attempt(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt's row, with the model and the method that its name tells."""
    model, _, rest = attempt.name.partition("/")
    method = described(rest.partition(" (calibration: ")[0])["method"]
    kept = {field.name: getattr(attempt, field.name) for field in fields(Attempt)}
    return kept | {"model": model, "method": method}


@contextmanager
def _without_patterns(paths: list[Path]) -> Iterator[list[str]]:
    """Yield paths of the same files in which DuckDB sees no pattern.

    How patterns are escaped has changed from version to version; a link to the folder is none.
    """
    whole = [path.absolute() for path in paths]
    parents = sorted({path.parent for path in whole if _PATTERN.search(str(path))})
    if not parents:
        yield list(map(str, whole))
        return
    with tempfile.TemporaryDirectory(prefix="clipq-sweep-") as folder:
        links = {parent: Path(folder) / str(number) for number, parent in enumerate(parents)}
        for parent, link in links.items():
            link.symlink_to(parent, target_is_directory=True)
        yield [str(links.get(path.parent, path.parent) / path.name) for path in whole]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
