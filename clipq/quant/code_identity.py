"""What identifies the code behind a quantizer method: sources, data, variables, packages."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipq.dependencies.file_reads import read_at_import
from clipq.dependencies.import_graph import Dependencies, dependencies, project_root
from clipq.dependencies.installed import is_installed, versions_behind
from clipq.errors import QuantizerError
from clipq.provenance import digest, sha256_file
from clipq.quant.methods import OWN, defining_module, find_method, is_builtin, quantizers
from clipq.quant.spec import QuantizerSpec

__all__ = ["MethodCode", "method_code", "method_code_hash"]


@dataclass(frozen=True, slots=True)
class MethodCode:
    """Everything that is known to decide what a method does, and what is not known.

    Args:
        parts: (what, its hash or version), sorted; paths are relative to the project.
        unknown: sentences on what the hash does not cover.
        files: those that are hashed, but for clipq's own.
        roots: folders of the projects that they belong to.

    >>> code = method_code("rtn:w8")
    >>> [name for name, _ in code.parts], code.unknown
    (['clipq.quant'], ())
    """

    parts: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...] = ()
    files: frozenset[Path] = frozenset()
    roots: frozenset[Path] = frozenset()

    @property
    def sha256(self) -> str:
        """The SHA-256 (hex) of it all."""
        return digest(self.parts)

    def undeclared(self, read: Iterable[Path] = ()) -> tuple[Path, ...]:
        """Return the files of the project that were read and are not hashed, sorted.

        What lies in a folder whose name begins with a dot is a cache or a tool's own.

        Args:
            read: while a model was quantized; what was read while modules were imported is known.
        """
        seen = {path for source in self.files for path in read_at_import(source)}.union(read)
        return tuple(
            sorted(
                path
                for path in seen - self.files
                if any(_lies_in(path, root) for root in self.roots) and not is_installed(path)
            )
        )


def _lies_in(path: Path, root: Path) -> bool:
    if not path.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in path.relative_to(root).parent.parts)


def method_code_hash(spec: QuantizerSpec | str) -> str:
    """Return the SHA-256 (hex) of the code behind a method, so that edits never reuse results.

    Raises:
        QuantizerError: as `method_code`.

    >>> method_code_hash("rtn:w8") == method_code_hash("rtn:w4@vision")  # one method, one code
    True
    """
    return method_code(spec).sha256


def method_code(spec: QuantizerSpec | str) -> MethodCode:
    """Return what identifies the code behind a method.

    That is every source file of `clipq.quant`, which any method may build upon; the modules that
    define and register the method and all that they import, but for installed packages, of which
    the versions are taken; files and environment variables that those name or the method declares;
    and the file of the option `table`, which changes results as code does.

    Raises:
        QuantizerError: a source, a declared file or the table cannot be read.

    >>> code = method_code("rtn:w8")
    >>> len(code.sha256), code.undeclared([Path("pyproject.toml").resolve()])
    (64, ())
    """
    spec = QuantizerSpec.parse(spec)
    parts = [("clipq.quant", _package_hash())]
    table = dict(spec.options).get("table")
    if table is not None:
        try:
            parts.append(("table", hashlib.sha256(Path(table).read_bytes()).hexdigest()))
        except OSError as error:
            raise QuantizerError(
                f"the table of formats {table!r} cannot be read: {error}",
                hint="paths are relative to where clipq runs",
            ) from error
    # Clipq's own is not imported for it, which takes seconds: whoever plans a sweep only asks this.
    if quantizers.origin(spec.method).startswith(OWN) or is_builtin(method := find_method(spec)):
        return MethodCode(tuple(parts))
    own = _source_file(method, spec.method)
    found = dependencies(defining_module(method), quantizers.origin(spec.method))
    found.files.add(own)
    found.files |= _declared_files(method, spec.method, own)
    found.variables |= set(_declared(method, "environment", spec.method))
    return _described(parts, found, project_root(own), table)


def _described(
    parts: list[tuple[str, str]], found: Dependencies, root: Path, table: str | None
) -> MethodCode:
    for path in found.files:
        try:
            parts.append((f"file {_relative(path, root)}", _hashed(path)))
        except OSError as error:
            raise QuantizerError(
                f"{path}, which a quantizer depends on, cannot be read: {error.strerror}",
                hint="results could not be told from those of another edit: make it readable",
            ) from error
    parts += [(f"package {name}", of) for name, of in versions_behind(found.packages).items()]
    for name in found.variables:
        value = os.environ.get(name)
        said = "not set" if value is None else digest(value)
        parts.append((f"variable {name}", said))
    return MethodCode(
        tuple(sorted(parts)),
        tuple(sorted(found.unknown)),
        frozenset(found.files) | ({Path(table).resolve()} if table else set()),
        frozenset(map(project_root, found.files)) | {root},
    )


def _package_hash() -> str:
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.resolve().rglob("*.py")):
        content = path.read_bytes()
        total.update(f"{path.name}:{len(content)}\n".encode() + content)
    return total.hexdigest()


def _relative(path: Path, root: Path) -> str:
    """Return a path as every machine calls it; of one outside of the project, its name."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _hashed(path: Path) -> str:
    stat = path.stat()
    return _hashed_once(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=4096)
def _hashed_once(path: Path, *_: int) -> str:
    return sha256_file(path)


def _declared(method: Any, attribute: str, name: str) -> Collection[str]:
    """Return what a method was registered with: ``files`` or ``environment``."""
    given = getattr(method, attribute, ())
    if not isinstance(given, (tuple, list)) or not all(isinstance(one, str) for one in given):
        raise QuantizerError(
            f"quantizer method {name!r} declares {attribute} = {given!r}, not a tuple of texts",
            hint=f'@quantizers.register("{name}", {attribute}=("one", "two"))',
        )
    return given


def _declared_files(method: Any, name: str, own: Path) -> set[Path]:
    found: set[Path] = set()
    for pattern in _declared(method, "files", name):
        given = Path(pattern)
        if given.is_absolute():
            matching = [given] if given.is_file() else []
        else:
            matching = [path for path in own.parent.glob(pattern) if path.is_file()]
        if not matching:
            raise QuantizerError(
                f"quantizer method {name!r} declares the file {pattern!r}, which is not there",
                hint=f"files and globs are relative to {own.parent}",
            )
        found.update(path.resolve() for path in matching)
    return found


def _source_file(method: Any, name: str) -> Path:
    where = defining_module(method)
    path = getattr(sys.modules.get(where), "__file__", None)
    if path is None or not Path(path).is_file():
        raise QuantizerError(
            f"the source of quantizer method {name!r} (module {where!r}) "
            "cannot be found, so its results could not be told from those of another edit",
            hint="define the method in a file",
        )
    return Path(path).resolve()
