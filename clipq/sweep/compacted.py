"""Files that hold the parts of many units: written once, named by the sha256 of their bytes.

Rows are those of parts, sorted by unit, probe and metric, and a unit's rows are in one row group,
so that a unit is found without reading the rest. A file is checked against its name once per
process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.errors import SweepError
from clipq.provenance import sha256_file
from clipq.sweep.part_columns import arrow_schema, by_unit, parquet
from clipq.sweep.part_schema import Part, from_table
from clipq.sweep.store_files import StoreFiles

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CompactedFile", "CompactedWriter", "name_of", "names_in"]

_FOLDER = "compacted"
_NAME = re.compile(_FOLDER + r"/([0-9a-f]{64})\.parquet")
_ROW_GROUP = 20_000
"""Rows after which a unit is the last of its row group."""
_DISTINCT = 0.5
"""Share of values that differ from which on a column of numbers gains nothing from a dictionary."""


def name_of(path: Path) -> str:
    """Return the name that a file is stored under: its content's."""
    return f"{_FOLDER}/{sha256_file(path)}.parquet"


def names_in(files: StoreFiles) -> list[str]:
    """Return the names of a store's compacted files, whole or not."""
    return [name for name in files.names(_FOLDER) if name.endswith(".parquet")]


@dataclass(frozen=True)
class CompactedFile:
    """A file of many units' rows.

    Args:
        path: of this machine.
        name: in the store.

    Raises:
        SweepError: it is not what was written, or of another schema.
    """

    path: Path
    name: str

    def __post_init__(self) -> None:
        named = _NAME.fullmatch(self.name)
        if named is None or sha256_file(self.path) != named[1]:
            raise SweepError(
                f"{self.path} does not hold what was written",
                hint="`clipq sweep compact` takes it out: then `clipq sweep resume` makes its "
                "units again",
            )
        pa = parquet()
        try:
            empty = self._file.schema_arrow.empty_table()
        except (OSError, pa.ArrowException) as error:
            raise SweepError(f"{self.path} cannot be read as Parquet: {error}") from error
        next(from_table(empty, str(self.path)), None)  # says which schema it has, if not this

    @cached_property
    def _file(self) -> Any:
        return parquet().parquet.ParquetFile(self.path)

    @cached_property
    def row_groups(self) -> dict[str, int]:
        """The number of the row group that has a unit's rows, by its id, in order."""
        return {
            unit_id: number
            for number in range(self._file.num_row_groups)
            for unit_id in self._file.read_row_group(number, ["unit_id"])["unit_id"]
            .unique()
            .to_pylist()
        }

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self._file.metadata.num_rows)

    def read(self, unit_id: str) -> Part:
        """Return a unit's part."""
        import pyarrow.compute as pc

        table = self._file.read_row_group(self.row_groups[unit_id])
        (part,) = from_table(table.filter(pc.equal(table["unit_id"], unit_id)), str(self.path))
        return part

    def parts(self, ids: frozenset[str]) -> Iterator[Part]:
        """Yield the parts of some of its units, sorted by id."""
        for unit_id, table in self.tables(ids):
            (part,) = from_table(table, f"{self.path}: {unit_id}")
            yield part

    def tables(self, ids: frozenset[str]) -> Iterator[tuple[str, pa.Table]]:
        """Yield the ids and the rows of some of its units, sorted by id."""
        for number in range(self._file.num_row_groups):
            for unit_id, table in by_unit(self._file.read_row_group(number)):
                if unit_id in ids:
                    yield unit_id, table


class CompactedWriter:
    """Writes one file, unit by unit; units come sorted by id.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.ids: list[str] = []
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._writer: Any = None

    def add(self, unit_id: str, table: pa.Table) -> None:
        """Add a unit's rows."""
        self.ids.append(unit_id)
        self.rows += table.num_rows
        self._held.append(table)
        self._held_rows += table.num_rows
        if self._held_rows >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the file's end."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._held:
            return
        pa = parquet()
        schema = arrow_schema()
        table = pa.concat_tables([each.cast(schema) for each in self._held]).combine_chunks()
        if self._writer is None:
            repeated = _repeated(table)
            self._writer = pa.parquet.ParquetWriter(
                self.path,
                schema,
                compression="zstd",
                compression_level=9,
                version="2.6",
                use_dictionary=repeated,
                store_schema=True,
                data_page_size=4 << 20,
                dictionary_pagesize_limit=4 << 20,
            )
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._held = []
        self._held_rows = 0


def _repeated(table: pa.Table) -> Sequence[str]:
    """Return the columns whose values come again and again."""
    return [
        name
        for name in table.schema.names
        if name != "evidence" and len(table[name].unique()) <= _DISTINCT * table.num_rows
    ]
