"""The results of a sweep: one Parquet part per unit, committed once, and compacted when asked.

An engine may do a unit twice: a process was killed after its commit, or a node came back. Whoever
creates the part's name first wins, and the other's part is dropped, so that execution at least once
gives results exactly once.

    commit -> parts/4f/4f1c...9a.parquet -> compact -> compacted/81ab...07.parquet
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import Any

from clipq.errors import SweepError, listed
from clipq.records import CaseResult
from clipq.sweep import object_store
from clipq.sweep.compacted import CompactedFile, names_in
from clipq.sweep.part_columns import SCHEMA
from clipq.sweep.part_schema import Part, from_bytes, to_bytes
from clipq.sweep.part_seal import is_sealed
from clipq.sweep.store_files import LocalFiles, StoreFiles
from clipq.sweep.units import Unit

__all__ = ["Part", "PartStore", "Stored"]

_LOOKS = 3
"""How often files that are compacted meanwhile are looked for."""
_PART = re.compile(r"parts/([0-9a-f]{2})/(\1[0-9a-f]{62})\.parquet")


@dataclass(frozen=True)
class Stored:
    """What a store holds at one moment; every unit is in one place.

    Args:
        parts: names of parts of units that are in no compacted file, by the units' ids, sorted.
        doubled: likewise, of parts of units that are in one.
        compacted: files of many units, by the ids that are taken from each.
    """

    parts: Mapping[str, str]
    doubled: Mapping[str, str]
    compacted: Sequence[tuple[CompactedFile, frozenset[str]]]

    @property
    def ids(self) -> set[str]:
        """The ids of all units."""
        return set(self.parts).union(*(ids for _, ids in self.compacted))


class PartStore:
    """Parts in a folder, or in an object store.

    Args:
        place: the sweep's folder, made with the first part; or an address as fsspec has it,
            ``s3://bucket/sweep``.

    Raises:
        SweepError: an address that no store is known for, or whose package is missing.

    >>> from tempfile import TemporaryDirectory
    >>> from clipq.cases import Case
    >>> from clipq.verdicts import Verdict
    >>> unit, case = Unit("vit", "rtn:w8"), Case.parse("vit/rtn:w8/id.ece")
    >>> with TemporaryDirectory() as folder:
    ...     store = PartStore(Path(folder))
    ...     results = [CaseResult(case, Verdict.PASS, observed=0.05)]
    ...     print(store.commit(unit, results), store.commit(unit, results))
    ...     print(store.ids() == {unit.id}, store.read(unit.id).results[0].observed)
    True False
    True 0.05
    """

    def __init__(self, place: Path | str) -> None:
        self.files: StoreFiles
        if isinstance(place, str) and object_store.is_url(place):
            self.files = object_store.opened(place)
        else:
            self.files = LocalFiles(Path(place))
        self.place = self.files.shown()
        self._known: dict[str, CompactedFile] = {}

    def commit(
        self,
        unit: Unit,
        results: Sequence[CaseResult],
        *,
        evidence: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store the part of a unit; return False where it was there before.

        A damaged part that has its name is kept in ``damaged/``, and replaced.

        Args:
            unit: whose part.
            results: of its cases, without evidence of their own.
            evidence: what they share, by kind.

        Raises:
            SweepError: nothing can be written there, or the results are not the unit's.
        """
        content = to_bytes(unit, results, evidence)
        name = _name(unit.id)
        try:
            if any(unit.id in file.row_groups for file in self.compacted()):
                return False
            if not self.files.create(name, content):
                if is_sealed(self.files.read(name), unit.id, SCHEMA):
                    return False
                self.files.replace(name, content)
        except OSError as error:
            raise SweepError(
                f"the part of {unit} cannot be written to {self.place}: {error.strerror or error}",
                hint="free space, or give a place that can be written to; a folder's disk needs "
                "hard links",
            ) from error
        return True

    def path(self, unit_id: str) -> Path:
        """Return where in a folder a unit's part is, or would be, before it is compacted."""
        return Path(self.place) / _name(unit_id)

    def has(self, unit_id: str) -> bool:
        """Whether a unit's part is there, and whole."""
        if any(unit_id in file.row_groups for file in self.compacted()):
            return True
        with self._reading():
            try:
                return is_sealed(self.files.read(_name(unit_id)), unit_id, SCHEMA)
            except FileNotFoundError:
                return False

    def ids(self) -> set[str]:
        """Return the ids of the units whose parts are there, and whole.

        Damaged ones are named in a warning; a unit that is done again replaces its own. An object
        store takes no half of an object: there what is listed counts, and is checked when read.
        """
        held = self.stored()
        if self.files.checked_by_listing:
            return held.ids
        damaged = set(self.damaged(held))
        if damaged:
            shown = listed([self.files.shown(held.parts[one]) for one in sorted(damaged)])
            warnings.warn(f"damaged, and not counted as done: {shown}", stacklevel=2)
        return held.ids - damaged

    def damaged(self, held: Stored) -> Iterator[str]:
        """Yield the ids of units whose parts are not what was written."""
        with self._reading():
            paths = self.files.local(list(held.parts.values()))
            for unit_id, path in zip(held.parts, paths, strict=True):
                try:
                    if not is_sealed(path.read_bytes(), unit_id, SCHEMA):
                        yield unit_id
                except FileNotFoundError:
                    continue  # it was compacted meanwhile, and was checked then

    def paths(self) -> Iterator[Path]:
        """Yield the files of all parts in a folder that are not compacted."""
        for name in self.stored().parts.values():
            yield Path(self.place) / name

    def read(self, unit_id: str) -> Part:
        """Return the part of a unit.

        Raises:
            SweepError: there is none, or its file is damaged or another's.
        """
        for file in self.compacted():
            if unit_id in file.row_groups:
                return file.read(unit_id)
        name = _name(unit_id)
        with self._reading():
            try:
                content = self.files.read(name)
            except FileNotFoundError:
                raise SweepError(
                    f"there is no part {self.files.shown(name)}",
                    hint="`clipq sweep resume` makes what is not there yet",
                ) from None
        return from_bytes(content, unit_id, self.files.shown(name))

    def everything(self) -> Iterator[Part]:
        """Yield every part, sorted by its unit's id.

        Raises:
            SweepError: as of `read`.
        """
        held = self.stored()
        streams = [file.parts(ids) for file, ids in held.compacted]
        yield from merge(*streams, map(self.read, held.parts), key=lambda part: part.unit.id)

    def stored(self) -> Stored:
        """Return what is where, now.

        Files in ``parts`` that no unit's part is called are named in a warning, and count as
        nothing: copies, say, or what a synchronisation has left.

        Raises:
            SweepError: nothing can be read there, or a compacted file is damaged.
        """
        with self._reading():
            # Before the compacted files: what is compacted in between is then seen in both places.
            names = self.files.names("parts")
        files = self.compacted()
        found = {name: _PART.fullmatch(name) for name in names}
        strangers = [self.files.shown(name) for name, match in found.items() if match is None]
        if strangers:
            told = f"no parts of units, and not counted: {listed(strangers)}"
            warnings.warn(told, stacklevel=1)  # once, whoever asks
        taken: set[str] = set()
        compacted = []
        for file in sorted(files, key=lambda each: (-len(each.row_groups), each.name)):
            ids = frozenset(file.row_groups) - taken
            taken |= ids
            if ids:
                compacted.append((file, ids))
        parts = {match[2]: name for name, match in found.items() if match}
        return Stored(
            {unit_id: name for unit_id, name in parts.items() if unit_id not in taken},
            {unit_id: name for unit_id, name in parts.items() if unit_id in taken},
            compacted,
        )

    def compacted(self) -> list[CompactedFile]:
        """Return the compacted files, each checked when it is first seen.

        Raises:
            SweepError: one cannot be read, or is not what was written.
        """
        for _ in range(_LOOKS):
            with self._reading():
                names = names_in(self.files)
                new = [name for name in names if name not in self._known]
                try:
                    for name, path in zip(new, self.files.local(new), strict=True):
                        self._known[name] = CompactedFile(path, name)
                except FileNotFoundError:
                    continue  # it was compacted with others meanwhile
                return [self._known[name] for name in names]
        raise SweepError(
            f"files in {self.place} come and go", hint="ask again when nobody compacts it"
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SweepError(f"the parts in {self.place} cannot be read: {error}") from error


def _name(unit_id: str) -> str:
    return f"parts/{unit_id[:2]}/{unit_id}.parquet"
