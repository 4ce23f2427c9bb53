"""Prediction tables as files: numeric and text columns in one safetensors file.

Used for cache entries and for baselines. Text columns are stored as zero-padded UTF-8 bytes
(N, longest), whole numbers in as few bytes as hold them; scalars and any further metadata as one
JSON text in the header. Reading never unpickles. The header carries a digest of the columns, so
that a damaged file is named, not used. A cache entry also carries its key and a seal over key,
digest and metadata: what is read is all of what was written, and under that key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from clipq.errors import CacheError
from clipq.files import open_plain, write_atomically
from clipq.metrics import Predictions
from clipq.provenance import digest as hashed

__all__ = [
    "TableError",
    "as_predictions",
    "as_table",
    "columns_digest",
    "parse_table",
    "read_table",
    "stated_digest",
    "table_content",
    "table_digest",
    "write_table",
]

_TEXT = "text:"
_WHOLE = (np.int8, np.int16, np.int32, np.int64)
_HEADER = "clipq"
_ASCII = 128
_DAMAGE = (
    *(OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError),
    *(MemoryError, RecursionError),
)
"""What reading bytes that nobody vouches for may raise."""


class TableError(CacheError):
    """A table file is missing, truncated or altered."""


def columns_digest(columns: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 (hex) over names, types, shapes and values of the columns.

    >>> columns_digest({"rank": np.array([0, 2])}) == columns_digest({"rank": np.array([0, 3])})
    False
    """
    total = hashlib.sha256()
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name])
        total.update(f"{name}|{values.dtype.str}|{values.shape}|".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def table_digest(columns: Mapping[str, np.ndarray]) -> str:
    """Return the digest that a file of these columns states, whether or not there is one.

    >>> narrow = {"rank": np.array([0, 2], np.int8)}
    >>> table_digest(narrow) == table_digest({"rank": np.array([0, 2])})  # the values are the same
    True
    """
    return columns_digest({name: _wide(values) for name, values in columns.items()})


def write_table(
    path: Path, columns: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, key: str = ""
) -> str:
    """Write columns atomically (temporary file, rename); return their digest.

    A sealed one, of a cache, may be lost with the power: it is then made again.

    Args:
        path: where to.
        columns: arrays of numbers or texts, one row per sample.
        metadata: anything that JSON holds.
        key: what the file is kept under, where it is a cache entry; it is then sealed.

    Raises:
        CacheError: the directory is read-only or full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = write_table(Path(folder) / "table", {"id": np.array(["a", "b"])}, {})
    ...     digest == read_table(Path(folder) / "table")[2]
    True
    """
    content, digest = table_content(columns, metadata, key=key)
    write_atomically(path, content, durable=not key)
    return digest


def table_content(
    columns: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, key: str = ""
) -> tuple[bytes, str]:
    """Return the bytes of a file of columns, which `parse_table` reads, and their digest.

    Args:
        columns: as of `write_table`.
        metadata: likewise.
        key: likewise.

    >>> content, digest = table_content({"id": np.array(["a", "b"])}, {"model": "vit"})
    >>> columns, metadata, same = parse_table(content, name="here")
    >>> columns["id"].tolist(), metadata, same == digest
    (['a', 'b'], {'model': 'vit'}, True)
    """
    columns = {name: _wide(values) for name, values in columns.items()}
    digest = columns_digest(columns)
    plain = {
        _TEXT + name if values.dtype.kind == "U" else name: _storable(values)
        for name, values in columns.items()
    }
    # One header entry only: safetensors does not keep the order of several.
    said: dict[str, Any] = {"digest": digest, "metadata": dict(metadata)}
    if key:
        said |= {"key": key, "seal": _seal(key, digest, metadata)}
    header = json.dumps(said, sort_keys=True, allow_nan=False)
    return save(plain, {_HEADER: header}), digest


def _seal(key: str, digest: str, metadata: object) -> str:
    return hashed([key, digest, metadata])


def read_table(path: Path, *, key: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Return (columns, metadata, digest) of a file that `write_table` wrote.

    Args:
        path: of the file.
        key: what it was written under; "" for a file that is no cache entry.

    Raises:
        TableError: the file is missing, truncated, altered or of another key.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_table(Path(folder) / "table", {"id": np.array(["a", "b"])}, {"model": "vit"})
    ...     columns, metadata, digest = read_table(Path(folder) / "table")
    >>> columns["id"].tolist(), metadata
    (['a', 'b'], {'model': 'vit'})
    """
    try:
        open_plain(path).close()  # the reader would wait for a pipe's writer
        with safe_open(path, framework="numpy") as stored:
            header = json.loads((stored.metadata() or {})[_HEADER])
            columns = dict(_restored(name, stored.get_tensor(name)) for name in stored.keys())  # noqa: SIM118 - not a dict
        metadata = _sealed(header, key)
        return columns, metadata, _checked(columns, header["digest"], str(path))
    except _DAMAGE as error:
        raise TableError(
            f"{path} is not a complete prediction table: {error}", hint="remove it and run again"
        ) from error


def parse_table(
    content: bytes, *, name: str, key: str = ""
) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Return (columns, metadata, digest) of the bytes of such a file.

    Args:
        content: of the file.
        name: what to call it in messages.
        key: as of `read_table`.

    Raises:
        TableError: they are truncated, altered or of another key.

    >>> parse_table(b"no table", name="cell vit/rtn:w8/id")
    Traceback (most recent call last):
    clipq.evaluation.tables.TableError: cell vit/rtn:w8/id: not a complete prediction table: ...
    ...
    """
    try:
        header = _header(content)
        columns = dict(_restored(column, values) for column, values in load(content).items())
        metadata = _sealed(header, key)
        return columns, metadata, _checked(columns, header["digest"], name)
    except _DAMAGE as error:
        raise TableError(
            f"{name}: not a complete prediction table: {error}", hint="run the gate again"
        ) from error


def stated_digest(content: bytes, *, key: str = "") -> str:
    """Return the digest that the bytes of a file state, "" where they state none.

    `parse_table` says whether the columns have it; this looks at nothing else.

    Args:
        content: of the file.
        key: as of `read_table`: an entry of another key, or one that was altered, states none.

    >>> content, digest = table_content({"id": np.array(["a", "b"])}, {"model": "vit"})
    >>> stated_digest(content) == digest, stated_digest(b"no table")
    (True, '')
    """
    try:
        header = _header(content)
        _sealed(header, key)
        return str(header["digest"])
    except _DAMAGE:
        return ""


def _header(content: bytes) -> Any:
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_HEADER])


