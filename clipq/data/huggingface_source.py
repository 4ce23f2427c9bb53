"""Data sets in Hugging Face's formats: `huggingface:LOCATION`.

LOCATION is a folder or file on this machine (what `save_to_disk` wrote, or Parquet), or
`ORG/NAME` on the hub, which is read from the local cache alone unless HF_DATASETS_OFFLINE=0 says
that downloading is wanted. The image column holds images; `label` holds class indices; other
columns may be attributes, and `caption` (a text or a list of texts) captions. Class names are those
of the label's `ClassLabel` feature.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Required

import numpy as np

from clipq.data.dataset_columns import attribute_column, class_names, column_of, present
from clipq.data.image_files import IMAGE_BYTES
from clipq.data.image_names import IMAGES
from clipq.data.parquet_files import parquet_files
from clipq.data.probe import CAPTIONED, Probe, fingerprint
from clipq.data.reading import check_captions, check_classes, check_ids
from clipq.data.sources import Source
from clipq.data.unread_files import PassedOver
from clipq.errors import ProbeError, did_you_mean
from clipq.files import read_file
from clipq.shapes import Document
from clipq.shapes import table as shape_of

__all__ = ["HUGGINGFACE"]

_IMAGES = ("image", "img", *IMAGES)
_LABELS = ("label", "fine_label", "labels", "cls")
_CAPTIONS = ("caption", "captions", "text", "txt")
_TEMPLATE = "a photo of a {c}."
_SPLITS = "dataset_dict.json"


def _open(location: str, *, name: str, role: str, split: str, base_dir: Path, group: str) -> Probe:
    """Open a probe from a Hugging Face data set; see `clipq.data.open_probe`."""
    table, taken = _load(location, name, split, base_dir)
    columns = list(table.column_names)
    image = column_of(_IMAGES, columns, name, "images")
    table = table.cast_column(image, _undecoded())
    unlabelled = role == "ood" or role in CAPTIONED
    label = "" if unlabelled else column_of(_LABELS, columns, name, "labels")
    classnames = class_names(table, label, name) if label else ()
    count = len(table)
    origin = str(base_dir / location)
    ids = (
        list(attribute_column(table, "id", name))
        if "id" in columns
        else [f"{split}-{index:07d}" for index in range(count)]
    )
    check_ids(name, origin, ids)
    labels = np.array(present(table[label], label, name) if label else [-1] * count, dtype=np.int64)
    if label and not (labels.min() >= 0 and labels.max() < len(classnames)):
        row = int(np.argmax((labels < 0) | (labels >= len(classnames))))
        raise ProbeError(
            f"probe {name!r}: labels go from {labels.min()} to {labels.max()}; row {row} (the "
            f"first is 0) has {labels[row]}",
            hint=f"{label!r} names {len(classnames)} classes; -1 stands for a hidden test label",
        )
    if role == "in-distribution":
        check_classes(name, origin, classnames, labels.tolist())
    hashes = tuple(hashlib.sha256(encoded).hexdigest() for encoded in _encoded(table, image, name))
    groups = attribute_column(table, group, name) if group else ("",) * count
    return Probe(
        name=name,
        role=role,
        classnames=classnames,
        templates=(_TEMPLATE,),
        ids=tuple(ids),
        labels=labels,
        groups=groups,
        captions=_captions(table, columns, name, ids, role),
        sample_hashes=hashes,
        fingerprint=fingerprint(tuple(ids), hashes, labels, groups),
        read_encoded=lambda: _encoded(table, image, name),
        passed_over=PassedOver(count, taken=taken),
    )


def _look(location: str, *, name: str, role: str, split: str, base_dir: Path) -> dict[str, int]:
    """Count the files of a local data set; of one of the hub nothing is known.

    See `clipq.data.sources.Look`.
    """
    path = base_dir / location
    if not path.exists():
        return {}
    files = parquet_files(path, split, name)
    if not files:  # what `save_to_disk` wrote
        folder = path
        if (path / _SPLITS).is_file():
            known = _saved_splits(path / _SPLITS)
            if split not in known:
                raise _no_split(split, known, path, name)
            folder = path / split
        files = sorted(folder.glob("*.arrow"))
    if not files:
        raise _no_files(path, split, name)
    return {"files": len(files)}


def _attribute(
    location: str, column: str, *, name: str, split: str, base_dir: Path, ids: Sequence[str]
) -> tuple[str, ...]:
    table, _ = _load(location, name, split, base_dir)
    return attribute_column(table, column, name)


HUGGINGFACE = Source(_open, _look, attribute=_attribute)
"""The source ``huggingface:LOCATION``."""


def _no_files(path: Path, split: str, name: str) -> ProbeError:
    others = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.parquet"))
    seen = f"; no files of it are {', '.join(others[:6])}" if others else ""
    more = f" and {len(others) - 6} more" if len(others) > 6 else ""
    return ProbeError(
        f"probe {name!r}: {path} holds neither Parquet files of split {split!r} nor a saved data "
        f"set{seen}{more}",
        hint=f"it needs {split}.parquet, {split}-00000-of-00004.parquet and so on (numbers count "
        f"from 0 or 1), {split}/, any of these in data/, or what `save_to_disk` writes; `source` "
        "may name a folder below it, or one file",
    )


def _saved_splits(path: Path) -> list[str]:
    """Return the splits that `save_to_disk` wrote."""
    fix = "save the data set again with `save_to_disk`"
    shape = shape_of("splits", {"splits": Required[list[str]]})
    found: dict[str, list[str]] = Document(path, "JSON", ProbeError, fix).read(shape)
    return found["splits"]


def _no_split(split: str, known: Iterable[str], path: Path, name: str) -> ProbeError:
    return ProbeError(
        f"probe {name!r}: no split {split!r} in {path}", hint=did_you_mean(split, known)
    )


def _load(location: str, name: str, split: str, base_dir: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the table, and the files here that it was read from."""
    path = base_dir / location
    if not path.exists():
        # `datasets` reads this when it is imported: no download without being asked.
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", os.environ["HF_DATASETS_OFFLINE"])
    try:
        import datasets
    except ImportError as error:
        raise ProbeError(
            f"probe {name!r}: Hugging Face data sets need the package `datasets`",
            hint="pip install 'pytest-clipq[huggingface]'",
        ) from error
    try:
        if not path.exists():
            return datasets.load_dataset(location, split=split), ()
        if files := parquet_files(path, split, name):
            named = [str(file) for file in files]
            table = datasets.load_dataset("parquet", data_files=named, split="train")
            return table, tuple(
                os.path.relpath(file, path if path.is_dir() else path.parent) for file in files
            )
        if not any((path / kept).is_file() for kept in (_SPLITS, "state.json")):
            raise _no_files(path, split, name)
        loaded = datasets.load_from_disk(path)
        if isinstance(loaded, datasets.DatasetDict):
            if split not in loaded:
                raise _no_split(split, loaded, path, name)
            loaded = loaded[split]
        held = (os.path.relpath(entry["filename"], path) for entry in loaded.cache_files)
        return loaded, tuple(held)
    except ProbeError:
        raise
    except Exception as error:  # the library raises nearly anything, by format
        if path.exists():
            raise ProbeError(
                f"probe {name!r}: cannot read {path}: {error}",
                hint="restore the files, or write them anew with `save_to_disk` or `to_parquet`",
            ) from error
        raise ProbeError(
            f"probe {name!r}: cannot read {location!r} at {path}, nor in the local cache of the "
            f"hub: {error}",
            hint='where there is a network: python -c "from datasets import load_dataset; '
            f"load_dataset('{location}').save_to_disk('{Path(location).name}')\"; then copy the "
            "folder here and name it in `source`; HF_DATASETS_OFFLINE=0 allows the download",
        ) from error


