"""Data sets in a walk: WebDataset shards, class folders, image lists; judged by their layout."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from clipq.cli.onboarding.passed_over import class_folders_lacking, passed_over
from clipq.cli.onboarding.walk import Folder, Walk
from clipq.data.attributes import ATTRIBUTES
from clipq.data.reading import CLASSES, TEMPLATES
from clipq.data.sources import look_at_probe
from clipq.errors import ClipqError, ProbeError
from clipq.files import read_file
from clipq.shapes import Document

__all__ = ["SPLITS", "DataFindings", "DataSet", "find_data"]

SPLITS = {
    "calibration": ("calibration", "calib", "cal"),
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What splits are for, and how people call them."""
_SPLIT_NAMES = frozenset(name for names in SPLITS.values() for name in names)
_LINE = re.compile(r"(\S.*?)\s+(-?[0-9]{1,9})")
_HEAD_BYTES = 65_536
_MEMBERS = 12
_LARGEST_TABLE_BYTES = 50_000_000
_MOST_VALUES = 50


@dataclass(frozen=True, slots=True)
class DataSet:
    """Labelled images in one of the layouts that a probe's `source` names.

    Args:
        kind: ``webdataset``, ``folder`` or ``imagelist``.
        root: folder, relative to the repository.
        splits: names, sorted.
        classes: names of classes; empty where none are listed.
        captions: whether samples carry captions.
        labels: whether samples carry classes.
        attributes: what divides samples into groups: how often each value occurs, by attribute;
            no counts where only a few samples were looked at.
    """

    kind: str
    root: PurePosixPath
    splits: tuple[str, ...]
    classes: tuple[str, ...] = ()
    captions: bool = False
    labels: bool = True
    attributes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return f"{self.kind}:{self.root}"


@dataclass(slots=True)
class DataFindings:
    """Data sets, those nearest to the root first, and what is nearly one."""

    found: list[DataSet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    explained: set[PurePosixPath] = field(default_factory=set)

    def note(self, folder: PurePosixPath, why: str) -> None:
        """Say why what lies in a folder is not used."""
        self.notes.append(f"{folder} {why}")
        self.explained.add(folder)


def find_data(walk: Walk) -> DataFindings:
    """Return the data sets of a walk."""
    findings = DataFindings()
    folders: dict[PurePosixPath, list[tuple[str, tuple[str, ...]]]] = {}
    for folder in walk.folders.values():
        _shards(walk, folder, findings)
        classes = _class_folders(walk, folder)
        if classes:
            of_split = folder.path.name.lower() in _SPLIT_NAMES
            root = folder.path.parent if of_split else folder.path
            folders.setdefault(root, []).append((folder.path.name if of_split else ".", classes))
        _lists(walk, folder, findings)
    for root, splits in sorted(folders.items()):
        findings.found.append(
            DataSet(
                "folder",
                root,
                tuple(sorted(split for split, _ in splits)),
                _lines(walk.root / root / CLASSES) or _merged([names for _, names in splits]),
                attributes=_table(walk.root / root / ATTRIBUTES),
            )
        )
    findings.found = [data for data in _joined(findings.found) if _sound(walk, data, findings)]
    used = {data.root for data in findings.found} | findings.explained
    findings.notes += passed_over(walk, used, _SPLIT_NAMES)
    findings.found.sort(key=lambda data: (len(data.root.parts), str(data.root), data.kind))
    return findings


def _joined(data_sets: list[DataSet]) -> list[DataSet]:
    """Return the data sets with lists of images that lie in one folder as splits of one set."""
    joined: dict[tuple[str, PurePosixPath, PurePosixPath], DataSet] = {}
    for data in data_sets:
        beside = PurePosixPath(data.splits[0]).parent if data.kind == "imagelist" else data.root
        key = (data.kind, data.root, beside)
        known = joined.get(key)
        splits = (*known.splits, *data.splits) if known else data.splits
        joined[key] = replace(data, splits=tuple(sorted(splits)))
    return list(joined.values())


def _sound(walk: Walk, data: DataSet, findings: DataFindings) -> bool:
    """Whether every split would open, as far as its source can see; note why not."""
    roles = {"webdataset": "retrieval", "imagelist": "ood"}  # what needs no labels
    role = "in-distribution" if data.labels else roles.get(data.kind, "ood")
    for split in data.splits:
        try:
            look_at_probe(
                name=data.root.name,
                role=role,
                source=data.source,
                split=split,
                base_dir=walk.root,
            )
        except ClipqError as error:
            findings.note(data.root, f"is left out: {error.problem}")
            return False
    return True


def _merged(splits: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name.replace("_", " ") for names in splits for name in names}))


