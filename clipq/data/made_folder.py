"""Has a function write a probe's files: once, in a process of its own, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from clipq.data.image_names import is_hidden
from clipq.data.reading import CLASSES, TEMPLATES
from clipq.data.shards import CHECKSUMS, find_checksums
from clipq.data.sources import Progress
from clipq.errors import CacheError, ProbeError, listed
from clipq.files import write_atomically
from clipq.provenance import sha256_file

__all__ = ["Making", "is_there", "is_whole", "make"]

_BESIDE = (CLASSES, TEMPLATES, CHECKSUMS, "attributes.csv", "classmap.csv", "SOURCES.md")
"""Files of the layout that lie beside its splits."""


@dataclass(frozen=True, slots=True)
class Making:
    """What is to be made, and where it is kept.

    Args:
        probe: its name, for messages.
        path: of the file.
        function: its name there.
        arguments: of the function, beside the folder.
        known: files that identify what it makes.
        unknown: sentences on what cannot be told to identify it.
        folder: of what it makes: there and whole, or not there.
        root: working directory of the function: of the settings.
    """

    probe: str
    path: Path
    function: str
    arguments: Mapping[str, int | float | str]
    known: frozenset[Path]
    unknown: tuple[str, ...]
    folder: Path
    root: Path

    @property
    def log(self) -> Path:
        """What the function printed, and the whole traceback where it failed."""
        return self.folder.with_suffix(".log")


def make(making: Making, *, progress: Progress, again: bool = False) -> None:
    """Have a function write into a new folder, which takes its name when all of it is there.

    A process that is killed meanwhile leaves nothing that anybody reads, and the next one begins
    anew; a second one waits for the first.

    Args:
        making: what and where.
        progress: told how far it is, as far as the function says.
        again: whether what is there is damaged.

    Raises:
        ProbeError: the function fails, or writes nothing or what is not in the layout.
        CacheError: the folder cannot be written.
    """
    where = making.folder.parent
    if making.unknown:
        warnings.warn(
            f"probe {making.probe!r}: {listed(making.unknown, between='; ')}: an edit of what that "
            f"leads to meets what {making.path.name}:{making.function} made before it",
            stacklevel=2,
        )
    with _writing(making.folder):
        where.mkdir(parents=True, exist_ok=True)
        with FileLock(making.folder.with_suffix(".lock")):
            for left in where.glob(f".{making.folder.name}-*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if is_there(making.folder) and not (again and not is_whole(making.folder)):
                return  # another process made it
            shutil.rmtree(making.folder, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(dir=where, prefix=f".{making.folder.name}-"))
            try:
                _run(making, temporary, progress)
                _check_layout(making, temporary)
                _seal(temporary)
                temporary.chmod(0o755)
                temporary.rename(making.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def is_there(folder: Path) -> bool:
    """Whether something was made in a folder, with what its files hash to."""
    return (folder / CHECKSUMS).is_file()


def is_whole(folder: Path) -> bool:
    """Whether a folder holds what was written into it, byte for byte."""
    try:
        sums = find_checksums(folder)
        if sums is None:
            return False
        return {name: sha256_file(folder / name) for name in sums.expected} == dict(sums.expected)
    except (OSError, ProbeError):
        return False


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot write {folder}: {error.strerror or error}",
            hint="free space, or point `cache` in clipq.toml to a writable folder",
        ) from error


def _run(making: Making, folder: Path, progress: Progress) -> None:
    """Run the function; what it prints goes to the log.

    Raises:
        ProbeError: it failed, or its process died.
    """
    asked = {
        "path": str(making.path.resolve()),
        "function": making.function,
        "arguments": dict(making.arguments),
        "known": [str(file) for file in making.known],
        "folder": str(folder.resolve()),
        "root": str(making.root.resolve()),
    }
    what = f"making {making.probe}"
    progress(what, 0, 0)
    with making.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clipq.data.made_call", json.dumps(asked)],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,  # closed with this process: then the other one ends, too
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            answer = _listened(process.stdout, what, progress)
            if answer is None:
                answer = {"problem": _death(making, process.wait())}
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
    if answer.get("problem"):
        raise ProbeError(
            f"probe {making.probe!r}: {answer['problem']}",
            hint=answer.get("hint") or f"{making.log} holds what it printed and where it failed",
        )


def _listened(stream: IO[bytes] | None, what: str, progress: Progress) -> dict[str, Any] | None:
    """Return the process's last word; None where it died without one."""
    for line in stream or ():
        said: dict[str, Any] = json.loads(line)
        if "done" not in said:
            return said
        progress(what, said["done"], said["total"])
    return None


def _death(making: Making, status: int) -> str:
    how = f"exit status {status}"
    if status < 0:
        how = f"signal {signal.Signals(-status).name}"
    return f"the process of {making.path.name}:{making.function} ended with {how}"


def _check_layout(making: Making, folder: Path) -> None:
    """Refuse a folder that is empty or holds what is not in the layout.

    Raises:
        ProbeError: it is one.
    """
    where = f"probe {making.probe!r}: {making.path.name}:{making.function}"
    hint = (
        "it is given an empty folder, and writes <split>/nshards.txt, <split>/0.tar ... and, of "
        "images with classes, classnames.txt and zeroshot_classification_templates.txt into it; "
        "docs/probes.md"
    )
    entries = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    if not entries:
        raise ProbeError(f"{where} wrote nothing into the folder that it was given", hint=hint)
    wrong = [
        path.relative_to(folder).as_posix() for path in entries if not _is_of_layout(path, folder)
    ]
    if wrong:
        raise ProbeError(f"{where} wrote what is not in the layout: {listed(wrong)}", hint=hint)
    if not any(path.suffix == ".tar" for path in entries):
        names = [path.relative_to(folder).as_posix() for path in entries]
        raise ProbeError(f"{where} wrote no shard, only {listed(names)}", hint=hint)


def _is_of_layout(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts
    if path.is_symlink() or not path.is_file() or any(map(is_hidden, inside)):
        return False
    if len(inside) == 1:
        return inside[0] in _BESIDE
    return len(inside) == 2 and (inside[1] == "nshards.txt" or path.suffix == ".tar")


def _seal(folder: Path) -> None:
    """Write what every file hashes to, by which a reader knows each of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_atomically(folder / CHECKSUMS, "".join(lines).encode())
