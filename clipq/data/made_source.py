"""Probes that a function of the project makes at their first use: `made:FILE.py:FUNCTION`.

    made:fixtures/pairs.py:pairs                 FILE is relative to the settings
    made:fixtures/pairs.py:pairs,count=500       with arguments: whole numbers, numbers or texts

FUNCTION(folder) writes the layout of `clipq.data.webdataset_source` into an empty folder. Where it
has an argument `progress`, it is given a function to call with (done, total). It runs once, in a
process of its own; what it wrote is kept in the cache under what identifies it: the file, all that
it imports of its project, the files that these name, environment variables that they read, versions
of packages, and the arguments. What is damaged there is made again.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipq.data.made_folder import Making, is_there, is_whole, make
from clipq.data.probe import Probe
from clipq.data.sources import KeepingSource, Progress, Source
from clipq.data.webdataset_source import WEBDATASET
from clipq.dependencies.code_file import CodeFile, variables_behind
from clipq.dependencies.installed import IN_ENVIRONMENT, versions_behind
from clipq.errors import ProbeError, did_you_mean
from clipq.provenance import digest, package_versions, sha256_file

__all__ = ["MADE"]

_LAYOUT = 1
"""Part of every key: bumped where what a function is asked for, or how it is kept, changes."""
_PLACE = re.compile(r"(?P<file>[^,]+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*)(?P<rest>(,.*)?)")
_ARGUMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([^,]+)")


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where what functions make is kept, and who is told how far they are."""

    cache: Path
    progress: Progress

    def making(self, location: str, name: str, base_dir: Path) -> Making:
        """Return what a location asks for.

        Raises:
            ProbeError: it is not of the form, or there is no such file.
        """
        match = _PLACE.fullmatch(location)
        given = match["rest"][1:].split(",") if match and match["rest"] else []
        arguments = [_ARGUMENT.fullmatch(one.strip()) for one in given]
        names = [one[1] for one in arguments if one]
        if match is None or None in arguments or len(set(names)) < len(names):
            raise ProbeError(
                f"probe {name!r}: source 'made:{location}' is not of the form "
                "made:FILE.py:FUNCTION",
                hint="for example 'made:data/pairs.py:pairs' or 'made:data/pairs.py:pairs,count=9'",
            )
        path = base_dir / match["file"]
        if not path.is_file():
            raise ProbeError(
                f"probe {name!r}: no file {path}, which is to make it",
                hint="FILE in made:FILE.py:FUNCTION is relative to the settings; correct `source`",
            )
        values = {one[1]: _value(one[2]) for one in arguments if one}
        found = CodeFile(path, ProbeError).depends()
        known = frozenset(found.files)
        key = {
            "layout": _LAYOUT,
            "files": sorted((_relative(file, base_dir), sha256_file(file)) for file in known),
            "function": match["function"],
            "arguments": values,
            "packages": _versions(found.packages),
            "variables": variables_behind(found.variables),
            "python": sys.version_info[:2],
        }
        return Making(
            probe=name,
            path=path,
            function=match["function"],
            arguments=values,
            known=known,
            unknown=tuple(sorted(found.unknown)),
            folder=self.cache.absolute() / "made" / digest(key)[:2] / digest(key),
            root=base_dir,
        )

    def made(self, making: Making) -> Path:
        """Return the folder of what a function wrote, which runs if it never did."""
        if not is_there(making.folder):
            make(making, progress=self.progress)
        return making.folder

    def open(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path, group: str
    ) -> Probe:
        """Open a probe, made if need be; see `clipq.data.open_probe`."""
        making = self.making(location, name, base_dir)
        was_there = is_there(making.folder)
        read = partial(
            WEBDATASET, name=name, role=role, split=split, base_dir=base_dir, group=group
        )
        try:
            return read(str(self.made(making)))
        except ProbeError as error:
            if not was_there or is_whole(making.folder):
                raise
            warnings.warn(f"{making.folder} is made again: {error.problem}", stacklevel=2)
        make(making, progress=self.progress, again=True)
        return read(str(making.folder))

    def look(
        self, location: str, *, name: str, role: str, split: str, base_dir: Path
    ) -> dict[str, int]:
        """Count what was made; before that, see that there is such a function."""
        making = self.making(location, name, base_dir)
        if not is_there(making.folder):
            _check_function(making)
            return {}
        look = WEBDATASET.look
        where = str(making.folder)
        return {} if look is None else dict(
            look(where, name=name, role=role, split=split, base_dir=base_dir)
        )  # fmt: skip

    def fetch(
        self, location: str, *, split: str, base_dir: Path, progress: Callable[[int, int], None]
    ) -> Path | None:
        """Make a probe now; see `clipq.data.sources.Fetch`."""
        making = self.making(location, "made", base_dir)
        if not is_there(making.folder):
            make(making, progress=lambda _, done, total: progress(done, total))
        return making.folder

    def attribute(
        self,
        location: str,
        column: str,
        *,
        name: str,
        split: str,
        base_dir: Path,
        ids: Sequence[str],
    ) -> Sequence[str]:
        """Return an attribute of each sample; see `clipq.data.sources.Attribute`."""
        where = str(self.made(self.making(location, name, base_dir)))
        look_up = WEBDATASET.attribute
        if look_up is None:
            raise ProbeError(f"probe {name!r} has no attributes", hint="leave out `cluster`")
        return look_up(where, column, name=name, split=split, base_dir=base_dir, ids=ids)


def _keeping(cache: Path, progress: Progress) -> Source:
    kept = _Kept(cache, progress)
    return Source(kept.open, kept.look, kept.fetch, kept.attribute)


MADE = KeepingSource(_keeping)
"""The source ``made:FILE.py:FUNCTION``."""


def _value(text: str) -> int | float | str:
    """Return what an argument's text says: a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _relative(file: Path, root: Path) -> str:
    """Return a path as every machine calls it; of one outside of the project, its name."""
    root = root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _versions(packages: set[str]) -> dict[str, str]:
    """Return the versions of packages, of what these need, and of what made files need anyway."""
    common = [IN_ENVIRONMENT[package] for package in packages & IN_ENVIRONMENT.keys()]
    return versions_behind(packages) | dict(package_versions(common))


def _check_function(making: Making) -> None:
    """Refuse a function that a file does not define, as far as its source tells.

    Raises:
        ProbeError: there is none of that name, or the file is no Python.
    """
    try:
        body = ast.parse(making.path.read_bytes(), making.path.name).body
    except (OSError, SyntaxError, ValueError) as error:
        raise ProbeError(
            f"probe {making.probe!r}: {making.path} is no Python: {error}",
            hint="made:FILE.py:FUNCTION",
        ) from error
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    nodes = list(ast.walk(ast.Module(body, [])))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    aliases = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if making.function not in {*defined, *bound, *aliases} and "*" not in aliases:
        raise ProbeError(
            f"probe {making.probe!r}: {making.path} has no function {making.function!r}",
            hint=did_you_mean(making.function, defined),
        )
