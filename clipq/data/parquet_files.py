"""Which Parquet files of a folder are a split: by the whole name, and all of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from clipq.data.image_signatures import first_bytes
from clipq.errors import ProbeError

__all__ = ["parquet_files"]

# As `datasets`, the hub and pandas number them: 0, 00000-of-00004, and a hash of earlier years.
_NUMBER = r"(?P<part>[0-9]+)(?:[-_]of[-_](?P<parts>[0-9]+)(?:-[0-9a-f]{16})?)?"
_SERIES = re.compile(rf"(?P<stem>.*?){_NUMBER}")
_POINTER = b"version https://git-lfs"
_IN_REPOSITORY = "data"  # where a repository of the hub has its files


def parquet_files(folder: Path, split: str, name: str) -> list[Path]:
    """Return a split's Parquet files, sorted; none where no file is called so.

    These are `SPLIT.parquet`, `SPLIT-00000-of-00004.parquet` and the like, or whatever lies in the
    folder `SPLIT/`; in `folder` or, as in a clone of a repository of the hub, in its `data/`. Never
    `SPLIT_hard.parquet`; and `SPLIT-0.parquet`, `SPLIT-1.parquet` alone where the numbers count
    from 0 or 1: `SPLIT-2017.parquet` is none.

    Args:
        folder: that holds them, or a file, which is the split then whatever it is called.
        split: its whole name.
        name: of the probe, for messages.

    Raises:
        ProbeError: parts that the names announce are missing, the files are two versions, or one
            was not fetched from Git LFS.
    """
    if folder.is_file():
        _check_fetched(folder, name)
        return [folder]
    homes = [folder]
    if split != _IN_REPOSITORY:  # whose files are found already
        homes.append(folder / _IN_REPOSITORY)
    versions = [version for home in homes for version in _versions(home, split) if version]
    if len(versions) > 1:
        found = (path for version in versions for path in version)
        shown = _listed(path.relative_to(folder).as_posix() for path in found)
        raise ProbeError(
            f"probe {name!r}: split {split!r} is in {folder} more than once: {shown}",
            hint="keep the files of one version: read together, they would count samples twice",
        )
    files = versions[0] if versions else []
    if files:
        _check_whole(files, split, name)
    for file in files:
        _check_fetched(file, name)
    return files


def _versions(folder: Path, split: str) -> list[list[Path]]:
    """Return what may be the split: a file, each series of parts, what lies in its folder."""
    whole: list[Path] = []
    series: defaultdict[int | None, dict[Path, int]] = defaultdict(dict)
    pattern = re.compile(rf"{re.escape(split)}(?:[-_.]{_NUMBER})?")
    for path in sorted(folder.glob("*.parquet")):
        match = pattern.fullmatch(path.stem)
        if match and match["part"] is None:
            whole.append(path)
        elif match:
            series[_total(match)][path] = int(match["part"])
    counted = [
        list(parts) for total, parts in series.items() if total is not None or _counts(parts)
    ]
    return [whole, *counted, sorted((folder / split).glob("*.parquet")) if split else []]


def _check_whole(files: list[Path], split: str, name: str) -> None:
    """Refuse files whose names count parts where a part is missing, or there twice."""
    series: defaultdict[tuple[str, int | None], dict[Path, int]] = defaultdict(dict)
    for path in files:
        if match := _SERIES.fullmatch(path.stem):
            # `SPLIT-0` and `SPLIT_1` are parts of one series.
            series[match["stem"].rstrip("-_."), _total(match)][path] = int(match["part"])
    for (_, total), parts in series.items():
        if total is None and not _counts(parts):
            continue  # years, sizes, names of classes
        numbers = sorted(parts.values())
        if total is None:
            first, last = numbers[0], numbers[-1]
        else:
            first = 1 if numbers[-1] == total and numbers[0] > 0 else 0
            last = first + total - 1
        present = set(numbers)
        fits = len(numbers) == len(present) == last - first + 1
        if fits and (numbers[0], numbers[-1]) == (first, last):
            continue
        absent = (number for number in range(first, last + 1) if number not in present)
        missing = _listed(map(str, absent)) or "none, but a number is there twice or too high"
        said = f"numbered up to {last}" if total is None else f"which has {_some(total, 'part')}"
        raise ProbeError(
            f"probe {name!r}: {files[0].parent} holds {_some(len(parts), 'file')} of split "
            f"{split!r}, {said}; missing: {missing}",
            hint="bring all parts here, each once; a file that is no part needs another name",
        )


def _check_fetched(file: Path, name: str) -> None:
    """Refuse what Git LFS leaves in the place of a file that was not fetched."""
    if first_bytes(file).startswith(_POINTER):
        raise ProbeError(
            f"probe {name!r}: {file} is a pointer of Git LFS, not the file itself",
            hint="bring the files here: git lfs pull, in the folder that was cloned",
        )


def _total(match: re.Match[str]) -> int | None:
    return None if match["parts"] is None else int(match["parts"])


def _counts(parts: Mapping[Path, int]) -> bool:
    """Whether numbers count parts, of which some may be missing: they start at 0 or 1."""
    return min(parts.values()) <= 1


def _some(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(islice(names, 6))
