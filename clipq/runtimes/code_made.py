"""What a function in a file of the user's makes: a module, or towers, of the FP32 model."""

from __future__ import annotations

import copy
import inspect
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from clipq.dependencies.file_reads import watching
from clipq.dependencies.import_graph import project_root
from clipq.dependencies.installed import is_installed
from clipq.errors import ArtifactError, ClipqError, did_you_mean, listed

__all__ = ["code_folders", "made"]


def code_folders(path: Path) -> list[str]:
    """Return the folders in which a file's imports are looked up.

    Its own first, as for a script; its project's last, so that nothing there hides a library.

    >>> folders = code_folders(Path("benchmarks/benchmark.py"))
    >>> Path(folders[0]).name, Path(folders[-1]) == Path.cwd()
    ('benchmarks', True)
    """
    return [str(path.resolve().parent), *sys.path, str(project_root(path))]


def made(
    path: Path, function: str, reference: Callable[[], Any] | None, *, known: set[Path]
) -> Any:
    """Return what a function makes, of a copy of the FP32 model where it takes an argument.

    Modules of the project are compiled anew: bytecode that was kept is known by the second and the
    size of its source, and an edit may change neither.

    Args:
        path: of the file.
        function: its name there.
        reference: returns the FP32 model.
        known: files that identify what is made.

    Raises:
        ArtifactError: the file or the function fails, or reads a file of the project that is not
            `known`.
    """
    where = f"{path.name}:{function}"
    with watching() as read:
        module = _module(path)
        make = getattr(module, function, None)
        if not callable(make):
            raise ArtifactError(
                f"{path} has no function {function!r}" if function else f"no function of {path}",
                hint=f"write {path.name}:FUNCTION; {did_you_mean(function, _own(module))}",
            )
        takes = _takes_model(make, where)
    arguments = [_copied(reference, where)] if takes else []
    with watching() as read_by_call:
        result = _called(lambda: make(*arguments), path, f"{where} failed")
    undeclared = sorted(
        one for one in read | read_by_call if one not in known and _is_of_project(one, path)
    )
    if undeclared:
        names = [str(one.relative_to(project_root(path))) for one in undeclared]
        raise ArtifactError(
            f"{where} reads {listed(names)}, which is no part of what identifies the artifact: an "
            "edit of it would meet old results",
            hint=f"name it as a text in {path.name}, for example FILES = ({names[0]!r},)",
        )
    return result


def _module(path: Path) -> ModuleType:
    """Return the module of a file, run anew."""
    finder = _ProjectFinder(path)
    if not any(isinstance(one, _ProjectFinder) and one.path == path for one in sys.meta_path):
        # Behind what knows Python's built-in modules; for good: a function may import later.
        at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
        sys.meta_path.insert(at, finder)
    module = ModuleType(f"artifact_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles look it up there
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}", hint="paths are relative to clipq.toml"
        ) from error
    _called(lambda: exec(compile(source, path, "exec"), vars(module)), path, f"{path} cannot run")
    return module


def _own(module: ModuleType) -> list[str]:
    """Return the names of the functions that a module defines."""
    defined = inspect.getmembers(module, inspect.isfunction)
    return [name for name, value in defined if value.__module__ == module.__name__]


def _called(run: Callable[[], Any], path: Path, what: str) -> Any:
    try:
        return run()
    except ClipqError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _is_of_project(Path(frame.filename), path)]
        at = f", {Path(own[-1].filename).name} line {own[-1].lineno}" if own else ""
        if isinstance(error, SyntaxError):
            at = f", line {error.lineno}"
        said = str(error).strip() or "no message"
        raise ArtifactError(
            f"{what}{at}: {type(error).__name__}: {said}",
            hint="call the function by itself to see all of it",
        ) from error


def _takes_model(make: Callable[..., Any], where: str) -> bool:
    """Whether a function takes the FP32 model, as its only argument that has no default."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # written in C
        return True
    needed = [one for one in parameters if one.default is one.empty and one.kind not in
              (one.VAR_POSITIONAL, one.VAR_KEYWORD)]  # fmt: skip
    by_name = [one.name for one in needed if one.kind is one.KEYWORD_ONLY]
    if len(needed) > 1 or by_name:
        raise ArtifactError(
            f"{where} needs the arguments {', '.join(one.name for one in needed)}",
            hint="write a function of the FP32 model alone, make(model), or of nothing, make()",
        )
    return bool(needed) or any(one.name == "model" for one in parameters)


def _copied(reference: Callable[[], Any] | None, where: str) -> Any:
    if reference is None:
        raise ArtifactError(
            f"{where} takes the FP32 model, and none is given", hint="a function make() takes none"
        )
    return copy.deepcopy(reference())  # quantization is done in place


def _is_of_project(file: Path, path: Path) -> bool:
    """Whether a file belongs to the project of another, and is no cache or tool's own."""
    root = project_root(path)
    if not file.is_relative_to(root) or is_installed(file):
        return False
    return not any(part.startswith(".") for part in file.relative_to(root).parent.parts)


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
