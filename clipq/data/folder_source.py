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

from pathlib import Path

from clipq.data.image_files import probe_from_files
from clipq.data.probe import Probe
from clipq.data.reading import CLASSES, IMAGES, read_lines
from clipq.data.shards import Checksums, find_checksums
from clipq.errors import ProbeError, did_you_mean

__all__ = ["open_folder"]


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
    return probe_from_files(
        [(path.relative_to(folder).as_posix(), path, label) for path, label in files],
        name=name,
        role=role,
        root=root,
        classnames=_classnames(root, classes, name, checksums),
        group=group,
        checksums=checksums,
        origin=folder,
    )


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
