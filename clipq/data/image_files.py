"""Probes whose images are plain files: hashed when opened, read again when used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clipq.data.attributes import read_attribute
from clipq.data.class_map import kept_places, read_class_map
from clipq.data.probe import Probe, fingerprint
from clipq.data.reading import TEMPLATES, check_classes, check_ids, read_lines
from clipq.data.shards import Checksums
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError
from clipq.files import read_file

__all__ = ["DEFAULT_TEMPLATE", "IMAGE_BYTES", "probe_from_files"]

DEFAULT_TEMPLATE = "a photo of a {c}."
"""The prompt where a source brings none."""
IMAGE_BYTES = 256 << 20
"""An image file has at most so many bytes."""


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
    passed_over: PassedOver,
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
        passed_over: the account of files that are not read.

    Raises:
        ProbeError: data are missing, damaged, empty or mislabelled.
    """
    class_map = read_class_map(root, classnames, name, checksums)
    if class_map is not None and role != "ood":
        files, classnames, class_map = _within_the_head(files, classnames, class_map)
    ids = [sample for sample, _, _ in files]
    paths = [path for _, path, _ in files]
    labels = np.array([label for _, _, label in files], dtype=np.int64)
    check_ids(name, origin, ids, paths=True)
    if role == "in-distribution":
        check_classes(name, origin, classnames, labels.tolist())
    hashes = tuple(_hash(path, name, checksums) for path in paths)
    groups = read_attribute(root, ids, group, name, checksums) if group else ("",) * len(ids)
    if role == "ood":
        labels[:] = -1  # their classes are not among those of the zero-shot head
    has_templates = (root / TEMPLATES).is_file()
    return Probe(
        name=name,
        role=role,
        classnames=classnames,
        templates=read_lines(root / TEMPLATES, checksums) if has_templates else (DEFAULT_TEMPLATE,),
        ids=tuple(ids),
        labels=labels,
        groups=groups,
        captions=None,
        sample_hashes=hashes,
        fingerprint=fingerprint(tuple(ids), hashes, labels, groups),
        read_encoded=lambda: _encoded(paths, hashes, name),
        locate=lambda position: str(paths[position]),
        class_map=class_map,
        passed_over=passed_over,
    )


def _within_the_head(
    files: Sequence[tuple[str, Path, int]],
    classnames: tuple[str, ...],
    class_map: tuple[tuple[str, ...], ...],
) -> tuple[list[tuple[str, Path, int]], tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Leave out classes for which the head has none, before their files are read."""
    place = kept_places(class_map)
    return (
        [(sample, path, place[label]) for sample, path, label in files if label in place],
        tuple(classnames[label] for label in place),
        tuple(class_map[label] for label in place),
    )


def _encoded(paths: Sequence[Path], hashes: Sequence[str], name: str) -> Iterator[bytes]:
    for path, expected in zip(paths, hashes, strict=True):
        encoded = _bytes(path, name)
        if hashlib.sha256(encoded).hexdigest() != expected:
            raise ProbeError(
                f"probe {name!r}: {path} changed since the probe was opened",
                hint="do not write to a probe during a run; run again",
            )
        yield encoded


def _hash(path: Path, name: str, checksums: Checksums | None) -> str:
    digest = hashlib.sha256(_bytes(path, name)).hexdigest()
    if checksums is not None:
        checksums.verify(path, digest)
    return digest


def _bytes(path: Path, name: str) -> bytes:
    try:
        return read_file(path, most=IMAGE_BYTES)
    except OSError as error:
        raise ProbeError(
            f"probe {name!r}: {path} cannot be read: {error.strerror or error}",
            hint="restore the file or its permissions",
        ) from error