def _sealed(header: Any, key: str) -> dict[str, Any]:
    """Return the metadata of a header; those of a cache entry are its own and whole.

    Raises:
        ValueError: it is of another key, or was altered.
    """
    metadata = header["metadata"]
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are no object")
    if key:
        if header["key"] != key:
            raise ValueError(f"it is the entry of {header['key']!r}, not of {key!r}")
        if header["seal"] != _seal(key, header["digest"], metadata):
            raise ValueError("its key, digest and metadata are not those that were sealed")
    return metadata


def _checked(columns: Mapping[str, np.ndarray], expected: str, name: str) -> str:
    actual = columns_digest(columns)
    if actual != expected:
        raise TableError(
            f"{name} was altered: columns hash to {actual}, the file says {expected}",
            hint="remove it and run again",
        )
    return actual


def _wide(values: np.ndarray) -> np.ndarray:
    """Return whole numbers as int64: what a column holds does not depend on how it is stored."""
    return values.astype(np.int64) if values.dtype.kind in "biu" else values


def _storable(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.int64:
        ends = values.min(initial=0), values.max(initial=0)
        narrow = next(
            t for t in _WHOLE if np.iinfo(t).min <= ends[0] and ends[1] <= np.iinfo(t).max
        )
        return values.astype(narrow)
    if values.dtype.kind != "U":
        return np.ascontiguousarray(values)
    encoded = np.char.encode(values, "utf-8")
    width = max(encoded.dtype.itemsize, 1)
    return np.frombuffer(encoded.astype(f"S{width}").tobytes(), np.uint8).reshape(-1, width)


def _restored(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    if not name.startswith(_TEXT):
        return name, _wide(values)
    raw = np.frombuffer(values.tobytes(), f"S{values.shape[1]}")
    width = int(values.any(axis=0).sum())
    # ASCII is converted at once; what Python decodes text by text takes eight times as long.
    plain = width and values.max() < _ASCII and values[:, width - 1].any()
    texts = raw.astype(f"U{width}") if plain else np.char.decode(raw, "utf-8")
    return name.removeprefix(_TEXT), texts


def as_table(
    predictions: Predictions, metadata: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return predictions as the cache stores them, with further metadata.

    >>> table = Predictions({"rank": np.array([0, 2])}, {"temperature": 1.5})
    >>> columns, metadata = as_table(table, {})
    >>> sorted(columns), metadata, columns["scalars"].tolist()
    (['rank', 'scalars'], {'scalars': ['temperature']}, [1.5])
    """
    scalars = dict(sorted(predictions.scalars.items()))
    columns = dict(predictions.columns) | {"scalars": np.array(list(scalars.values()))}
    return columns, {"scalars": list(scalars), **metadata}


def as_predictions(columns: dict[str, np.ndarray], metadata: dict[str, Any]) -> Predictions:
    """Return what `as_table` stored.

    >>> table = Predictions({"rank": np.array([0, 2])}, {"temperature": 1.5})
    >>> as_predictions(*as_table(table, {})).scalar("temperature")
    1.5
    """
    kept = {name: column for name, column in columns.items() if name != "scalars"}
    scalars = dict(zip(metadata["scalars"], columns["scalars"].tolist(), strict=True))
    return Predictions(columns=kept, scalars=scalars)