def _shards(walk: Walk, folder: Folder, findings: DataFindings) -> None:
    """Note the WebDataset whose splits are folders of shards directly below `folder`."""
    shards = [split for split in walk.below(folder.path) if "0.tar" in split.files]
    if not shards:
        return
    announced = [split for split in shards if "nshards.txt" in split.files]
    for split in shards:
        if split not in announced:
            findings.note(
                split.path, "holds 0.tar but no nshards.txt: write the number of shards into it"
            )
    if not announced:
        return
    kinds, attributes = _peek(walk.root / announced[0].path / "0.tar")
    captions, labels = "txt" in kinds, "cls" in kinds
    missing = [name for name in (CLASSES, TEMPLATES) if name not in folder.files]
    if missing and (labels or not captions):
        findings.note(
            folder.path,
            f"holds shards but no {' and no '.join(missing)}: clipq needs them to name the "
            "classes in prompts",
        )
        return
    findings.found.append(
        DataSet(
            "webdataset",
            folder.path,
            tuple(split.path.name for split in announced),
            _lines(walk.root / folder.path / CLASSES),
            captions=captions,
            labels=labels,
            attributes=_table(walk.root / folder.path / ATTRIBUTES) or attributes,
        )
    )


def _peek(path: Path) -> tuple[set[str], dict[str, dict[str, int]]]:
    """Return the endings of the first members of a shard, and the attributes of their JSON."""
    kinds: set[str] = set()
    attributes: dict[str, dict[str, int]] = {}
    # A member may be a link to one that is not there, or claim to be larger than anything.
    damage = (OSError, tarfile.TarError, ValueError, KeyError, RecursionError, OverflowError)
    with suppress(*damage), tarfile.open(path, "r:") as shard:
        for member in islice(shard, _MEMBERS):
            kind = member.name.rpartition(".")[2].lower()
            kinds.add(kind)
            content = shard.extractfile(member) if kind == "json" else None
            if content is not None and member.size <= _HEAD_BYTES:
                description = json.loads(content.read())
                if isinstance(description, dict):
                    attributes |= {
                        str(key): {} for key, value in description.items() if isinstance(value, str)
                    }
    return kinds, attributes


def _table(path: Path) -> dict[str, dict[str, int]]:
    """Return how often each value of each attribute of an `attributes.csv` occurs.

    Only attributes of few values divide samples into groups.
    """
    try:
        # One of another package, or one that opening the probe would refuse, is no reason to stop.
        lines = _text(path, _LARGEST_TABLE_BYTES).splitlines()
        rows = Document(path, "CSV", ProbeError).rows(lines)
    except (OSError, ClipqError):
        return {}
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "file":
                counts.setdefault(name, Counter())[value] += 1
    return {
        name: dict(values) for name, values in counts.items() if 2 <= len(values) <= _MOST_VALUES
    }


def _class_folders(walk: Walk, folder: Folder) -> tuple[str, ...]:
    """Return the class names of a folder that has one folder of images for each, else ()."""
    if class_folders_lacking(walk, folder, _SPLIT_NAMES):
        return ()
    return tuple(child.path.name for child in walk.below(folder.path))


def _lists(walk: Walk, folder: Folder, findings: DataFindings) -> None:
    """Note files of lines "<image> <label>" whose images lie below one of the folders above."""
    for name in folder.files:
        if not name.endswith(".txt") or name in (CLASSES, TEMPLATES, "nshards.txt"):
            continue
        first = next(_matches(walk.root / folder.path / name), None)
        if first is None:
            continue
        listing = folder.path / name
        for root in (folder.path, *folder.path.parents):
            if _is_file(walk.root / root / first):
                classes = _lines(walk.root / root / CLASSES)
                split = str(listing.relative_to(root))
                findings.found.append(
                    DataSet(
                        "imagelist",
                        root,
                        (split,),
                        classes,
                        labels=bool(classes),
                        attributes=_table(walk.root / root / ATTRIBUTES),
                    )
                )
                break


def _matches(path: Path) -> Iterator[str]:
    """Yield the image of the first line, where that looks like one of a list of images."""
    with suppress(OSError, ClipqError), path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES).partition(b"\n")[0]
        match = _LINE.fullmatch(Document(path, "UTF-8", ProbeError).text(head).strip())
        if match is not None:
            yield match[1]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(_text(path, _LARGEST_TABLE_BYTES).strip().splitlines())
    except (OSError, ClipqError):
        return ()


def _text(path: Path, most: int) -> str:
    return Document(path, "UTF-8", ProbeError).text(read_file(path, most=most))
