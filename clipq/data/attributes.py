"""`attributes.csv`: one attribute of every sample, for groups.

A column `file` names the sample (its id) and one column per attribute its value, as CelebA's,
UTKFace's and FairFace's lists do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipq.data.reading import read_lines
from clipq.data.shards import Checksums
from clipq.errors import ProbeError
from clipq.shapes import Document

__all__ = ["ATTRIBUTES", "read_attribute"]

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
    values = {row["file"]: row[group] for row in rows}
    if len(values) != len(rows):
        raise ProbeError(f"probe {name!r}: {path} names a file twice", hint="one line per file")
    missing = [sample for sample in ids if not values.get(sample, "").strip()]
    if missing:
        row = next((at for at, row in enumerate(rows, 1) if row["file"] == missing[0]), 0)
        place = f"row {row} below the head" if row else "no row names it"
        raise ProbeError(
            f"probe {name!r}: {len(missing)} of {len(ids)} samples have no {group!r} in {path}, "
            f"first {missing[0]!r} ({place})",
            hint="give every image a value; files are named relative to the split",
        )
    return tuple(values[sample] for sample in ids)
