"""Which files, packages and environment variables a module depends on, read off its source.

Nothing is imported to find out. An import counts wherever it stands, in a function too; one whose
name is computed cannot be followed and is said instead.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from clipq.dependencies.installed import IN_ENVIRONMENT, is_installed

__all__ = ["Dependencies", "dependencies", "file_dependencies", "project_root"]

_IMPORTERS = ("import_module", "__import__")
_READERS = ("getenv", "get", "pop", "setdefault")
_FIRST = ("name", "key")
"""What the first argument of all these is called."""
_MARKERS = ("clipq.toml", "pyproject.toml", "setup.py", "setup.cfg", ".git")


@dataclass(slots=True)
class Dependencies:
    """What some modules depend on.

    Args:
        files: sources of the modules and of all that they import outside of installed packages, and
            files that a text in them names.
        packages: names of the installed top-level packages that they import.
        variables: names of the environment variables that they read.
        unknown: sentences on what cannot be told from the source.
    """

    files: set[Path] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def dependencies(*modules: str) -> Dependencies:
    """Return what loaded modules depend on, by way of whatever they import.

    Args:
        modules: their names; clipq's own are left out.

    >>> found = dependencies("clipq.quant")
    >>> found.files, found.packages
    (set(), set())
    """
    found = Dependencies()
    waiting, seen = list(modules), set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _follow(name, modules, found)
    return found


def project_root(path: Path) -> Path:
    """Return the folder of the project that a file belongs to: its own where nothing marks one.

    >>> project_root(Path("clipq/quant/rtn.py")) == Path.cwd()
    True
    """
    folder = path.resolve().parent
    for candidate in (folder, *folder.parents):
        if candidate != Path.home() and any((candidate / name).exists() for name in _MARKERS):
            return candidate
    return folder


def file_dependencies(path: Path, search: Sequence[Path | str]) -> Dependencies:
    """Return what a file of Python depends on that is run by its path.

    What is loaded already is not looked at: the answer is the same before the file runs and after.

    Args:
        path: of the file.
        search: folders in which its imports are looked up, the first first. What lies in the first
            hides Python's own modules, as it does when a file is run.

    >>> found = file_dependencies(Path("benchmarks/zero_shot.py"), ["benchmarks"])
    >>> "embedded.py" in {file.name for file in found.files}
    True
    """
    PathFinder.invalidate_caches()
    folders = [str(folder) for folder in search]
    found = Dependencies(files={path.resolve()})
    waiting, seen = _imported_by("", "", path, found), set()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or not top:
            continue
        seen.add(name)
        hidden = PathFinder.find_spec(top, folders[:1])
        common = top in sys.stdlib_module_names or top in IN_ENVIRONMENT
        if common and (hidden is None or not hidden.has_location):
            if top in IN_ENVIRONMENT:
                found.packages.add(top)
            continue
        spec = _spec_in(name, folders)
        if spec is not None:
            waiting += _noted(name, spec, found, ours=False, loaded=False)
    return found


def _follow(name: str, own: tuple[str, ...], found: Dependencies) -> list[str]:
    """Note what one module is; return the names of those that it imports, if they matter."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in IN_ENVIRONMENT:
        return []
    spec = _spec(name)
    if spec is None:
        return []  # an optional package that is not there, or an attribute and no module
    ours = any(top == module.partition(".")[0] for module in own)
    return _noted(name, spec, found, ours=ours, loaded=True)


def _noted(
    name: str, spec: ModuleSpec, found: Dependencies, *, ours: bool, loaded: bool
) -> list[str]:
    """Note a module that was found; return the names of those that it imports."""
    parents = [name.rpartition(".")[0]] if "." in name else []
    if spec.origin is None or not spec.has_location:
        return parents  # a namespace: what is imported of it is followed by itself
    path = Path(spec.origin)
    if is_installed(path) and not ours:
        found.packages.add(name.partition(".")[0])
        return []
    if not path.is_file():
        found.unknown.add(f"module {name} has no file of its own: {path}")
        return parents
    found.files.add(path.resolve())
    if path.suffix != ".py":
        found.unknown.add(f"module {name} is compiled: what it reads and loads is not seen")
        return parents
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    imported = _imported_by(name if loaded else "", package, path, found)
    return [*parents, *imported, *(_objects(sys.modules.get(name)) if loaded else ())]


def _imported_by(name: str, package: str, path: Path, found: Dependencies) -> list[str]:
    """Note what a source says it needs; return the names of the modules that it imports."""
    reader = _Reader(name, package, path, found)
    reader.visit(_parsed(path, found))
    return reader.imported


def _parsed(path: Path, found: Dependencies) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), path.name)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        found.unknown.add(f"{path.name} cannot be read as Python: {error}")
        return ast.Module([], [])


def _objects(module: ModuleType | None) -> Iterator[str]:
    """Yield where what a loaded module holds was defined, however it was imported."""
    for value in list(vars(module).values()) if module is not None else ():
        where = value.__name__ if isinstance(value, ModuleType) else _defined_in(value)
        if where:
            yield where


