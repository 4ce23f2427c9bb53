"""Probes whose images are plain files: hashed when opened, read again when used."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipq.data.probe import Probe, fingerprint
from clipq.data.reading import TEMPLATES, check_classes, check_ids, decode_image, read_lines
from clipq.data.shards import Checksums
from clipq.errors import ProbeError, did_you_mean

__all__ = ["probe_from_files"]

_ATTRIBUTES = "attributes.csv"
_TEMPLATE = "a photo of a {c}."


def probe_from_files(
    files: Sequence[tuple[str, Path, int]],
    *,
    name: str,
    role: str,
    root: Path,
    classnames: tuple[str, ...],
    group: str,
    checksums: Checksums | None,
    origin: Path,
) -> Probe:
    """Return a probe of image files.

    Args:
        files: id, path and label of each, in order.
        name: of the probe.
        role: of the probe; labels of an out-of-distribution one are dropped.
        root: where templates and attributes may lie.
        classnames: that the labels index.
        group: attribute that divides the samples; "" for none.
        checksums: that every file must match; None for none.
        origin: what the samples are listed in, for messages.

    Raises:
        ProbeError: data are missing, damaged, empty or mislabelled.
    """
    ids = [sample for sample, _, _ in files]
    paths = [path for _, path, _ in files]
    labels = np.array([label for _, _, label in files], dtype=np.int64)
    check_ids(name, origin, ids)
    if role == "in-distribution":
        check_classes(name, origin, classnames, labels.tolist())
    hashes = tuple(_hash(path, name, checksums) for path in paths)
    groups = _groups(root, ids, group, name, checksums) if group else ("",) * len(ids)
    if role == "ood":
        labels[:] = -1  # their classes are not among those of the zero-shot head
    has_templates = (root / TEMPLATES).is_file()
    return Probe(
        name=name,
        role=role,
        classnames=classnames,
        templates=read_lines(root / TEMPLATES, checksums) if has_templates else (_TEMPLATE,),
        ids=tuple(ids),
        labels=labels,
        groups=groups,
        captions=None,
        sample_hashes=hashes,
        fingerprint=fingerprint(tuple(ids), hashes, labels, groups),
        read_images=lambda: _images(paths, hashes, name),
    )


def _images(paths: Sequence[Path], hashes: Sequence[str], name: str) -> Iterator[Image.Image]:
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


def _groups(
    root: Path, ids: Sequence[str], group: str, name: str, checksums: Checksums | None
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
