"""Lists of image files, as OpenOOD keeps them.

    <root>/<split>                               a text file of lines "<image> <label>", images
                                                 relative to <root>; labels index classnames.txt,
                                                 and are not looked at out of distribution
    <root>/classnames.txt                        one class a line; not needed out of distribution
    <root>/zeroshot_classification_templates.txt optional, as is
    <root>/attributes.csv                        a column `file` (as in the list) and attributes

A sample's id is its path in the list. Where a `SHA256SUMS` file in <root> or its parent speaks of
<root>, every file read must be listed there and match.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from clipq.data.attributes import attribute_of_files
from clipq.data.image_files import probe_from_files
from clipq.data.probe import Probe
from clipq.data.reading import CLASSES, read_lines
from clipq.data.shards import Checksums, find_checksums
from clipq.data.sources import Source
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError

__all__ = ["IMAGE_LIST"]

_LINE = re.compile(r"(\S.*?)\s+(-?[0-9]{1,9})")


def _open(location: str, *, name: str, role: str, split: str, base_dir: Path, group: str) -> Probe:
    """Open a probe from a list of images; see `clipq.data.open_probe`."""
    root = base_dir / location
    checksums = find_checksums(root)
    classnames, files = _listed(root, split, name, role, checksums)
    return probe_from_files(
        files,
        name=name,
        role=role,
        root=root,
        classnames=classnames,
        group=group,
        checksums=checksums,
        origin=root / split,
        passed_over=PassedOver(len(files)),  # every line is an image
    )


def _look(location: str, *, name: str, role: str, split: str, base_dir: Path) -> dict[str, int]:
    """Count images in the list, and look for the first; see `clipq.data.sources.Look`."""
    root = base_dir / location
    classnames, files = _listed(root, split, name, role, find_checksums(root))
    _, first, _ = files[0]
    if not first.is_file():
        raise ProbeError(
            f"probe {name!r}: {root / split} lists {first}, which is not there",
            hint="`source` names the folder that images are relative to",
        )
    return {"classes": len(classnames), "images": len(files)}


IMAGE_LIST = Source(_open, _look, attribute=attribute_of_files)
"""The source ``imagelist:LOCATION``."""


def _listed(
    root: Path, split: str, name: str, role: str, checksums: Checksums | None
) -> tuple[tuple[str, ...], list[tuple[str, Path, int]]]:
    """Return the classes, and the id, path and label of each image in a list."""
    listing = root / split
    if not split or not listing.is_file():
        raise ProbeError(
            f"probe {name!r}: no list of images {listing}",
            hint="`source` names the folder that images are relative to, `split` the list below it",
        )
    has_classes = (root / CLASSES).is_file() or role != "ood"
    classnames = read_lines(root / CLASSES, checksums) if has_classes else ()
    inside = os.path.realpath(root)
    files = []
    for number, line in enumerate(read_lines(listing, checksums), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProbeError(
                f"probe {name!r}: {listing}, line {number}: {line!r}",
                hint='write "<image> <label>", for example "cifar10/test/bird/0003.png 2"',
            )
        sample, label = match[1], int(match[2])
        path = root / sample
        if not Path(os.path.realpath(path)).is_relative_to(inside):
            raise ProbeError(
                f"probe {name!r}: {listing}, line {number}: {sample!r} lies outside of {root}",
                hint="name images relative to the folder, without leaving it",
            )
        if role != "ood" and not 0 <= label < len(classnames):
            raise ProbeError(
                f"probe {name!r}: {listing}, line {number}: label {label} is out of range",
                hint=f"{root / CLASSES} names {len(classnames)} classes, so labels go from 0 to "
                f"{len(classnames) - 1}",
            )
        files.append((sample, path, label))
    return classnames, files