def _defined_in(value: object) -> str:
    # Of functions and classes alone: an object of any other kind may do anything when it is asked.
    where = getattr(value, "__module__", None) if callable(value) else None
    return where if isinstance(where, str) else ""


def _spec(name: str) -> ModuleSpec | None:
    """Return how a module is, or would be, imported; no package is, to find out."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__spec__", None) is not None:
        return loaded.__spec__
    if loaded is not None and getattr(loaded, "__file__", None):
        return importlib.util.spec_from_file_location(name, loaded.__file__)
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return _first_found(name)
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(name, list(above.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return None
    except KeyError:  # a folder without __init__.py, whose parent nobody has imported
        return None


def _first_found(name: str) -> ModuleSpec | None:
    """Return what the first of Python's finders to know a top-level module says of it.

    Setuptools' own is not asked: taking the question for the import, it changes what later imports
    of `setuptools` and `distutils` find.
    """
    for finder in sys.meta_path:
        kind = finder if isinstance(finder, type) else type(finder)
        ask = getattr(finder, "find_spec", None)
        if ask is not None and kind.__module__ != "_distutils_hack":
            spec: ModuleSpec | None = ask(name, None)
            if spec is not None:
                return spec
    return None


def _spec_in(name: str, folders: list[str]) -> ModuleSpec | None:
    """Return how a module would be imported of some folders; no package is, to find out."""
    parent, _, _ = name.rpartition(".")
    above = _spec_in(parent, folders) if parent else None
    if parent and (above is None or above.submodule_search_locations is None):
        return None
    where = folders if above is None else list(above.submodule_search_locations or ())
    try:
        return PathFinder.find_spec(name, where)
    except (ImportError, ValueError, AttributeError):
        return None


class _Reader(ast.NodeVisitor):
    """Collects what one module's source says it needs."""

    def __init__(self, name: str, package: str, path: Path, found: Dependencies) -> None:
        self.name, self.package, self.path, self.found = name, package, path, found
        self.imported: list[str] = []
        self._aliases: dict[str, str] = {}
        self._understood: set[ast.expr] = set()
        self._folders = {path.parent, project_root(path), Path.cwd()}

    def visit_Import(self, node: ast.Import) -> None:
        self.imported += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._absolute(node.module or "", node.level)
        self.imported += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        self._aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}

    def visit_Constant(self, node: ast.Constant) -> None:
        """Note the files that a text names: data that the module reads, as a rule."""
        text = node.value
        if not isinstance(text, str) or not 0 < len(text) < 256 or "\n" in text or "\0" in text:
            return
        for folder in self._folders:
            try:
                if (folder / text).is_file():
                    self.found.files.add((folder / text).resolve())
            except OSError:  # too long for a name
                continue

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._last(node.value) == "environ":
            self._understood.add(node.value)
            self._variable(node.slice)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if self._last(node.comparators[0]) == "environ":
            self._understood.add(node.comparators[0])
            self._variable(node.left)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = self._last(node.func)
        given = [*node.args, *(word.value for word in node.keywords if word.arg in _FIRST)]
        if called in _IMPORTERS:
            self._dynamic(given[0] if given else node)
        of = node.func.value if isinstance(node.func, ast.Attribute) else None
        of_environ = of is not None and self._last(of) == "environ" and called in _READERS
        if of_environ and of is not None:
            self._understood.add(of)
        if of_environ or called == "getenv":
            self._variable(given[0] if given else node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._environment(node)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self._environment(node)

    def _environment(self, node: ast.Attribute | ast.Name) -> None:
        if self._last(node) == "environ" and node not in self._understood:
            self._say(node, "uses all environment variables")

    def _dynamic(self, node: ast.expr) -> None:
        name = self._text(node)
        if name is None:
            self._say(node, "imports a module whose name is computed")
            return
        level = len(name) - len(name.lstrip("."))
        self.imported.append(self._absolute(name.lstrip("."), level))

    def _variable(self, node: ast.expr) -> None:
        name = self._text(node)
        if name is None:
            self._say(node, "reads an environment variable whose name is computed")
        else:
            self.found.variables.add(name)

    def _text(self, node: ast.expr) -> str | None:
        """Return the text that an expression is: a constant, or a name of the loaded module."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            value = getattr(sys.modules.get(self.name), node.id, None)
            return value if isinstance(value, str) else None
        return None

    def _say(self, node: ast.expr, what: str) -> None:
        self.found.unknown.add(f"{self.path.name}, line {node.lineno}: {what}")

    def _absolute(self, name: str, level: int) -> str:
        if not level:
            return name
        parts = self.package.split(".")
        base = ".".join(parts[: len(parts) - level + 1])
        return f"{base}.{name}" if name else base

    def _last(self, node: ast.expr) -> str:
        """Return the last name of ``a.b.c``; of one that was imported under another, its own."""
        if isinstance(node, ast.Attribute):
            return node.attr
        return self._aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""
