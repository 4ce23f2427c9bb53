"""A connection to a Ray cluster: joined or refused in seconds, and ended by whoever began it."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version

from clipq.errors import SweepError
from clipq.provenance import digest, package_versions, sha256_file

__all__ = ["check_versions", "import_ray", "joined", "node_was_lost", "reason_of_end", "versions"]

OLDEST = "2.60"
INSTALL = "pip install 'pytest-clipq[ray]'"
_ANSWERS_WITHIN = 5.0
"""Seconds. Ray itself tries for minutes where nothing listens, and says why in its own log."""
_ADDRESSES = (
    'give the HOST:PORT that "ray start --head" printed, ray://HOST:10001 from outside of the '
    'cluster, "auto" on one of its nodes, or "local" for a cluster of this machine alone'
)
_LONGEST = 400


def import_ray() -> Any:
    """Return the module ray.

    Raises:
        SweepError: it is not installed, or too old.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise SweepError(f"a sweep on Ray needs the package ray: {error}", hint=INSTALL) from error
    if Version(ray.__version__) < Version(OLDEST):
        raise SweepError(f"ray {ray.__version__} is older than {OLDEST}", hint=INSTALL)
    return ray


@contextmanager
def joined(ray: Any, address: str | None, runtime_env: dict[str, Any] | None) -> Iterator[None]:
    """Be connected to a cluster, by a connection that there is or one that ends with this.

    Args:
        ray: the module.
        address: as `clipq.sweep.ray_engine.RayExecutor` has it.
        runtime_env: as Ray takes it.

    Raises:
        SweepError: nothing answers there, or it is of another version of Ray or Python.
    """
    if ray.is_initialized():
        yield
        return
    here = address in (None, "local")
    if not here:
        _check_answer(address or "", os.environ)
    quiet = {"include_dashboard": False} if here else {}
    try:
        with _handler_kept():
            ray.init(
                address="local" if here else address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env=runtime_env,
                **quiet,
            )
    except Exception as error:  # Ray raises that very class, too, as where a node starts slowly
        said = _one_line(error) or type(error).__name__
        raise SweepError(
            f"no Ray cluster could be joined at {address or 'local'!r}: {said}", hint=_ADDRESSES
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answer(address: str, environment: Mapping[str, str]) -> None:
    """See that something listens at an address.

    Raises:
        SweepError: nothing does.

    >>> _check_answer("ray://127.0.0.1:1", {})
    Traceback (most recent call last):
    clipq.errors.SweepError: nothing answers at 'ray://127.0.0.1:1': [Errno 111] Connection refused
      fix: start the cluster, or give the HOST:PORT that "ray start --head" printed, ...
    """
    if address == "auto":
        address = environment.get("RAY_ADDRESS", "auto")
    if address in ("auto", "local"):
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None:
        raise SweepError(f"{address!r} is no address of a Ray cluster", hint=_ADDRESSES)
    try:
        socket.create_connection((host, port), timeout=_ANSWERS_WITHIN).close()
    except OSError as error:
        raise SweepError(
            f"nothing answers at {address!r}: {error}", hint=f"start the cluster, or {_ADDRESSES}"
        ) from error


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Keep what SIGTERM does: Ray ends the process in its own way, and a run has its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def versions() -> dict[str, str]:
    """Return what has to be the same on all machines for results to be the same.

    Checkouts of one version differ, so that clipq's own files are compared as well. Ray itself
    refuses nodes that have another version of Ray. Taken once in a process, which goes on with
    what it imported.

    >>> sorted(versions())
    ['clipq', 'code of clipq', 'python', 'torch']
    """
    folder = Path(__file__).parents[1]
    code = {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*.py")}
    return dict(package_versions(("clipq", "torch"))) | {"code of clipq": digest(code)[:12]}


def check_versions(theirs: Mapping[str, str]) -> None:
    """Compare a node's versions with those here.

    Raises:
        SweepError: they are not the same.

    >>> check_versions(versions())
    """
    other = [
        f"{name} {theirs.get(name)} there, {mine} here"
        for name, mine in versions().items()
        if theirs.get(name) != mine
    ]
    if other:
        raise SweepError(
            f"a node of the Ray cluster has other versions: {'; '.join(other)}",
            hint="results would not be the same; install the same on all nodes",
        )


def reason_of_end(error: BaseException) -> str:
    """Return what Ray says of an end, on one line.

    >>> reason_of_end(RuntimeError("gone. Some common causes include: a kernel that ..."))
    'RuntimeError: gone.'
    """
    # Ray guesses at the kernel's out-of-memory killer for every process that is gone: not quoted.
    said = _one_line(error).split(" Some common causes include")[0]
    half = _LONGEST // 2  # of a traceback the end says what was wrong
    short = said if len(said) <= _LONGEST else f"{said[:half]} ... {said[-half:]}"
    if "OutOfMemory" in type(error).__name__ or "low on memory" in said:
        return f"out of memory: {short}"
    return f"{type(error).__name__}: {short}"


def node_was_lost(error: BaseException) -> bool:
    """Whether an actor's machine is gone, or cannot be reached: then its end is no unit's doing.

    >>> node_was_lost(RuntimeError("The actor died because its node has died. Node Id: 0f"))
    True
    """
    return type(error).__name__ == "ActorUnavailableError" or "its node has died" in str(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
