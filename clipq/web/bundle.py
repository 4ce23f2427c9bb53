"""One script of many modules: what a page's first module needs, each once, those below first.

The pages are opened as files, where browsers load no modules. All modules share the one scope of a
function, so a name is declared once in the whole folder (a test holds that), and their imports need
no more than to be left out.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from graphlib import TopologicalSorter
from importlib.resources import files
from string import Template

__all__ = ["imports", "modules", "page_script", "page_styles", "page_template"]

_STYLES = ("theme.css", "layout.css", "tables.css", "charts.css")
_IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|const|let) )", re.MULTILINE)


def page_script(first: str) -> str:
    """Return the script of the page whose first module is `first`, such as ``report/main.js``.

    What it declares is its own: nothing of the page's (open, close, find ...) is replaced.

    Raises:
        graphlib.CycleError: modules import each other in a circle.
    """
    bodies = [_EXPORT.sub("", _IMPORT.sub("", _read(name))).strip("\n") for name in modules(first)]
    return '(() => {\n"use strict";\n' + "\n\n".join(bodies) + "\n})();\n"


def modules(first: str) -> tuple[str, ...]:
    """Return the modules that `first` needs and itself, each after those that it imports."""
    needed: dict[str, list[str]] = {}
    found = [first]
    while found:
        name = found.pop()
        if name not in needed:
            needed[name] = list(imports(name))
            found += needed[name]
    return tuple(TopologicalSorter(needed).static_order())


def imports(name: str) -> dict[str, tuple[str, ...]]:
    """Return what a module imports: names by the module that they come from."""
    folder = posixpath.dirname(name)
    return {
        posixpath.normpath(posixpath.join(folder, source)): tuple(
            part.strip() for part in names.split(",") if part.strip()
        )
        for names, source in _IMPORT.findall(_read(name))
    }


def page_styles(own: str) -> str:
    """Return one style sheet: what both pages share, around a page's `own`; paper comes last."""
    shared = [f"shared/{name}" for name in _STYLES]
    return "\n".join(_read(name) for name in (*shared, own, "shared/print.css"))


def page_template(name: str) -> Template:
    """Return a page with places for its script, styles and data."""
    return Template(_read(name))


@cache
def _read(name: str) -> str:
    return files(__package__).joinpath(*name.split("/")).read_text(encoding="utf-8")
