"""Class embeddings that were made elsewhere, looked up by the name of the class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipq.errors import ArtifactError
from clipq.runtimes.feature_files import named_rows, read_table

__all__ = ["class_rows"]


def class_rows(path: Path, classnames: Sequence[str]) -> np.ndarray:
    """Return class embeddings (C, D), float32, of unit length, in the order of the classes.

    A file has an embedding of each class: arrays ``ids``, the names of the classes, and
    ``features``; in Parquet the columns ``id`` and ``embedding``. Rows of a classifier that were
    multiplied by the logit scale are divided by their length like any others: the scale is the FP32
    model's.

    Args:
        path: the artifact's `head`.
        classnames: of the zero-shot head.

    Raises:
        ArtifactError: the file is missing or damaged, a class is missing, double or unknown, or an
            embedding is no vector of numbers.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "classes.npz"
    ...     np.savez(path, ids=["dog", "cat"], features=np.array([[3, 4], [0, 2]], np.float32))
    ...     class_rows(path, ["cat", "dog"]).round(3).tolist()
    [[0.0, 1.0], [0.6000000238418579, 0.800000011920929]]
    """
    if path.is_dir():
        raise ArtifactError(
            f"head {path} is a folder", hint="name one file, for example classes.npz"
        )
    found = named_rows(read_table(path), classnames, what="classes", of="the zero-shot head")
    exact = found.astype(np.float64)  # a square of what float32 holds may be none
    unit: np.ndarray = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit.astype(np.float32)
