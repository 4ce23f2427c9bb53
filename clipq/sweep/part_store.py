"""The results of a sweep: one Parquet part per unit, committed by a link that fails if it exists.

An engine may do a unit twice: a process was killed after its commit, or a node came back. Whoever
links first wins, and the other's part is dropped, so that execution at least once gives results
exactly once. That holds wherever `link` does not replace: local file systems, and NFS, where a
link is one operation on the server.

    parts/4f/4f1c...9a.parquet      a unit's rows; its name is the unit's id
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipq.errors import SweepError
from clipq.records import CaseResult
from clipq.sweep.part_schema import from_table, parquet, to_bytes
from clipq.sweep.units import Unit

__all__ = ["PartStore"]

_ENDING = ".parquet"


class PartStore:
    """Parts in a folder.

    Args:
        folder: of the sweep; made with the first part.

    >>> from tempfile import TemporaryDirectory
    >>> from clipq.cases import Case
    >>> from clipq.verdicts import Verdict
    >>> unit, case = Unit("vit", "rtn:w8"), Case.parse("vit/rtn:w8/id.ece")
    >>> with TemporaryDirectory() as folder:
    ...     store = PartStore(Path(folder))
    ...     results = [CaseResult(case, Verdict.PASS, observed=0.05)]
    ...     print(store.commit(unit, results), store.commit(unit, results))
    ...     print(store.ids() == {unit.id}, store.read(unit.id)[1][0].observed)
    True False
    True 0.05
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / "parts"

    def commit(self, unit: Unit, results: Sequence[CaseResult]) -> bool:
        """Store the part of a unit; return False where it was there before.

        Raises:
            SweepError: the folder is read-only or full, or the results are not the unit's.
        """
        content = to_bytes(unit, results)
        path = self.path(unit.id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with open(descriptor, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(name).chmod(0o644)
                try:
                    os.link(name, path)
                except FileExistsError:
                    return False
            finally:
                Path(name).unlink()
            _sync(path.parent)
        except OSError as error:
            raise SweepError(
                f"the part of {unit} cannot be written to {self._parts}: {error.strerror or error}",
                hint="free space, or give a folder that can be written to and has hard links",
            ) from error
        return True

    def path(self, unit_id: str) -> Path:
        """Return where a unit's part is, or would be."""
        return self._parts / unit_id[:2] / f"{unit_id}{_ENDING}"

    def has(self, unit_id: str) -> bool:
        """Whether a unit's part is there."""
        return self.path(unit_id).exists()

    def ids(self) -> set[str]:
        """Return the ids of the units whose parts are there."""
        return {path.name.removesuffix(_ENDING) for path in self.paths()}

    def paths(self) -> Iterator[Path]:
        """Yield the files of all parts."""
        yield from self._parts.glob(f"??/*{_ENDING}")

    def read(self, unit_id: str) -> tuple[Unit, tuple[CaseResult, ...]]:
        """Return a unit and its results, in the order of their ids.

        Raises:
            SweepError: there is none, or its file is damaged or another's.
        """
        path = self.path(unit_id)
        unit, results = from_table(_table(path), str(path))
        if unit.id != unit_id:
            raise SweepError(
                f"{path} holds another unit: {unit}",
                hint="move it away: `clipq sweep resume` makes its unit again",
            )
        return unit, results

    def everything(self) -> Iterator[tuple[Unit, tuple[CaseResult, ...]]]:
        """Yield every unit and its results, sorted by id."""
        for unit_id in sorted(self.ids()):
            yield self.read(unit_id)


def _table(path: Path) -> Any:
    pa = parquet()
    try:
        return pa.parquet.ParquetFile(path).read()
    except FileNotFoundError:
        raise SweepError(
            f"there is no part {path}", hint="`clipq sweep resume` makes what is not there yet"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise SweepError(
            f"{path} cannot be read as Parquet: {error}",
            hint="move it away: `clipq sweep resume` makes its unit again",
        ) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
