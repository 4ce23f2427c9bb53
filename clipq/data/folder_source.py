"""Images in a folder per class, as torchvision's `ImageFolder` reads them.

    <root>/<split>/<class>/**/<image>            ends as `clipq.data.image_names`
                                                 says; <root>/<class>/... if the split is "."
    <root>/classnames.txt                        optional: one name a line, in the order of the
                                                 sorted folders; default: the folders' names.
                                                 Folders that are all called by numbers are sorted
                                                 as numbers; see `clipq.data.class_order`
    <root>/zeroshot_classification_templates.txt optional: one template a line, {c} for the class
    <root>/attributes.csv                        optional: a column `file`, relative to the split,
                                                 and one column per attribute

A sample's id is its path below the split. Links to folders are followed; hidden folders are no
classes, and hidden files no samples. Where a `SHA256SUMS` file in <root> or its parent speaks
of <root>, every file read must be listed there and match.
"""

from __future__ import annotations

from pathlib import Path

from clipq.data.attributes import ATTRIBUTES, attribute_of_files
from clipq.data.class_map import CLASS_MAP, classes_seen, read_class_map
from clipq.data.class_order import in_order, names_by_place
from clipq.data.image_files import probe_from_files
from clipq.data.image_names import IMAGES
from clipq.data.image_tree import class_folders, image_tree
from clipq.data.probe import Probe
from clipq.data.reading import CLASSES, TEMPLATES, read_lines
from clipq.data.shards import CHECKSUMS, Checksums, find_checksums
from clipq.data.sources import Source
from clipq.errors import ProbeError, did_you_mean

__all__ = ["FOLDER"]


def _open(location: str, *, name: str, role: str, split: str, base_dir: Path, group: str) -> Probe:
    """Open a probe from class folders; see `clipq.data.open_probe`."""
    root = base_dir / location
    folder, classes = _classes(root, split, name)
    checksums = find_checksums(root)
    files, passed_over = image_tree(folder, classes, name, layout=_layout(root, folder))
    return probe_from_files(
        [(sample, folder / sample, label) for sample, label in files],
        name=name,
        role=role,
        root=root,
        classnames=_classnames(root, classes, name, role, checksums),
        group=group,
        checksums=checksums,
        origin=folder,
        passed_over=passed_over,
    )


def _look(location: str, *, name: str, role: str, split: str, base_dir: Path) -> dict[str, int]:
    """Count class folders and images; see `clipq.data.sources.Look`."""
    root = base_dir / location
    folder, classes = _classes(root, split, name)
    if not classes:
        raise ProbeError(
            f"probe {name!r}: {folder} has no folders", hint="a folder of images for each class"
        )
    checksums = find_checksums(root)
    named = _classnames(root, classes, name, role, checksums)
    class_map = read_class_map(root, named, name, checksums) if role != "ood" else None
    kept = [label for label in range(len(classes)) if class_map is None or class_map[label]]
    files, passed_over = image_tree(folder, classes, name, layout=_layout(root, folder))
    images = sum(label in kept for _, label in files)
    if not images:
        raise ProbeError(
            f"probe {name!r}: no image in the folders below {folder}: {passed_over}",
            hint=f"images end in {', '.join(IMAGES)}",
        )
    return classes_seen(class_map, classes) | {"images": images}


FOLDER = Source(_open, _look, attribute=attribute_of_files)
"""The source ``folder:LOCATION``."""


def _classes(root: Path, split: str, name: str) -> tuple[Path, list[str]]:
    """Return a split's folder and the folders in it, in the order of their labels."""
    folder = root / split
    if not split or not folder.is_dir():
        known = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
        raise ProbeError(
            f"probe {name!r}: no folder {folder}",
            hint=f'{did_you_mean(split, known)}; split = "." stands for the root itself',
        )
    return folder, in_order(class_folders(folder, name))


def _layout(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the files that the layout itself puts beside the class folders."""
    same = folder.resolve() == root.resolve()
    return (CLASSES, TEMPLATES, ATTRIBUTES, CLASS_MAP, CHECKSUMS) if same else ()


def _classnames(
    root: Path, classes: list[str], name: str, role: str, checksums: Checksums | None
) -> tuple[str, ...]:
    """Return the class of each folder, in the folders' order."""
    if not (root / CLASSES).is_file():
        return tuple(folder.replace("_", " ") for folder in classes)
    classnames = read_lines(root / CLASSES, checksums)
    if len(classnames) != len(classes):
        raise ProbeError(
            f"probe {name!r}: {root / CLASSES} names {len(classnames)} classes, there are "
            f"{len(classes)} folders",
            hint="one line per folder, in the order of the sorted folder names",
        )
    if role == "ood":
        return classnames  # which of them is whose decides nothing
    return names_by_place(classes, classnames, probe=name, listed=str(root / CLASSES))
