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

from clipq.data.image_files import IMAGE_BYTES
from clipq.data.probe import Probe, fingerprint
from clipq.data.reading import check_classes, check_ids
from clipq.data.sources import Source
from clipq.errors import ProbeError, did_you_mean
from clipq.files import read_file
from clipq.shapes import Document
from clipq.shapes import table as shape_of

__all__ = ["HUGGINGFACE"]

_IMAGES = ("image", "img", "webp", "jpg", "png")
_LABELS = ("label", "fine_label", "labels", "cls")
_CAPTIONS = ("caption", "captions", "text", "txt")
_TEMPLATE = "a photo of a {c}."
_SPLITS = "dataset_dict.json"


def _open(location: str, *, name: str, role: str, split: str, base_dir: Path, group: str) -> Probe:
    """Open a probe from a Hugging Face data set; see `clipq.data.open_probe`."""
    table = _load(location, name, split, base_dir)
    columns = list(table.column_names)
    image = _column(_IMAGES, columns, name, "images")
    table = table.cast_column(image, _undecoded())
    label = _column(_LABELS, columns, name, "labels") if role not in ("ood", "retrieval") else ""
    classnames = _classnames(table, label, name) if label else ()
    count = len(table)
    ids = (
        [str(value) for value in table["id"]]
        if "id" in columns
        else [f"{split}-{index:07d}" for index in range(count)]
    )
    check_ids(name, base_dir / location, ids)
    labels = np.array(table[label] if label else [-1] * count, dtype=np.int64)
    if label and not (labels.min() >= 0 and labels.max() < len(classnames)):
        raise ProbeError(
            f"probe {name!r}: labels go from {labels.min()} to {labels.max()}",
            hint=f"{label!r} names {len(classnames)} classes; -1 stands for a hidden test label",
        )
    if role == "in-distribution":
        check_classes(name, base_dir / location, classnames, labels.tolist())
    hashes = tuple(hashlib.sha256(encoded).hexdigest() for encoded in _encoded(table, image, name))
    groups = _groups(table, group, columns, name) if group else ("",) * count
    return Probe(
        name=name,
        role=role,
        classnames=classnames,
        templates=(_TEMPLATE,),
        ids=tuple(ids),
        labels=labels,
        groups=groups,
        captions=_captions(table, columns),
        sample_hashes=hashes,
        fingerprint=fingerprint(tuple(ids), hashes, labels, groups),
        read_encoded=lambda: _encoded(table, image, name),
    )


def _look(location: str, *, name: str, role: str, split: str, base_dir: Path) -> dict[str, int]:
    """Count the files of a local data set; of one of the hub nothing is known.

    See `clipq.data.sources.Look`.
    """
    path = base_dir / location
    if not path.exists():
        return {}
    if path.is_file():
        return {"files": 1}
    files = _parquet(path, split)
    if not files:  # what `save_to_disk` wrote
        folder = path
        if (path / _SPLITS).is_file():
            known = _saved_splits(path / _SPLITS)
            if split not in known:
                raise _no_split(split, known, path, name)
            folder = path / split
        files = sorted(folder.glob("*.arrow"))
    if not files:
        raise ProbeError(
            f"probe {name!r}: {path} holds neither Parquet files nor a saved data set",
            hint=f"it needs {split}*.parquet, or what `save_to_disk` writes",
        )
    return {"files": len(files)}


def _attribute(
    location: str, column: str, *, name: str, split: str, base_dir: Path, ids: Sequence[str]
) -> tuple[str, ...]:
    table = _load(location, name, split, base_dir)
    return _groups(table, column, list(table.column_names), name)


HUGGINGFACE = Source(_open, _look, attribute=_attribute)
"""The source ``huggingface:LOCATION``."""


def _parquet(path: Path, split: str) -> list[Path]:
    return sorted(path.glob(f"{split}*.parquet"))


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


def _load(location: str, name: str, split: str, base_dir: Path) -> Any:
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
            hint="pip install 'clipq[huggingface]'",
        ) from error
    try:
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(path), split="train")
        files = [str(file) for file in _parquet(path, split)] if path.is_dir() else []
        if files:
            return datasets.load_dataset("parquet", data_files=files, split="train")
        loaded = datasets.load_from_disk(path) if path.is_dir() else None
        if loaded is None:
            return datasets.load_dataset(location, split=split)
        if not isinstance(loaded, datasets.DatasetDict):
            return loaded
        if split not in loaded:
            raise _no_split(split, loaded, path, name)
        return loaded[split]
    except ProbeError:
        raise
    except Exception as error:  # the library raises nearly anything, by format
        where = f"{path}, nor in the local cache of the hub" if not path.exists() else str(path)
        raise ProbeError(
            f"probe {name!r}: cannot read {location!r} at {where}: {error}",
            hint='where there is a network: python -c "from datasets import load_dataset; '
            f"load_dataset('{location}').save_to_disk('{Path(location).name}')\"; then copy the "
            "folder here and name it in `source`; HF_DATASETS_OFFLINE=0 allows the download",
        ) from error


def _undecoded() -> Any:
    import datasets

    return datasets.Image(decode=False)


def _column(known: tuple[str, ...], columns: list[str], name: str, what: str) -> str:
    for column in known:
        if column in columns:
            return column
    raise ProbeError(
        f"probe {name!r}: no column of {what} among {', '.join(columns)}",
        hint=f"rename the column: one of {', '.join(known)}",
    )


def _classnames(table: Any, label: str, name: str) -> tuple[str, ...]:
    names = getattr(table.features[label], "names", None)
    if not names:
        raise ProbeError(
            f"probe {name!r}: column {label!r} is {table.features[label]}, without class names",
            hint="cast it: dataset.cast_column('label', ClassLabel(names=[...])), and save it",
        )
    return tuple(str(entry).replace("_", " ") for entry in names)


def _encoded(table: Any, image: str, name: str) -> Iterator[bytes]:
    for position in range(len(table)):
        entry = table[position][image]
        content = entry["bytes"]
        if content is None:
            try:
                content = read_file(Path(entry["path"]), most=IMAGE_BYTES)
            except (OSError, TypeError, ValueError) as error:
                raise ProbeError(
                    f"probe {name!r}: image {position} ({entry['path']!r}) cannot be read: {error}",
                    hint="save the data set with its images embedded",
                ) from error
        yield bytes(content)


def _groups(table: Any, group: str, columns: list[str], name: str) -> tuple[str, ...]:
    if group not in columns:
        raise ProbeError(f"probe {name!r}: no column {group!r}", hint=did_you_mean(group, columns))
    values = table[group]
    names = getattr(table.features[group], "names", None)
    groups = [names[value] if names else value for value in values]
    missing = [index for index, value in enumerate(groups) if value is None or value == ""]
    if missing:
        raise ProbeError(
            f"probe {name!r}: {len(missing)} samples have no {group!r}, first number {missing[0]}",
            hint="give every sample a value",
        )
    return tuple(str(value) for value in groups)


def _captions(table: Any, columns: list[str]) -> tuple[str, ...] | None:
    column = next((c for c in _CAPTIONS if c in columns), None)
    if column is None:
        return None
    return tuple(
        "\n".join(value) if isinstance(value, list) else str(value) for value in table[column]
    )
