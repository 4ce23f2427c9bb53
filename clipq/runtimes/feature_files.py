"""Features that were made elsewhere, looked up by sample id.

A phone, an engine on another device, a runtime that clipq does not know: whatever encoded the
images that `clipq artifact images` wrote, its features come back in files. Every one is checked
against the samples that it should be of; what is missing, double, foreign or no number is an error
that names it, for a row in the wrong place is a wrong result that nobody sees.

| file | says of which probe a row is |
|---|---|
| `FOLDER/PROBE.npz`, `FOLDER/PROBE/*.npz` | the name of the file, or of the folder of its parts |
| an npz or safetensors with `PROBE.ids`, `PROBE.features` ... | the names of the arrays |
| a Parquet file with a column `probe` | the column |
| a file with `ids`, `features` alone | ids that no two probes share, or `PROBE/ID` |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipq.errors import ArtifactError, UnknownNameError, did_you_mean, listed
from clipq.runtimes.feature_arrays import FORMATS, as_features, as_texts, read_arrays
from clipq.runtimes.finding import Finding

__all__ = ["UNIT", "FeatureFiles", "FeatureTable", "feature_paths", "named_rows", "read_table"]

UNIT = 1e-2
"""How far from 1 a normalised row's length may be: bfloat16 rounds to 2^-9."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Rows as a file has them.

    Args:
        ids: of each row (N,).
        features: (N, D) float32.
        where: what messages call the table.

    >>> FeatureTable(["a"], np.ones((1, 4), np.float32), "id.npz").features.shape
    (1, 4)
    """

    ids: list[str]
    features: np.ndarray
    where: str

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.features):
            raise ArtifactError(
                f"{self.where}: {len(self.ids):,} ids and {len(self.features):,} rows of features",
                hint="write one id for each row, in the same order",
            )


class FeatureFiles:
    """Features of an artifact, by probe. A folder's files are read when they are asked for.

    Args:
        path: a file or a folder.
        samples: of every probe of the settings, its sample ids; None for a probe whose samples are
            not looked at, of which rows may be there.
        output: ``features`` as the model returns them, or ``normalised`` to unit length.

    Raises:
        ArtifactError: a file is missing, damaged, or of what is no probe.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "features.npz"
    ...     np.savez(path, ids=["b", "a"], features=np.array([[0, 2], [1, 1]], np.float32))
    ...     FeatureFiles(path, {"id": ["a", "b"]}).rows("id").tolist()
    [[1.0, 1.0], [0.0, 2.0]]
    """

    def __init__(
        self, path: Path, samples: Mapping[str, Sequence[str] | None], *, output: str = "features"
    ) -> None:
        self.path = path
        self._samples = dict(samples)
        self._output = output
        self._width: tuple[int, str] | None = None
        self._unit: dict[str, bool] = {}
        self._parts: dict[str, list[Path]] = {}
        self._tables: dict[str, FeatureTable] = {}
        if path.is_dir():
            self._parts = self._of_folder()
        else:
            self._tables = self._of_file()

    @property
    def probes(self) -> tuple[str, ...]:
        """Those that there are features of, sorted."""
        return tuple(sorted({*self._parts, *self._tables}))

    def rows(self, probe: str) -> np.ndarray:
        """Return a probe's features (N, D), float32, in the order of its samples.

        Raises:
            ArtifactError: samples are missing, double or foreign, a row is no vector of numbers,
                not of unit length although it is said to be, or as long as those of no other file.
            UnknownNameError: no such probe.
        """
        ids = self._samples.get(probe)
        if ids is None:
            raise UnknownNameError(
                f"no samples of probe {probe!r} to look up",
                hint=did_you_mean(probe, self._samples),
            )
        table = self._table(probe)
        found = named_rows(table, ids, what="samples", of=f"probe {probe!r}")
        self._check_width(found.shape[1], table.where)
        self._check_lengths(probe, found, table.where, ids)
        return found

    def check(self) -> tuple[Finding, ...]:
        """Read all there is; return what is worth knowing of it.

        Raises:
            ArtifactError: as `rows`.
        """
        for probe in self.probes:
            if self._samples.get(probe) is not None:
                self.rows(probe)
        if self._output == "features" and self._unit and all(self._unit.values()):
            return (
                Finding(
                    "normalised-output",
                    f"every row of {self.path} has length 1, and io.output is 'features'",
                    "write output = 'normalised' if they were divided by their length: what looks "
                    "at lengths compares them with FP32's",
                    wrong=False,
                ),
            )
        return ()

    def _table(self, probe: str) -> FeatureTable:
        if probe in self._tables:
            return self._tables[probe]
        if probe not in self._parts:
            raise ArtifactError(
                f"{self.path} has no features of probe {probe!r}"
                + (f", only of {listed(list(map(repr, self.probes)))}" if self.probes else ""),
                hint=f"bring {probe}.npz there, or narrow the run to the probes that you have",
            )
        parts = [_only_table(path, probe) for path in self._parts[probe]]
        for part in parts:
            self._check_width(part.features.shape[1], part.where)
        if len(parts) == 1:
            return parts[0]
        ids = [one for part in parts for one in part.ids]
        where = f"{self._parts[probe][0].parent}"
        return FeatureTable(ids, np.concatenate([part.features for part in parts]), where)

    def _of_folder(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in feature_paths(self.path):
            inside = path.relative_to(self.path)
            probe = inside.parts[0] if len(inside.parts) > 1 else inside.stem
            self._known(probe, str(path))
            found.setdefault(probe, []).append(path)
        for probe, parts in found.items():
            if len({path.parent for path in parts}) > 1 or (
                len(parts) > 1 and parts[0].parent == self.path
            ):
                raise ArtifactError(
                    f"features of probe {probe!r} are there more than once: "
                    f"{listed(list(map(str, parts)))}",
                    hint="keep those of the artifact that is gated",
                )
        if not found:
            raise ArtifactError(
                f"{self.path} holds no features",
                hint=f"a file for each probe, PROBE with one of the endings {', '.join(FORMATS)}",
            )
        return found

    def _of_file(self) -> dict[str, FeatureTable]:
        arrays = read_arrays(self.path)
        where = str(self.path)
        if "probes" in arrays:
            return self._by_column(arrays, where)
        named = {name.rpartition(".")[0] for name in arrays}
        if "" in named and len(named) > 1:
            raise ArtifactError(
                f"{where} holds arrays with and without a probe: {listed(list(map(repr, arrays)))}",
                hint="PROBE.ids and PROBE.features of each, or ids and features alone",
            )
        if named == {""}:
            return self._by_id(_table(arrays, "", where), where)
        for probe in named:
            self._known(probe, where)
        return {name: _table(arrays, f"{name}.", f"{where}, probe {name!r}") for name in named}

    def _by_column(self, arrays: Mapping[str, np.ndarray], where: str) -> dict[str, FeatureTable]:
        table = _table(arrays, "", where)
        probes = as_texts(arrays["probes"], where)
        rows: dict[str, list[int]] = {}
        for row, probe in enumerate(probes):
            rows.setdefault(probe, []).append(row)
        for probe in rows:
            self._known(probe, where)
        return {probe: _taken(table, kept, probe) for probe, kept in rows.items()}

    def _by_id(self, table: FeatureTable, where: str) -> dict[str, FeatureTable]:
        """Divide rows by what their ids say: ``PROBE/ID``, or an id that one probe alone has."""
        looked_at = {name: ids for name, ids in self._samples.items() if ids is not None}
        owners: dict[str, list[str]] = {}
        for name, ids in looked_at.items():
            for one in ids:
                owners.setdefault(one, []).append(name)
        rows: dict[str, list[int]] = {}
        plain: dict[str, list[str]] = {}
        foreign: list[str] = []
        shared: list[str] = []
        for row, one in enumerate(table.ids):
            probe, _, rest = one.partition("/")
            of = owners.get(one, [])
            if not of and rest and probe in self._samples:
                of, one = [probe], rest
            if len(of) == 1:
                rows.setdefault(of[0], []).append(row)
                plain.setdefault(of[0], []).append(one)
            else:
                (shared if of else foreign).append(one)
        if shared:
            raise ArtifactError(
                f"{where}: {len(shared):,} ids are samples of several probes, the first "
                f"{shared[0]!r} of {listed(list(map(repr, owners[shared[0]])))}",
                hint="write PROBE/ID as the id, arrays PROBE.ids and PROBE.features, or a file for "
                "each probe",
            )
        if foreign and len(looked_at) == len(self._samples):
            raise _foreign(where, foreign, "any probe", next(iter(owners), ""))
        return {
            name: FeatureTable(plain[name], table.features[kept], f"{where}, probe {name!r}")
            for name, kept in rows.items()
        }

    def _known(self, probe: str, where: str) -> None:
        if probe not in self._samples:
            raise ArtifactError(
                f"{where}: features of {probe!r}, which is no probe of the settings",
                hint=did_you_mean(probe, self._samples),
            )

    def _check_width(self, width: int, where: str) -> None:
        if self._width is None:
            self._width = (width, where)
        if self._width[0] != width:
            raise ArtifactError(
                f"features have {self._width[0]:,} dimensions in {self._width[1]} and {width:,} "
                f"in {where}",
                hint="bring the features of one model, all of one export",
            )

    def _check_lengths(
        self, probe: str, features: np.ndarray, where: str, ids: Sequence[str]
    ) -> None:
        lengths = np.linalg.norm(features, axis=1)
        far = np.flatnonzero(np.abs(lengths - 1) > UNIT)
        self._unit[probe] = not len(far)
        if self._output == "normalised" and len(far):
            raise ArtifactError(
                f"{where}: {len(far):,} of {len(ids):,} rows are declared normalised and are not; "
                f"that of {ids[far[0]]!r} has length {lengths[far[0]]:.4g}",
                hint="write output = 'features' in the artifact's io, or divide by the lengths",
            )


def named_rows(table: FeatureTable, ids: Sequence[str], *, what: str, of: str) -> np.ndarray:
    """Return a table's features (N, D) in the order of some ids, each of which it has once.

    Args:
        table: as a file has it.
        ids: all that it has to hold, and all that it may.
        what: they are, in the plural, for messages.
        of: whose.

    Raises:
        ArtifactError: ids are missing, double or foreign, or a row is no vector of numbers.

    >>> table = FeatureTable(["a", "a"], np.ones((2, 2), np.float32), "id.npz")
    >>> named_rows(table, ["a"], what="samples", of="probe 'id'")
    Traceback (most recent call last):
    clipq.errors.ArtifactError: id.npz: 1 id is there more than once: 'a'
    ...
    """
    rows = {one: row for row, one in enumerate(table.ids)}
    if len(rows) < len(table.ids):
        twice = [repr(one) for one, times in Counter(table.ids).items() if times > 1]
        said = "id is" if len(twice) == 1 else "ids are"
        raise ArtifactError(
            f"{table.where}: {len(twice):,} {said} there more than once: {listed(twice)}",
            hint="write each row once; nobody can tell which of them is meant",
        )
    wanted = set(ids)
    foreign = [one for one in table.ids if one not in wanted]
    missing = [repr(one) for one in dict.fromkeys(ids) if one not in rows]
    if missing:
        has = (
            f"; of what is there, {listed(list(map(repr, foreign)))} is foreign" if foreign else ""
        )
        raise ArtifactError(
            f"{table.where}: {len(missing):,} of {len(ids):,} {what} of {of} are missing: "
            f"{listed(missing)}{has}",
            hint="encode every image that `clipq artifact images` writes, and keep its id as it is",
        )
    if foreign:
        raise _foreign(table.where, foreign, of, next(iter(ids), ""))
    found = table.features[[rows[one] for one in ids]]
    broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(broken):
        raise ArtifactError(
            f"{table.where}: {len(broken):,} of {len(ids):,} rows hold NaN or infinity, the first "
            f"that of {ids[broken[0]]!r}",
            hint="the engine overflowed, or its output was read before it was written",
        )
    empty = np.flatnonzero(~found.any(axis=1))
    if len(empty):
        raise ArtifactError(
            f"{table.where}: {len(empty):,} of {len(ids):,} rows are all zeros, the first that of "
            f"{ids[empty[0]]!r}",
            hint="was its output read before it was written?",
        )
    return found


def read_table(path: Path) -> FeatureTable:
    """Return the only table of a file: arrays ``ids`` and ``features``.

    Raises:
        ArtifactError: the file is missing or damaged, or holds something else.
    """
    return _table(read_arrays(path), "", str(path))


def feature_paths(path: Path) -> tuple[Path, ...]:
    """Return the files of features of a path: itself, or those of a folder and its folders.

    >>> feature_paths(Path("features.npz"))
    (PosixPath('features.npz'),)
    """
    if not path.is_dir():
        return (path,)
    found = [*path.glob("*"), *path.glob("*/*")]
    return tuple(sorted(one for one in found if one.suffix in FORMATS and one.is_file()))


def _only_table(path: Path, probe: str) -> FeatureTable:
    """Return the table of a file that belongs to a probe; its arrays may say so themselves."""
    arrays = read_arrays(path)
    return _table(arrays, f"{probe}." if f"{probe}.features" in arrays else "", str(path))


def _table(arrays: Mapping[str, np.ndarray], prefix: str, where: str) -> FeatureTable:
    ids, features = (arrays.get(f"{prefix}{name}") for name in ("ids", "features"))
    if ids is None or features is None:
        raise ArtifactError(
            f"{where} holds {listed(list(map(repr, arrays))) or 'nothing'}, and no arrays 'ids' "
            "and 'features'",
            hint="np.savez(path, ids=ids, features=features); in Parquet columns 'id', 'embedding'",
        )
    return FeatureTable(as_texts(ids, where), as_features(features, where), where)


def _taken(table: FeatureTable, rows: list[int], probe: str) -> FeatureTable:
    ids = [table.ids[row] for row in rows]
    return FeatureTable(ids, table.features[rows], f"{table.where}, probe {probe!r}")


def _foreign(where: str, foreign: Sequence[str], of: str, example: str) -> ArtifactError:
    shown = listed(list(map(repr, foreign)))
    said = "id is not" if len(foreign) == 1 else "ids are not"
    like = f", for example {example!r}" if example else ""
    return ArtifactError(
        f"{where}: {len(foreign):,} {said} of {of}: {shown}",
        hint=f"ids are as `clipq artifact images` writes them{like}; leave out what is of no probe",
    )
