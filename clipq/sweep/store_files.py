"""Files of a sweep's store in a folder: whole or absent, on the disk before anybody is told so.

    parts/4f/4f1c...9a.parquet     rows of a unit
    compacted/81ab...07.parquet    rows of many units
    damaged/                       what was found damaged, and made again
    temporary/                     what is being written

A file gets its name by `link`, which fails where the name exists: of many that write the same
exactly one wins. That holds on local file systems, and on NFS, where a link is one operation of the
server.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

__all__ = ["LocalFiles", "StoreFiles"]

_DAY = 86_400.0


class StoreFiles(Protocol):
    """Where a store's files are. Names are relative, with slashes; failures are `OSError`."""

    checked_by_listing: bool
    """Whether a name that is listed is a whole file: the storage takes no half of one."""

    def shown(self, name: str = "") -> str:
        """Return what messages call a file."""
        ...

    def names(self, under: str) -> list[str]:
        """Return the names of the files in a folder and below, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        ...

    def local(self, names: Sequence[str]) -> list[Path]:
        """Return files of this machine that hold what the names hold."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a file, durably; return False where the name exists."""
        ...

    def adopt(self, path: Path, name: str) -> bool:
        """Store a file of `scratch` under a name, durably; return False where it exists."""
        ...

    def replace(self, name: str, content: bytes) -> str:
        """Write a file in the place of a damaged one; return where the damaged one is now."""
        ...

    def set_aside(self, name: str) -> str:
        """Take a damaged file out of the store; return where it is now."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Delete files."""
        ...

    def scratch(self) -> Path:
        """Return the path of a new empty file of this machine, to be adopted or dropped."""
        ...

    def tidy(self, seconds: float) -> None:
        """Drop what processes that ended have left half-written, older than `seconds`."""
        ...


class LocalFiles:
    """Files in a folder of this machine or of NFS.

    Args:
        folder: made with the first file.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = LocalFiles(Path(folder))
    ...     print(files.create("parts/0f/0f", b"one"), files.create("parts/0f/0f", b"two"))
    ...     print(files.names("parts"), files.read("parts/0f/0f"))
    True False
    ['parts/0f/0f'] b'one'
    """

    checked_by_listing = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._durable: set[Path] = set()
        self._tidied = False

    def shown(self, name: str = "") -> str:
        return str(self.folder / name)

    def names(self, under: str) -> list[str]:
        found = []
        for parent, folders, names in os.walk(self.folder / under):
            folders.sort()
            at = Path(parent).relative_to(self.folder).as_posix()
            found += [f"{at}/{name}" for name in names if not name.startswith(".")]
        return sorted(found)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def local(self, names: Sequence[str]) -> list[Path]:
        return [self.folder / name for name in names]

    def create(self, name: str, content: bytes) -> bool:
        with self._written(content) as temporary:
            return self._linked(temporary, self.folder / name)

    def adopt(self, path: Path, name: str) -> bool:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        path.chmod(0o644)
        linked = self._linked(path, self.folder / name)
        path.unlink()
        return linked

    def replace(self, name: str, content: bytes) -> str:
        path = self.folder / name
        with self._written(content) as temporary:
            aside = self._aside(path)
            # At no moment is the name without a file; of two that do this at once both put the
            # same rows there.
            copy = temporary.with_suffix(".own.tmp")
            os.link(temporary, copy)
            copy.replace(path)
        _sync(path.parent)
        return str(aside)

    def set_aside(self, name: str) -> str:
        path = self.folder / name
        aside = self._aside(path)
        path.unlink()
        _sync(path.parent)
        return str(aside)

    def remove(self, names: Sequence[str]) -> None:
        parents = set()
        for name in names:
            path = self.folder / name
            path.unlink(missing_ok=True)
            parents.add(path.parent)
        for parent in sorted(parents):
            _sync(parent)

    def scratch(self) -> Path:
        self._make(self.folder / "temporary")
        descriptor, name = tempfile.mkstemp(dir=self.folder / "temporary", suffix=".tmp")
        os.close(descriptor)
        return Path(name)

    def tidy(self, seconds: float) -> None:
        before = time.time() - seconds
        for path in (self.folder / "temporary").glob("*.tmp"):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
            except FileNotFoundError:
                pass  # its writer was faster

    @contextmanager
    def _written(self, content: bytes) -> Iterator[Path]:
        """Yield a temporary file with this content, which is gone afterwards."""
        if not self._tidied:
            self._tidied = True
            self.tidy(_DAY)
        temporary = self.scratch()
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _linked(self, temporary: Path, path: Path) -> bool:
        self._make(path.parent)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync(path.parent)
        return True

    def _aside(self, path: Path) -> Path:
        """Give a file a second name among the damaged ones."""
        folder = self.folder / "damaged"
        self._make(folder)
        number = 0
        while True:
            aside = folder / (path.name + (f".{number}" if number else ""))
            try:
                os.link(path, aside)
            except FileExistsError:
                number += 1
            else:
                _sync(folder)
                return aside

    def _make(self, folder: Path) -> None:
        """Make a folder, and see that its own name, and its parents', are on the disk."""
        if folder in self._durable:
            return
        if folder != self.folder:
            self._make(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)  # though another process made it: that one may not have come to it
        self._durable.add(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
