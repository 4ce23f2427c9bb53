"""Files that are whole or absent when written, and plain and bounded when read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from clipq.errors import CacheError

__all__ = ["TEXT_BYTES", "open_plain", "read_file", "replace_atomically", "write_atomically"]

TEXT_BYTES = 1 << 30
"""What is read at once has at most so many bytes, unless it says otherwise."""


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: where to.
        content: what.
        durable: as of `replace_atomically`.

    Raises:
        CacheError: the folder is read-only or full.
    """

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    replace_atomically(path, write, durable=durable)


def replace_atomically(path: Path, write: Callable[[Path], None], *, durable: bool = True) -> None:
    """Let `write` fill a temporary file, then make it `path`: fsync, rename.

    Args:
        path: where to.
        write: fills the file that it is given.
        durable: whether it must outlast a loss of power. What tells by itself that it is not whole,
            and is then made again, need not, and saves the wait for the disk.

    Raises:
        CacheError: the folder is read-only or full, or what is there is no plain file.

    >>> write_atomically(Path("/dev/null"), b"")
    Traceback (most recent call last):
    clipq.errors.CacheError: cannot write /dev/null: it is no file
    ...
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a folder" if path.is_dir() else "it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        os.close(descriptor)
        temporary = Path(name)
        try:
            write(temporary)
            if durable:
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"cannot write {path}: {error.strerror or error}",
            hint="free space, or choose a plain file in a writable folder; clipq.toml names "
            "those of `cache`, `report` and `baselines`",
        ) from error


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file to read its bytes.

    A pipe that nobody writes to, or a device that never ends, is refused instead of waited for.

    Raises:
        OSError: it is missing, cannot be read, or is no plain file.

    >>> open_plain(Path("/dev/zero"))
    Traceback (most recent call last):
    OSError: it is no file
    """
    stream = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    mode = os.fstat(stream.fileno()).st_mode
    if stat.S_ISREG(mode):
        return stream
    stream.close()
    raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is no file")


def read_file(path: Path, *, most: int = TEXT_BYTES) -> bytes:
    """Return the bytes of a plain file of at most so many.

    Raises:
        OSError: as `open_plain`, or it is too large.

    >>> read_file(Path("clipq.toml"), most=10)
    Traceback (most recent call last):
    OSError: it has ... bytes, and at most 10 are read
    """
    with open_plain(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise OSError(f"it has {size:,} bytes, and at most {most:,} are read")
        return stream.read()
