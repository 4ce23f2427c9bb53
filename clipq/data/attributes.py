"""`attributes.csv`: one attribute of every sample, for groups and clusters.

A column `file` names the sample (its id) and one column per attribute its value, as CelebA's,
UTKFace's and FairFace's lists do.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

from clipq.data.reading import read_lines
from clipq.data.shards import Checksums, find_checksums
from clipq.errors import ProbeError
from clipq.shapes import Document

__all__ = ["ATTRIBUTES", "attribute_of_files", "read_attribute"]

ATTRIBUTES = "attributes.csv"


def read_attribute(
    root: Path, ids: Sequence[str], group: str, name: str, checksums: Checksums | None
) -> tuple[str, ...]:
    """Return the attribute `group` of each sample.

    Raises:
        ProbeError: the table is missing or malformed, or a sample has no value.
    """
    path = root / ATTRIBUTES
    document = Document(path, "CSV", ProbeError, "a column `file`, and one per attribute")
    rows = document.rows(read_lines(path, checksums), "file", group)
    values = {row["file"]: row[group].strip() for row in rows}
    if len(values) != len(rows):
        raise ProbeError(f"probe {name!r}: {path} names a file twice", hint="one line per file")
    missing = [sample for sample in ids if not values.get(sample)]
    if missing:
        raise ProbeError(
            f"probe {name!r}: {len(missing)} of {len(ids)} samples have no {group!r} in {path}, "
            f"first {missing[0]!r} ({_place(missing[0], [row['file'] for row in rows])})",
            hint="give every image a value; files are named as the probe's samples are: relative "
            "to the split, with '/' between folders, without './' before them",
        )
    return tuple(values[sample] for sample in ids)


def _place(sample: str, files: Sequence[str]) -> str:
    """Return which row is about a sample, perhaps under another name."""
    for number, file in enumerate(files, 1):
        if file == sample:
            return f"row {number} below the head"
    for number, file in enumerate(files, 1):
        path = posixpath.normpath(file.strip().replace("\\", "/"))
        if path == sample or path.endswith(f"/{sample}"):
            return f"row {number} below the head calls it {file!r}"
    return "no row names it"


def attribute_of_files(
    location: str, column: str, *, name: str, split: str, base_dir: Path, ids: Sequence[str]
) -> tuple[str, ...]:
    """Return an attribute of each image file below a folder; see `clipq.data.sources.Attribute`."""
    root = base_dir / location
    return read_attribute(root, ids, column, name, find_checksums(root))
