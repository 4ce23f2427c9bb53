"""What is public: the names that `clipq` offers, and those of every module on a reference page.

A line `::: clipq.cases` of a reference page makes everything in that module's `__all__` public,
`::: clipq.api.arguments.open_probe` one name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import clipq

REPOSITORY = Path(__file__).parents[3]
_LISTED = re.compile(r"^::: (\S+)$", re.MULTILINE)


def reference_entries() -> list[str]:
    """Return what reference pages show, modules and single names, sorted."""
    pages = (REPOSITORY / "docs" / "reference").glob("*.md")
    return sorted({entry for page in pages for entry in _LISTED.findall(page.read_text())})


def public_objects() -> dict[str, object]:
    """Return every public function and class by its full name, where it is defined."""
    found = {}
    for entry in reference_entries():
        found |= dict(_of_entry(entry))
    found |= {
        _name(thing): thing
        for name in clipq.__all__
        if _has_docstring(thing := getattr(clipq, name))
    }
    return dict(sorted(found.items()))


def _of_entry(entry: str) -> Iterator[tuple[str, object]]:
    try:
        module = import_module(entry)
    except ModuleNotFoundError:
        package, _, name = entry.rpartition(".")
        yield entry, getattr(import_module(package), name)
        return
    for name in module.__all__:
        thing = getattr(module, name)
        if _has_docstring(thing) and thing.__module__ == entry:
            yield _name(thing), thing


def _has_docstring(thing: object) -> bool:
    """Whether it is a function or a class: constants and aliases of types have no docstring."""
    return inspect.isfunction(thing) or inspect.isclass(thing)


def _name(thing: object) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"  # type: ignore[attr-defined]
