"""Notes what libraries are like the moment they have been imported, before anybody's next line.

What imports a library for the first time and then changes it could otherwise not be told from the
library itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from clipq.evaluation.process_names import is_watched

__all__ = ["noted_imports"]


@contextmanager
def noted_imports(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` after each import of a watched library, with all that it imports itself.

    >>> import sys
    >>> noted = []
    >>> _ = sys.modules.pop("clipq.evaluation.seeding", None)
    >>> with noted_imports(lambda: noted.append("clipq.evaluation.seeding" in sys.modules)):
    ...     import clipq.evaluation.seeding
    >>> noted
    [True]
    """
    finder = _Finder(note)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _Finder:
    """Finds what the finders after it do, with a loader that says when it is done."""

    def __init__(self, note: Callable[[], None]) -> None:
        self.note = note
        self.under_way = 0
        self._asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module is loaded, of a watched one with `note` after it."""
        if self._asking or not is_watched(name):
            return None
        self._asking = True
        try:
            found = find_spec(name)
        except (ImportError, ValueError):
            return None  # whoever is asked next says why
        finally:
            self._asking = False
        if found is not None and hasattr(found.loader, "exec_module"):
            found.loader = _Loader(found.loader, self)  # type: ignore[assignment]
        return found


class _Loader:
    """Loads as another loader does, and tells the finder when nothing more is under way."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the other loader makes."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code; it then looks as if nobody had been there."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._finder.under_way += 1
        try:
            self._loader.exec_module(module)
        finally:
            self._finder.under_way -= 1
        if not self._finder.under_way:
            self._finder.note()
