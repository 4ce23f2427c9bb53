"""Files of a sweep's store in an object store, by fsspec.

A part is put on the condition that its name does not exist, which the store itself decides; where a
store is known to do so, it is in `_STORES`. Objects are whole or absent by themselves.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipq.errors import SweepError
from clipq.sweep.store_files import LocalFiles, StoreFiles

__all__ = ["ObjectFiles", "is_url", "opened"]

_STORES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "memory": "fsspec",
}
"""Protocols whose file system creates an object only where there is none, and who has them."""


def is_url(place: str) -> bool:
    """Whether a place is an address, and no folder.

    >>> is_url("s3://bucket/sweep"), is_url("runs/sweep")
    (True, False)
    """
    return "://" in place


def opened(url: str) -> StoreFiles:
    """Return the files at an address.

    Raises:
        SweepError: no store is known by its protocol, or the package for it is missing.

    >>> opened("file:///tmp/sweep").shown("parts"), opened("memory://sweep").shown("parts")
    ('/tmp/sweep/parts', 'memory://sweep/parts')
    """
    protocol, _, rest = url.partition("://")
    if protocol in ("file", "local"):
        if not rest.startswith("/"):
            raise SweepError(f"{url} names no folder", hint="write file:///FOLDER, or the folder")
        return LocalFiles(Path(rest))
    if protocol not in _STORES:
        raise SweepError(
            f"{url}: parts are not stored by {protocol}://",
            hint=f"a folder, file:// or one of {', '.join(sorted(_STORES))}: they create an object "
            "only where there is none",
        )
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SweepError(
            f"{url} needs {_STORES[protocol]}, which is not there: {error}",
            hint=f"pip install {_STORES[protocol]}",
        ) from error
    except Exception as error:  # of whatever library the store has
        raise SweepError(f"{url} cannot be opened: {error!r}", hint=_HINT) from error
    return ObjectFiles(system, str(root).rstrip("/"), url.rstrip("/"))


_HINT = "see that the bucket exists, and that credentials are where its library looks for them"


class ObjectFiles:
    """Files under an address; a `StoreFiles`.

    Args:
        system: fsspec's.
        root: the address, as `system` has it.
        url: the address, as people have it.

    >>> files = opened("memory://doc/sweep")
    >>> files.create("parts/0f/0f", b"one"), files.create("parts/0f/0f", b"two")
    (True, False)
    >>> files.names("parts"), files.read("parts/0f/0f")
    (['parts/0f/0f'], b'one')
    """

    checked_by_listing = True

    def __init__(self, system: Any, root: str, url: str) -> None:
        self._system = system
        self._root = root
        self._url = url
        self._copies: Path | None = None

    def shown(self, name: str = "") -> str:
        return f"{self._url}/{name}".rstrip("/")

    def names(self, under: str) -> list[str]:
        self._system.invalidate_cache()
        with _told():
            try:
                found = self._system.find(self._at(under), detail=True)
            except FileNotFoundError:
                return []
        start = len(self._system._strip_protocol(self._root)) + 1
        return sorted(path[start:] for path, told in found.items() if told.get("size"))

    def read(self, name: str) -> bytes:
        with _told():
            content: bytes = self._system.cat_file(self._at(name))
            return content

    def local(self, names: Sequence[str]) -> list[Path]:
        """Return copies, which are fetched at once and kept until this object goes."""
        folder = self._folder()
        paths = [folder / name for name in names]
        lacking = [(name, path) for name, path in zip(names, paths, strict=True)
                   if not path.exists()]  # fmt: skip
        if lacking:
            for _, path in lacking:
                path.parent.mkdir(parents=True, exist_ok=True)
            with _told():
                self._system.get(
                    [self._at(name) for name, _ in lacking], [str(path) for _, path in lacking]
                )
        return paths

    def create(self, name: str, content: bytes) -> bool:
        with _told():
            try:
                self._system.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
            except Exception:
                # Some say only that a condition failed. None keeps half an object.
                self._system.invalidate_cache()
                if self._system.exists(self._at(name)):
                    return False
                raise
        return True

    def adopt(self, path: Path, name: str) -> bool:
        there = name in self.names(name.rpartition("/")[0])
        with _told():
            # Unconditional, for all that can send in pieces: what is adopted is named by its bytes.
            self._system.put_file(str(path), self._at(name))
        path.unlink()
        return not there

    def replace(self, name: str, content: bytes) -> str:
        aside = self._aside(name)
        with _told():
            self._system.pipe_file(self._at(name), content, mode="overwrite")
        self._forget(name)
        return aside

    def set_aside(self, name: str) -> str:
        aside = self._aside(name)
        self.remove([name])
        return aside

    def remove(self, names: Sequence[str]) -> None:
        if names:
            with _told():
                self._system.rm([self._at(name) for name in names])
        for name in names:
            self._forget(name)

    def scratch(self) -> Path:
        with tempfile.NamedTemporaryFile(dir=self._folder(), delete=False) as stream:
            return Path(stream.name)

    def tidy(self, seconds: float) -> None:
        """Do nothing: what was being sent when a process ended is no object."""

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _folder(self) -> Path:
        """Return this machine's folder for copies, which goes with this object."""
        if self._copies is None:
            self._copies = Path(tempfile.mkdtemp(prefix="clipq-sweep-"))
            weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
        return self._copies

    def _forget(self, name: str) -> None:
        if self._copies is not None:
            (self._copies / name).unlink(missing_ok=True)

    def _aside(self, name: str) -> str:
        aside = f"damaged/{name.rpartition('/')[2]}"
        with _told():
            self._system.copy(self._at(name), self._at(aside))
        return self.shown(aside)


@contextmanager
def _told() -> Iterator[None]:
    """Make what a store's library raises an `OSError`: of those there are many kinds."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
