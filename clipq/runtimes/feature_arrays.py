"""Arrays of a file that somebody else's program wrote: npz, safetensors or Parquet.

Nothing is unpickled, and whatever is wrong with a file is one `ArtifactError` with its name. All
three formats come out alike: keys are one-dimensional texts, or rows of tokens; features are floats
(N, D). Parquet needs pyarrow, the extra ``features``.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipq.errors import ArtifactError, listed
from clipq.files import open_plain

__all__ = ["FORMATS", "as_features", "as_texts", "read_arrays"]

_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, MemoryError, RecursionError),
    *(OverflowError, NotImplementedError, zipfile.BadZipFile, zlib.error),
)
"""What reading bytes that nobody vouches for may raise; pyarrow's errors are ValueErrors."""
_COLUMNS = {"id": "ids", "embedding": "features", "tokens": "tokens", "probe": "probes"}
"""Columns of a Parquet file and the arrays that they become."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file, by name.

    An npz holds arrays; a safetensors file tensors, and texts as JSON lists in its metadata or as
    the JSON's bytes in a uint8 tensor; a Parquet file the columns ``id``, ``embedding``, ``tokens``
    and ``probe``, which become ``ids``, ``features``, ``tokens`` and ``probes``.

    Raises:
        ArtifactError: the file is missing, damaged, of another format or holds Python objects.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "id.npz"
    ...     np.savez(path, ids=["a", "b"], features=np.ones((2, 4), np.float32))
    ...     {name: values.shape for name, values in read_arrays(path).items()}
    {'ids': (2,), 'features': (2, 4)}
    """
    read = FORMATS.get(path.suffix)
    if read is None:
        raise ArtifactError(
            f"{path} is no file of features: its name ends in {path.suffix!r}",
            hint=f"allowed: {', '.join(FORMATS)}",
        )
    try:
        with open_plain(path):
            pass  # a pipe that nobody writes to is refused before a library waits for it
        return read(path)
    except ArtifactError:
        raise
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} is missing", hint="bring the file there, or name the one that you have"
        ) from error
    except _DAMAGE as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path} cannot be read as {path.suffix[1:]}: {said}",
            hint="it is truncated or damaged: copy it again from where it was made",
        ) from error


def as_texts(values: np.ndarray, where: str) -> list[str]:
    """Return keys (N,) as texts: texts themselves, UTF-8 bytes or whole numbers.

    Raises:
        ArtifactError: they are of another type or shape.

    >>> as_texts(np.array([b"cat", b"dog"]), "pets.npz"), as_texts(np.array([7]), "pets.npz")
    (['cat', 'dog'], ['7'])
    """
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        raise ArtifactError(
            f"{where}: ids are {values.dtype} of shape {values.shape}, not one text for each row",
            hint="np.array(ids), of a list of texts",
        )
    if values.dtype.kind == "S":
        try:
            return [text.decode() for text in values.tolist()]
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{where}: ids are no UTF-8: {error}", hint="save texts") from error
    found = values.tolist()
    return found if values.dtype.kind == "U" else list(map(str, found))


def as_features(values: np.ndarray, where: str) -> np.ndarray:
    """Return features (N, D) as float32.

    Raises:
        ArtifactError: they are no floats, or of another number of axes.

    >>> as_features(np.ones((2, 3), np.float16), "id.npz").dtype
    dtype('float32')
    >>> as_features(np.ones((2, 3), np.int8), "id.npz")
    Traceback (most recent call last):
    clipq.errors.ArtifactError: id.npz: features are int8 of shape (2, 3), not floats (N, D)
    ...
    """
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind != "f":
        raise ArtifactError(
            f"{where}: features are {values.dtype} of shape {values.shape}, not floats (N, D)",
            hint="float32, float16 or float64, a row for each sample; where embeddings are kept as "
            "whole numbers, multiply them by their scale first",
        )
    with np.errstate(over="ignore"):  # what is too large for float32 is found as not finite
        return np.ascontiguousarray(values, np.float32)


def _npz(path: Path) -> dict[str, np.ndarray]:
    with open_plain(path) as stream:
        loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is one array without names")
        found = {}
        for name in loaded.files:
            try:
                found[name] = loaded[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise ArtifactError(
                    f"{path}: array {name!r} holds Python objects, which are not unpickled",
                    hint="save np.array(ids, dtype=str), and floats of one length a row",
                ) from error
        return found


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            half = [name for name in names if file.get_slice(name).get_dtype() == "BF16"]
            found = {name: file.get_tensor(name) for name in names if name not in half}
            said = file.metadata() or {}
        if half:  # which numpy does not know
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name).float().numpy() for name in half}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    found |= {name: _texts(text) for name, text in said.items() if _of_texts(name)}
    return {
        name: _texts(values.tobytes()) if _of_texts(name) and values.dtype == np.uint8 else values
        for name, values in found.items()
    }


def _of_texts(name: str) -> bool:
    return name.rpartition(".")[2] in ("ids", "probes")


def _texts(content: str | bytes) -> np.ndarray:
    """Return the texts of a JSON list."""
    found = json.loads(content)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("ids are not a JSON list of texts")
    return np.array(found, dtype=str)


def _parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ArtifactError(
            f"{path}: Parquet is read by pyarrow, which is not installed",
            hint="pip install 'pytest-clipq[features]', or bring npz or safetensors",
        ) from error
    try:
        with open_plain(path) as stream:
            table = pq.read_table(stream)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    known = [name for name in table.column_names if name in _COLUMNS]
    if not known:
        shown = listed(list(map(repr, table.column_names)))
        raise ArtifactError(
            f"{path} has the columns {shown}", hint="name them 'id' and 'embedding'"
        )
    return {
        _COLUMNS[name]: _column(table.column(name).combine_chunks(), f"{path}, column {name!r}")
        for name in known
    }


def _column(column: Any, where: str) -> np.ndarray:
    """Return a pyarrow array as numpy's: (N,), or (N, K) of lists of one length."""
    import pyarrow as pa

    if column.null_count:
        raise ArtifactError(
            f"{where}: {column.null_count:,} of {len(column):,} rows are empty",
            hint="leave out no id and no embedding",
        )
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = column.flatten()
        lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1 or values.null_count:
            raise ArtifactError(
                f"{where}: rows have {listed([f'{n:,}' for n in lengths])} numbers"
                + (f", {values.null_count:,} of them empty" if values.null_count else ""),
                hint="each row holds as many numbers as the model has dimensions",
            )
        return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), -1)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return np.array(column.to_pylist(), dtype=str)
    return np.asarray(column.to_numpy(zero_copy_only=False))


FORMATS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
}
"""Readers by how a file's name ends."""
