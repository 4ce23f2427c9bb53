"""Images in a folder per class, as torchvision's `ImageFolder` reads them.

    <root>/<split>/<class>/**/<image>            webp, png, jpg, jpeg; <root>/<class>/... if the
                                                 split is "."
    <root>/classnames.txt                        optional: one name a line, in the order of the
                                                 sorted folders; default: the folders' names
    <root>/zeroshot_classification_templates.txt optional: one template a line, {c} for the class
    <root>/attributes.csv                        optional: a column `file`, relative to the split,
                                                 and one column per attribute

A sample's id is its path below the split. Where a `SHA256SUMS` file in <root> or its parent speaks
of <root>, every file read must be listed there and match.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from clipq.data.probe import Probe, fingerprint
from clipq.data.reading import (
    CLASSES,
    IMAGES,
    TEMPLATES,
    check_classes,
    check_ids,
    decode_image,
    read_lines,
)
from clipq.data.shards import Checksums, find_checksums
from clipq.errors import ProbeError, did_you_mean

__all__ = ["open_folder"]

_ATTRIBUTES = "attributes.csv"
_TEMPLATE = "a photo of a {c}."


def open_folder(
    location: str, *, name: str, role: str, split: str, base_dir: Path, group: str
) -> Probe:
    """Open a probe from class folders; see `clipq.data.open_probe`."""
    root = base_dir / location
    folder = root / split
    if not split or not folder.is_dir():
        known = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
        raise ProbeError(
            f"probe {name!r}: no folder {folder}",
            hint=f'{did_you_mean(split, known)}; split = "." stands for the root itself',
        )
    checksums = find_checksums(root)
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = [
        (path, label)
        for label, class_name in enumerate(classes)
        for path in sorted((folder / class_name).rglob("*"))
        if path.is_file() and path.suffix.lower().removeprefix(".") in IMAGES
    ]
    ids = [path.relative_to(folder).as_posix() for path, _ in files]
    check_ids(name, folder, ids)
    classnames = _classnames(root, classes, name, checksums)
    labels = [label for _, label in files]
    if role == "in-distribution":
        check_classes(name, folder, classnames, labels)
    hashes = [_hash(path, name, checksums) for path, _ in files]
    groups = _groups(root, ids, group, name, checksums) if group else ("",) * len(ids)
    label_array = np.array(labels, dtype=np.int64)
    if role == "ood":
        label_array[:] = -1  # their classes are not among those of the zero-shot head
    has_templates = (root / TEMPLATES).is_file()
    return Probe(
        name=name,
        role=role,
        classnames=classnames,
        templates=read_lines(root / TEMPLATES, checksums) if has_templates else (_TEMPLATE,),
        ids=tuple(ids),
        labels=label_array,
        groups=groups,
        captions=None,
        sample_hashes=tuple(hashes),
        fingerprint=fingerprint(tuple(ids), tuple(hashes), label_array, groups),
        read_images=lambda: _images([path for path, _ in files], hashes, name),
    )


def _images(paths: list[Path], hashes: list[str], name: str) -> Iterator[Image.Image]:
    for path, expected in zip(paths, hashes, strict=True):
        encoded = _bytes(path, name)
        if hashlib.sha256(encoded).hexdigest() != expected:
            raise ProbeError(
                f"probe {name!r}: {path} changed since the probe was opened",
                hint="do not write to a probe during a run; run again",
            )
        yield decode_image(encoded, f"probe {name!r}, {path}")


def _hash(path: Path, name: str, checksums: Checksums | None) -> str:
    found = hashlib.sha256(_bytes(path, name)).hexdigest()
    if checksums is not None:
        checksums.verify(path, found)
    return found


def _bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProbeError(
            f"probe {name!r}: {path} cannot be read: {error.strerror or error}",
            hint="restore the file or its permissions",
        ) from error


def _classnames(
    root: Path, classes: list[str], name: str, checksums: Checksums | None
) -> tuple[str, ...]:
    """Return the class of each folder, in the folders' order."""
    if not (root / CLASSES).is_file():
        return tuple(folder.replace("_", " ") for folder in classes)
    found = read_lines(root / CLASSES, checksums)
    if len(found) != len(classes):
        raise ProbeError(
            f"probe {name!r}: {root / CLASSES} names {len(found)} classes, there are "
            f"{len(classes)} folders",
            hint="one line per folder, in the order of the sorted folder names",
        )
    return found


def _groups(
    root: Path, ids: list[str], group: str, name: str, checksums: Checksums | None
) -> tuple[str, ...]:
    """Return the attribute `group` of each sample.

    Raises:
        ProbeError: the table is missing or malformed, or a sample has no value.
    """
    path = root / _ATTRIBUTES
    text = "\n".join(read_lines(path, checksums))
    try:
        reader = csv.DictReader(text.splitlines(), strict=True)
        columns = list(reader.fieldnames or [])
        rows = list(reader)
    except csv.Error as error:
        raise ProbeError(
            f"probe {name!r}: {path} is no CSV: {error}", hint="write comma-separated values"
        ) from error
    for column in ("file", group):
        if column not in columns:
            raise ProbeError(
                f"probe {name!r}: {path} has no column {column!r}",
                hint=did_you_mean(column, columns),
            )
    values = {row["file"]: row[group] for row in rows}
    if len(values) != len(rows):
        raise ProbeError(f"probe {name!r}: {path} names a file twice", hint="one line per file")
    missing = [sample for sample in ids if not values.get(sample)]
    if missing:
        raise ProbeError(
            f"probe {name!r}: {len(missing)} of {len(ids)} samples have no {group!r} in {path}, "
            f"first {missing[0]!r}",
            hint="give every image a value; files are named relative to the split",
        )
    return tuple(values[sample] for sample in ids)
