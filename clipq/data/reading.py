"""What every kind of storage shares: text files, endings, and what ids and classes must be."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipq.data.shards import Checksums
from clipq.errors import ProbeError
from clipq.provenance import sha256_file
from clipq.shapes import Document, shown

__all__ = [
    "CLASSES",
    "TEMPLATES",
    "check_captions",
    "check_classes",
    "check_ids",
    "check_names",
    "read_lines",
]

CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def read_lines(path: Path, checksums: Checksums | None) -> tuple[str, ...]:
    """Return a text file's lines; a blank one between others would shift every later label."""
    text = Document(path, "UTF-8", ProbeError, "the layout needs this file, in UTF-8").text()
    # Files that were joined may hold a byte order mark in the middle.
    text = text.replace("\ufeff", "").strip()
    lines = [line.strip() for line in re.split(r"\r\n?|\n", text)]
    if checksums is not None:
        checksums.verify(path, sha256_file(path))
    if not all(lines):
        raise ProbeError(
            f"{path}: line {lines.index('') + 1} is empty", hint="one entry a line, none blank"
        )
    return tuple(lines)


def check_ids(name: str, folder: Path | str, ids: list[str], *, paths: bool = False) -> None:
    """Refuse an empty probe, ids that repeat, and ids that are no text.

    Args:
        name: of the probe.
        folder: where the samples come from.
        ids: of all samples.
        paths: whether ids are paths, of which `a/b` and `a/./b` are the same.

    Raises:
        ProbeError: there is no sample, two share an id, or an id is not UTF-8.
    """
    if not ids:
        raise ProbeError(f"probe {name!r}: {folder} holds no sample", hint="fill it")
    check_names(name, folder, ids)
    repeated, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ProbeError(
            f"probe {name!r}: sample id {repeated!r} occurs {count} times in {folder}",
            hint="ids identify samples when models are compared: make them unique, and, in a tar, "
            "keep the files of one sample together",
        )
    first: dict[str, str] = {}
    for sample in ids if paths else ():
        other = first.setdefault(posixpath.normpath(sample), sample)
        if other != sample:
            raise ProbeError(
                f"probe {name!r}: {folder} holds {other!r} and {sample!r}, which are the same",
                hint="name every sample once: counted twice, it weighs twice",
            )


def check_names(name: str, folder: Path | str, names: Iterable[str]) -> None:
    """Refuse names of files, folders or members that are not UTF-8: none could be written down.

    Raises:
        ProbeError: there are some; they are counted.
    """
    wrong = [entry for entry in names if not _is_text(entry)]
    if wrong:
        raise ProbeError(
            f"probe {name!r}: {len(wrong)} names in {folder} are not UTF-8, first "
            f"{shown(wrong[0])}",
            hint="rename them, for example: convmv -r -f latin1 -t utf-8 --notest FOLDER; names in "
            "a tar are made anew by packing the renamed files",
        )


def check_captions(
    name: str, folder: Path | str, captions: Sequence[object], ids: Sequence[str]
) -> tuple[str, ...]:
    """Return captions, one a line of each text; those of a sample may be given as a list.

    Raises:
        ProbeError: a sample has none, or one that is no text.
    """
    texts = []
    for row, given in enumerate(captions):
        lines = list(given) if isinstance(given, list | tuple) else [given]
        if not lines or not all(isinstance(line, str) and line.strip() for line in lines):
            raise ProbeError(
                f"probe {name!r}: row {row} of {folder} (the first is 0; sample {ids[row]!r}) has "
                f"the caption {shown(given)}",
                hint="give every sample one text or a list of texts, none of them empty or null",
            )
        texts.append("\n".join(map(str, lines)))
    return tuple(texts)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
