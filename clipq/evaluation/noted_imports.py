"""Tells what an installed library does as it is imported from what its importer does.

A library that is imported for the first time may set environment variables and rebind names, its
own or others': that is its own doing, and whether FP32 still answers as it did is asked in any
case. The next line of whoever imported it is another matter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from clipq.dependencies.installed import is_installed

__all__ = ["noted_imports"]


@contextmanager
def noted_imports(
    before: Callable[[], Any], after: Callable[[Any], None], *, but: str = ""
) -> Iterator[None]:
    """Call `before` and then `after` around each import of an installed library.

    Around the first of those that import one another; `after` is given what `before` returned.

    Args:
        before: called first.
        after: called when the library and all that it imports are there.
        but: a package that is nobody's library here, wherever it is installed.

    >>> import sys
    >>> _ = sys.modules.pop("colorsys", None)
    >>> with noted_imports(lambda: "as it was before", print):
    ...     import colorsys
    as it was before
    """
    finder = _Finder(before, after, but)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _Finder:
    """Finds what the finders after it do, with a loader that says when it begins and is done."""

    def __init__(self, before: Callable[[], Any], after: Callable[[Any], None], but: str) -> None:
        self.before, self.after = before, after
        self.under_way = 0
        self._but = but
        self._asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module is loaded, of a library with `before` and `after` around it."""
        if self._asking or name.partition(".")[0] == self._but:
            return None
        self._asking = True
        try:
            found = find_spec(name)
        except (ImportError, ValueError):
            return None  # whoever is asked next says why
        finally:
            self._asking = False
        if found is None or not is_installed(Path(found.origin or "")):
            return None
        if not hasattr(found.loader, "exec_module"):
            return None
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
        finder = self._finder
        moment = None if finder.under_way else finder.before()
        finder.under_way += 1
        try:
            self._loader.exec_module(module)
        finally:
            finder.under_way -= 1
            if not finder.under_way:
                finder.after(moment)
