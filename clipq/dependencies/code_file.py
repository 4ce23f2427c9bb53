"""A file of Python that a project's settings name, to call one of its functions.

Modules of the project are compiled anew: bytecode that was kept is known by the second and the size
of its source, and an edit may change neither.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from clipq.dependencies.import_graph import Dependencies, file_dependencies, project_root
from clipq.dependencies.installed import is_installed
from clipq.errors import ClipqError, did_you_mean, listed
from clipq.provenance import digest

__all__ = ["CodeFile", "code_folders", "variables_behind"]


def code_folders(path: Path) -> list[str]:
    """Return the folders in which a file's imports are looked up.

    Its own first, as for a script; its project's last, so that nothing there hides a library.

    >>> folders = code_folders(Path("benchmarks/benchmark.py"))
    >>> Path(folders[0]).name, Path(folders[-1]) == Path.cwd()
    ('benchmarks', True)
    """
    return [str(path.resolve().parent), *sys.path, str(project_root(path))]


def variables_behind(names: Iterable[str]) -> dict[str, str]:
    """Return what identifies the values of environment variables, which may be secret.

    >>> variables_behind(["NOBODY_SETS_THIS"])
    {'NOBODY_SETS_THIS': 'not set'}
    """
    values = {name: os.environ.get(name) for name in sorted(names)}
    return {name: "not set" if value is None else digest(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A file of Python, and what is raised where it fails.

    Args:
        path: of the file.
        error: raised with what is wrong and how to mend it.

    >>> from clipq.errors import ProbeError
    >>> CodeFile(Path("benchmarks/benchmark.py"), ProbeError).depends().packages
    set()
    """

    path: Path
    error: type[ClipqError]

    def depends(self) -> Dependencies:
        """Return what the file depends on, read off its source."""
        return file_dependencies(self.path, code_folders(self.path))

    def module(self) -> ModuleType:
        """Return the module of the file, run anew.

        Raises:
            ClipqError: of the kind `error`: it cannot be read, or fails.
        """
        finder = _ProjectFinder(self.path)
        known = (one.path for one in sys.meta_path if isinstance(one, _ProjectFinder))
        if self.path not in known:
            # Behind what knows Python's built-in modules; for good: a function may import later.
            at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
            sys.meta_path.insert(at, finder)
        module = ModuleType(f"code_of_{self.path.stem}")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # dataclasses and pickles look it up there
        try:
            source = self.path.read_bytes()
        except OSError as error:
            raise self.error(
                f"{self.path} cannot be read: {error.strerror}",
                hint="paths are relative to clipq.toml",
            ) from error
        self.called(
            lambda: exec(compile(source, self.path, "exec"), vars(module)),
            f"{self.path} cannot run",
        )
        return module

    def function(self, module: ModuleType, name: str) -> Callable[..., Any]:
        """Return a function of the module.

        Raises:
            ClipqError: of the kind `error`: there is none of that name.
        """
        found = getattr(module, name, None)
        if callable(found):
            made: Callable[..., Any] = found
            return made
        defined = inspect.getmembers(module, inspect.isfunction)
        own = [known for known, value in defined if value.__module__ == module.__name__]
        raise self.error(
            f"{self.path} has no function {name!r}" if name else f"no function of {self.path}",
            hint=f"write {self.path.name}:FUNCTION; {did_you_mean(name, own)}",
        )

    def called(self, run: Callable[[], Any], what: str) -> Any:
        """Return what some of the file's code returns.

        Raises:
            ClipqError: what it raises itself; or, of the kind `error`, that `what` happened, the
                line and the exception.
        """
        try:
            return run()
        except ClipqError:
            raise
        except (Exception, SystemExit) as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if self.is_beside(Path(frame.filename))]
            at = f", {Path(own[-1].filename).name} line {own[-1].lineno}" if own else ""
            if isinstance(error, SyntaxError):
                at = f", line {error.lineno}"
            said = str(error).strip() or "no message"
            raise self.error(
                f"{what}{at}: {type(error).__name__}: {said}",
                hint="call the function by itself to see all of it",
            ) from error

    def is_beside(self, file: Path) -> bool:
        """Whether a file belongs to the file's project, and is no cache or tool's own."""
        root = project_root(self.path)
        if not file.is_relative_to(root) or is_installed(file):
            return False
        return not any(part.startswith(".") for part in file.relative_to(root).parent.parts)

    def refuse_undeclared(self, read: Iterable[Path], known: set[Path], *, where: str) -> None:
        """Refuse files of the project that were read and are not known to be.

        Args:
            read: while the file's code ran.
            known: those that identify what it makes.
            where: what a message calls the code.

        Raises:
            ClipqError: of the kind `error`: there are some.
        """
        undeclared = sorted(one for one in read if one not in known and self.is_beside(one))
        if undeclared:
            names = [str(one.relative_to(project_root(self.path))) for one in undeclared]
            raise self.error(
                f"{where} reads {listed(names)}, which is no part of what identifies what it "
                "makes: an edit of it would meet old results",
                hint=f"name it as a text in {self.path.name}, for example FILES = ({names[0]!r},)",
            )


class _ProjectFinder:
    """Finds a project's modules where a script would, and has them compiled anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, code_folders(self.path) if path is None else path)
        loader = None if spec is None else spec.loader
        if spec is None or spec.origin is None or type(loader) is not SourceFileLoader:
            return spec if spec is not None and path is None else None
        if not is_installed(Path(spec.origin)):
            spec.loader = _Uncached(name, spec.origin)
        return spec


class _Uncached(SourceFileLoader):
    """Knows of no bytecode."""

    def path_stats(self, path: Any) -> Any:
        raise OSError("its source is compiled")
