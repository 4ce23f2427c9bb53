"""Parts of done units into few large files, so that nothing is lost or doubled at any moment.

A new file is whole, on the disk and read back before anything that it replaces is deleted. Until
that is gone, a unit is in two places, and the store counts it once; whoever comes next finishes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from io import BytesIO
from typing import TYPE_CHECKING

from clipq.errors import SweepError, listed
from clipq.sweep.compacted import CompactedFile, CompactedWriter, name_of, names_in
from clipq.sweep.part_columns import SCHEMA, parquet
from clipq.sweep.part_schema import from_bytes
from clipq.sweep.part_seal import is_sealed
from clipq.sweep.part_store import PartStore, Stored

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS_PER_FILE", "Compaction", "compact"]

ROWS_PER_FILE = 1_000_000
"""A file with so many rows is not written again."""
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction came to.

    Args:
        units: that were in parts, and are in a compacted file now.
        files: of the store that hold many units, now.
        bytes: of these.

    >>> str(Compaction(units=2, files=1, bytes=51_000))
    '2 units compacted; 1 file of 0.1 MB now'
    """

    units: int
    files: int
    bytes: int

    def __str__(self) -> str:
        files = f"{self.files:,} file{'s' * (self.files != 1)}"
        return f"{self.units:,} units compacted; {files} of {self.bytes / 1e6:,.1f} MB now"


def compact(store: PartStore, *, rows_per_file: int = ROWS_PER_FILE) -> Compaction:
    """Put parts into compacted files, and small compacted files into larger ones.

    One process at a time may do it, and none may run the sweep meanwhile.

    Args:
        store: whose parts.
        rows_per_file: a file is closed with the unit that reaches so many.

    Raises:
        SweepError: nothing can be read or written there.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from clipq.cases import Case
    >>> from clipq.records import CaseResult
    >>> from clipq.sweep.units import Unit
    >>> from clipq.verdicts import Verdict
    >>> unit, case = Unit("vit", "rtn:w8"), Case.parse("vit/rtn:w8/id.ece")
    >>> with TemporaryDirectory() as folder:
    ...     store = PartStore(Path(folder))
    ...     stored = store.commit(unit, [CaseResult(case, Verdict.PASS, observed=0.05)])
    ...     before = store.read(unit.id)
    ...     print(compact(store).units, list(store.paths()), store.read(unit.id) == before)
    1 [] True
    """
    try:
        store.files.tidy(_HOUR)
        _take_out_damaged(store)
        held = store.stored()
        units = len(held.parts)
        damaged = set(store.damaged(held))
        if damaged:
            shown = listed([store.files.shown(held.parts[one]) for one in sorted(damaged)])
            warnings.warn(f"damaged, and left where they are: {shown}", stacklevel=2)
        _drop_doubles(store, held)
        small = [file for file, _ in held.compacted if file.rows < rows_per_file]
        new = [unit_id for unit_id in held.parts if unit_id not in damaged]
        if new or len(small) > 1:
            _rewrite(store, held, new, small, rows_per_file)
        files = store.compacted()
    except OSError as error:
        raise SweepError(
            f"the parts in {store.place} cannot be compacted: {error.strerror or error}",
            hint="free space, or write access; nothing is lost, and the same command goes on",
        ) from error
    size = sum(file.path.stat().st_size for file in files)
    return Compaction(units - len(damaged), len(files), size)


def _rewrite(
    store: PartStore, held: Stored, new: list[str], small: list[CompactedFile], rows: int
) -> None:
    """Write units of parts and of small files into new files, then delete where they were."""
    written: set[str] = set()
    expected: set[str] = set(new)
    taken = {file.name: ids for file, ids in held.compacted}
    sources = [_of_parts(store, held, new)]
    for file in small:
        expected |= taken[file.name]
        sources.append(file.tables(taken[file.name]))
    stream = merge(*sources, key=lambda each: each[0])
    names = []
    while True:
        scratch = store.files.scratch()
        writer = CompactedWriter(scratch)
        for unit_id, table in stream:
            writer.add(unit_id, table)
            if writer.rows >= rows:
                break
        writer.close()
        if not writer.rows:
            scratch.unlink()
            break
        name = name_of(scratch)
        store.files.adopt(scratch, name)
        names.append(name)
    for file in store.compacted():  # reads back, and checks, what is new
        if file.name in names:
            written |= file.row_groups.keys()
    if written != expected:
        raise SweepError(
            f"{len(expected - written)} units are not in the files just written to {store.place}",
            hint="nothing was deleted; see that its disk is sound",
        )
    store.files.remove(
        [*(held.parts[unit_id] for unit_id in new), *({file.name for file in small} - {*names})]
    )


def _of_parts(store: PartStore, held: Stored, ids: list[str]) -> Iterator[tuple[str, pa.Table]]:
    pa = parquet()
    for unit_id, path in zip(ids, store.files.local([held.parts[one] for one in ids]), strict=True):
        content = path.read_bytes()
        if not is_sealed(content, unit_id, SCHEMA):  # it was a moment ago
            raise OSError(f"{path} changed meanwhile")
        yield unit_id, pa.parquet.ParquetFile(BytesIO(content)).read()


def _drop_doubles(store: PartStore, held: Stored) -> None:
    """Delete what a compaction that was cut off had compacted, but not deleted yet."""
    for unit_id, name in held.doubled.items():
        own = store.read(unit_id)
        try:
            other = from_bytes(store.files.read(name), unit_id, store.files.shown(name))
        except SweepError as error:
            warnings.warn(f"{error.problem}; it is compacted, too", stacklevel=3)
        else:
            if repr(own) != repr(other):  # by `repr`: a NaN is like another
                aside = store.files.set_aside(name)
                warnings.warn(
                    f"{own.unit} was measured twice, with other results: those that were stored "
                    f"first stay, the others are in {aside}",
                    stacklevel=3,
                )
                continue
        store.files.remove([name])
    kept = {file.name for file, _ in held.compacted}
    store.files.remove([file.name for file in store.compacted() if file.name not in kept])


def _take_out_damaged(store: PartStore) -> None:
    """Set compacted files aside that are not what was written: their units are made again."""
    names = names_in(store.files)
    for name, path in zip(names, store.files.local(names), strict=True):
        if name_of(path) != name:
            warnings.warn(
                f"{store.files.shown(name)} is damaged, and now in {store.files.set_aside(name)}: "
                "`clipq sweep resume` makes its units again",
                stacklevel=3,
            )