def _undecoded() -> Any:
    import datasets

    return datasets.Image(decode=False)


def _encoded(table: Any, image: str, name: str) -> Iterator[bytes]:
    for position in range(len(table)):
        entry = table[position][image]
        if entry is None or (entry["bytes"] is None and entry["path"] is None):
            raise ProbeError(
                f"probe {name!r}: row {position} (the first is 0) has no image",
                hint=f"give every row an {image!r}, or leave such rows out: dataset.filter(...)",
            )
        content = entry["bytes"]
        if content is None:
            try:
                content = read_file(Path(entry["path"]), most=IMAGE_BYTES)
            except (OSError, TypeError, ValueError) as error:
                raise ProbeError(
                    f"probe {name!r}: the image of row {position} ({entry['path']!r}) cannot be "
                    f"read: {error}",
                    hint="save the data set with its images embedded",
                ) from error
        yield bytes(content)


def _captions(
    table: Any, columns: list[str], name: str, ids: Sequence[str], role: str
) -> tuple[str, ...] | None:
    column = next((c for c in _CAPTIONS if c in columns), None)
    if column is None:
        return None
    try:
        return check_captions(name, f"column {column!r}", list(table[column]), ids)
    except ProbeError:
        if role in CAPTIONED:
            raise
        return None  # nobody asks for them
