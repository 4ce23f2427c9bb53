"""What every kind of storage shares: text files, endings, and what ids and classes must be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from clipq.data.shards import Checksums
from clipq.errors import ProbeError
from clipq.provenance import sha256_file
from clipq.shapes import Document

__all__ = [
    "CLASSES",
    "IMAGES",
    "TEMPLATES",
    "check_classes",
    "check_ids",
    "read_lines",
]

IMAGES = ("webp", "png", "jpg", "jpeg")
"""Endings of image files, lower case."""
CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def read_lines(path: Path, checksums: Checksums | None) -> tuple[str, ...]:
    """Return a text file's lines; a blank one between others would shift every later label."""
    text = Document(path, "UTF-8", ProbeError, "the layout needs this file, in UTF-8").text()
    lines = [line.strip() for line in text.strip().split("\n")]
    if checksums is not None:
        checksums.verify(path, sha256_file(path))
    if not all(lines):
        raise ProbeError(
            f"{path}: line {lines.index('') + 1} is empty", hint="one entry a line, none blank"
        )
    return tuple(lines)


def check_ids(name: str, folder: Path | str, ids: list[str]) -> None:
    """Refuse an empty probe, and ids that repeat.

    Raises:
        ProbeError: there is no sample, or two share an id.
    """
    if not ids:
        raise ProbeError(f"probe {name!r}: {folder} holds no sample", hint="fill it")
    repeated, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ProbeError(
            f"probe {name!r}: sample id {repeated!r} occurs {count} times in {folder}",
            hint="ids identify samples when models are compared: make them unique, and, in a tar, "
            "keep the files of one sample together",
        )


def check_classes(
    name: str, folder: Path | str, classnames: tuple[str, ...], labels: list[int]
) -> None:
    """Refuse classes without a sample, which would only draw predictions.

    Raises:
        ProbeError: there are some.
    """
    absent = sorted(set(range(len(classnames))) - set(labels))
    if absent:
        raise ProbeError(
            f"probe {name!r}: class count does not match: of {len(classnames)} class names, "
            f"{len(absent)} have no sample in {folder} "
            f"(first: {classnames[absent[0]]!r})",
            hint="list exactly the classes that occur",
        )
