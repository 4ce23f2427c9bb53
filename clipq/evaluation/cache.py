"""Content-addressed cache: one file per key, written once, whatever the number of processes.

A key is the digest of everything that identifies the content; the file lock makes the second
process wait for the first instead of repeating its work, and is released by the operating system
when a process dies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from clipq.errors import CacheError
from clipq.evaluation.tables import TableError, read_table, write_table
from clipq.files import write_atomically

__all__ = ["Cache", "Table"]

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
        found = _read(path)
        if found is None:
            with self.lock(path):
                found = _read(path)
                if found is None:
                    found = create()
                    write_table(path, *found)
        return found

    def read(self, kind: str, key: str) -> Table | None:
        """Return the table stored under `key`; None where there is none, or a damaged one."""
        return _read(self.path(kind, key, ".safetensors"))

    def file(self, kind: str, key: str, suffix: str, create: Callable[[Path], None]) -> Path:
        """Return a file's path, calling `create(path)` once where it is missing."""
        path = self.path(kind, key, suffix)
        if not path.is_file():
            with self.lock(path):
                if not path.is_file():
                    create(path)
        return path

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


def _read(path: Path) -> Table | None:
    if not path.is_file():
        return None
    try:
        columns, metadata, _ = read_table(path)
    except TableError:
        return None  # a damaged entry is made again; the lock holder overwrites it atomically
    return columns, metadata
