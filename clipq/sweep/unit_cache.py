"""A cache that keeps what many units need and forgets what one unit alone does.

Features of thousands of quantizers would fill a disk, and nothing asks for them again: the part of
a unit is what stays of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipq.evaluation.cache import Cache, Table

__all__ = ["UnitCache"]


class UnitCache(Cache):
    """A cache on disk, of which entries may be kept in memory for a while instead.

    What is on disk is read in either case.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     cache = UnitCache(Path(folder))
    ...     with cache.passing():
    ...         made = [cache.table("head", "0f", lambda: ({}, {"n": 1}))[1] for _ in range(2)]
    ...     made, cache.read("head", "0f"), cache.table("head", "0f", lambda: ({}, {"n": 2}))[1]
    ([{'n': 1}, {'n': 1}], None, {'n': 2})
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._passing: dict[tuple[str, str], Table] | None = None

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Keep what is made within in memory, until the end of it."""
        self._passing = {}
        try:
            yield
        finally:
            self._passing = None

    def table(self, kind: str, key: str, create: Callable[[], Table]) -> Table:
        """Return the table stored under `key`, made where there is none."""
        if self._passing is None:
            return super().table(kind, key, create)
        found = self._passing.get((kind, key)) or self.read(kind, key)
        if found is None:
            found = create()
            if self._passing is not None:
                self._passing[kind, key] = found
        return found
