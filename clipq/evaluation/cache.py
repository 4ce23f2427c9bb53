"""Content-addressed cache: one file per key, written once, whatever the number of processes.

A key is the digest of everything that identifies the content; the file lock makes the second
process wait for the first instead of repeating its work, and is released by the operating system
when a process dies. Each entry holds its own kind and key and a checksum over all of it: one that
is damaged, or lies where another should, is named and made again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from clipq.errors import CacheError, ClipqError
from clipq.evaluation.tables import TableError, read_table, write_table
from clipq.files import write_atomically

__all__ = ["Cache", "Table", "damaged"]

Table = tuple[dict[str, np.ndarray], dict[str, Any]]


class Cache:
    """A cache directory.

    Args:
        root: the directory; made when it does not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Fail early, with one message, where nothing could be stored.

        Raises:
            CacheError: the directory cannot be made or written.
        """
        probe = self.root / ".writable"
        write_atomically(probe, b"clipq")
        probe.unlink(missing_ok=True)

    def path(self, kind: str, key: str, suffix: str) -> Path:
        """Return where the entry of that kind and key lies (two-level fan-out)."""
        return self.root / kind / key[:2] / f"{key}{suffix}"

    def table(self, kind: str, key: str, create: Callable[[], Table]) -> Table:
        """Return the table stored under `key`, creating it once over all processes."""
        path = self.path(kind, key, ".safetensors")
        try:
            found = _read(path, f"{kind}/{key}")
        except TableError:
            found = None
        if found is None:
            with self.lock(path):
                found = self.read(kind, key)
                if found is None:
                    found = create()
                    write_table(path, *found, key=f"{kind}/{key}")
        return found

    def read(self, kind: str, key: str) -> Table | None:
        """Return the table stored under `key`; None where there is none, or a damaged one.

        Warns:
            UserWarning: it is damaged.
        """
        path = self.path(kind, key, ".safetensors")
        try:
            return _read(path, f"{kind}/{key}")
        except TableError as error:
            damaged(path, error)
            return None

    def lock(self, path: Path) -> FileLock:
        """Return the lock that guards the making of `path`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"cannot use the cache at {self.root}: {error.strerror}",
                hint="point `cache` in clipq.toml to a writable folder",
            ) from error
        return FileLock(path.with_suffix(".lock"))


def damaged(path: Path, error: ClipqError) -> None:
    """Say that an entry was damaged; whoever calls this makes it again."""
    warnings.warn(f"the cache entry {path} is made again: {error.problem}", stacklevel=3)


def _read(path: Path, key: str) -> Table | None:
    """Return the table in a file; None where there is no file.

    Raises:
        TableError: it is not a whole entry of that key.
    """
    if not path.is_file():
        return None
    columns, metadata, _ = read_table(path, key=key)
    return columns, metadata
