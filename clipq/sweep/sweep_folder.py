"""The folder of a sweep: who is at it, and what it is a sweep of."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clipq.errors import CacheError, SweepError
from clipq.files import write_atomically

__all__ = ["claimed", "settle"]

_SHOWN = 8
"""Differences that a refusal names."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder for one coordinator.

    The system gives the lock of a process that ended back, however it ended. On NFS it holds
    between machines where the mount has locks (version 4, or 3 without ``nolock``); where it has
    none, two coordinators do the same work, and each part is still stored once.

    Raises:
        SweepError: another coordinator is at it, or nothing can be written there.
    """
    holder = folder / "coordinator.json"
    lock = FileLock(folder / "coordinator.lock", timeout=0)
    told = {"host": socket.gethostname(), "process": os.getpid()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        write_atomically(holder, json.dumps(told).encode())
    except Timeout:
        raise SweepError(
            f"the sweep in {folder} is being run already, by {_who(holder)}",
            hint="wait for it, or end it: then this one goes on where it was",
        ) from None
    except (OSError, CacheError) as error:
        lock.release()
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _unwritable(folder: Path, error: OSError | CacheError) -> SweepError:
    said = error.problem if isinstance(error, CacheError) else str(error)
    return SweepError(
        f"the sweep's folder {folder} cannot be written to: {said}",
        hint="free space, or give another --folder",
    )


def _who(holder: Path) -> str:
    try:
        told = json.loads(holder.read_bytes())
        return f"process {told['process']} on {told['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def settle(folder: Path, identity: Mapping[str, str], *, another: bool = False) -> None:
    """See that a folder's sweep is the one that is meant; write down which, where it is new.

    Args:
        folder: of the sweep.
        identity: what decides its units and their results, by what people call it: digests.
        another: whether it may be another sweep than before. Units of it that are the same as
            before are not done again.

    Raises:
        SweepError: it is another one, with what differs.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     settle(Path(folder), {"plan": "0a", "rtn: method": "1b"})
    ...     settle(Path(folder), {"plan": "0a", "rtn: method": "2c"})
    Traceback (most recent call last):
    clipq.errors.SweepError: the sweep in ... is another one than this: changed: rtn: method
    ...
    """
    path = folder / "sweep.json"
    given = dict(sorted(identity.items()))
    if path.exists() and not another:
        try:
            before = json.loads(path.read_bytes())["identity"]
            differences = _differences(before, given)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SweepError(
                f"{path} does not say which sweep this is: {error!r}",
                hint="--another writes it anew: parts that fit are kept",
            ) from error
        if differences:
            more = len(differences) - _SHOWN
            told = "; ".join(differences[:_SHOWN]) + (f"; {more} more" if more > 0 else "")
            raise SweepError(
                f"the sweep in {folder} is another one than this: {told}",
                hint="put back what changed, give another --folder, or --another: then units that "
                "are the same stay done, the others are measured",
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"identity": given}, indent=1).encode())
    except (OSError, CacheError) as error:
        raise _unwritable(folder, error) from error


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what differs, sorted by kind and name."""
    shared = before.keys() & now.keys()
    changed = sorted(name for name in shared if before[name] != now[name])
    return [
        *(f"changed: {name}" for name in changed),
        *(f"no longer there: {name}" for name in sorted(before.keys() - now.keys())),
        *(f"new: {name}" for name in sorted(now.keys() - before.keys())),
    ]
