"""Which files a quantizer reads: seen while its module is imported and while a model is quantized.

Python tells an audit hook of every file that its own code opens. What native code opens (a runtime
that is given a path) is not seen.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["read_at_import", "unwatched", "watching", "watching_imports"]

T = TypeVar("T")

_WRITES = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_watched = threading.local()
_written: set[str] = set()
"""What was written under a watch: reading it again is no look at anything new."""
_imports: dict[str, set[str]] = defaultdict(set)
"""By source file, what was read while that file's module was imported."""


@contextmanager
def watching() -> Iterator[set[Path]]:
    """Collect the files that this thread reads in the block; the set is filled at its end.

    >>> with watching() as read:
    ...     text = Path("pyproject.toml").read_text()
    >>> Path("pyproject.toml").resolve() in read
    True
    """
    seen: set[str] = set()
    read: set[Path] = set()
    with _noting(seen.add):
        yield read
    read |= _sources(seen)


@contextmanager
def watching_imports() -> Iterator[None]:
    """Remember what every module that is imported in the block reads meanwhile."""

    def note(path: str) -> None:
        frame = sys._getframe(2)  # of whoever opens it
        while frame is not None:
            if frame.f_code.co_name == "<module>":
                _imports[str(Path(frame.f_code.co_filename).resolve())].add(path)
            frame = frame.f_back  # type: ignore[assignment]

    with _noting(note):
        yield


def read_at_import(source: Path) -> set[Path]:
    """Return the files that were read while the module of a source file was imported."""
    return _sources(_imports.get(str(source), set()))


def unwatched(batches: Callable[[], Iterator[T]]) -> Callable[[], Iterator[T]]:
    """Return what yields the same, and whose own reading nobody is asked about.

    >>> read_it = unwatched(lambda: iter([Path("pyproject.toml").read_text()]))
    >>> with watching() as read:
    ...     texts = list(read_it())
    >>> read
    set()
    """

    def wrapped() -> Iterator[T]:
        with _noting(None):
            iterator = iter(batches())
        while True:
            with _noting(None):
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
            yield batch

    return wrapped


@contextmanager
def _noting(note: Callable[[str], Any] | None) -> Iterator[None]:
    _install()
    before = getattr(_watched, "note", None)
    _watched.note = note
    try:
        yield
    finally:
        _watched.note = before


@cache
def _install() -> None:
    sys.addaudithook(_hear)  # for good: a hook cannot be taken away


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" and event != "ctypes.dlopen":
        return
    note = getattr(_watched, "note", None)
    if note is None or isinstance(arguments[0], int) or arguments[0] is None:
        return
    path = str(Path(os.fsdecode(arguments[0])).absolute())
    flags = arguments[2] if event == "open" else 0
    if flags & _WRITES:
        _written.add(path)
    elif path not in _written:
        note(path)


def _sources(paths: set[str]) -> set[Path]:
    """Return which of some paths are files, by the sources that bytecode was compiled from."""
    return {source for path in list(paths) if (source := _known.get(path) or _source(path))}


_known: dict[str, Path] = {}
"""Sources that were found, by path: those of a module's imports are thousands, and asked again."""


def _source(path: str) -> Path | None:
    source = Path(path)
    if source.suffix == ".pyc":
        with suppress(ValueError, NotImplementedError):
            source = Path(importlib.util.source_from_cache(source))
    if not source.is_file():
        return None
    return _known.setdefault(path, source.resolve())
