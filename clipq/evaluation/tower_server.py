"""The process that runs one artifact: `python -m clipq.evaluation.tower_server DESCRIPTOR`.

It answers `clipq.evaluation.tower_process` until that closes the connection. Libraries are imported
here, after the environment was set for them, and whatever they do to a process they do to this one.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError, ClipqError, did_you_mean
from clipq.runtimes import Runtime, Tower, TowerPorts, runtimes
from clipq.runtimes.channel import Arrays, packed, receive, send_packed

if TYPE_CHECKING:
    from torch import nn

_MOST_BYTES = 2**30

__all__ = ["serve"]


class _Server:
    """One runtime, and its towers that are open."""

    def __init__(self, begun: dict[str, Any]) -> None:
        self._model, self._root = begun["model"], Path(begun["root"])
        self._session = SessionSettings(**begun["session"])
        name = begun["runtime"]
        if name not in runtimes:  # a plug-in of the project registers it; others take seconds
            sys.path.insert(0, begun["root"])
            for plugin in begun["plugins"]:
                import_module(plugin)
        if name not in runtimes:
            raise ArtifactError(
                f"unknown runtime {name!r} in the process that is to run it",
                hint=f"{did_you_mean(name, runtimes.names())}; your own is added by a module "
                "that `plugins` of the settings names, for it runs in another process",
            )
        self._runtime: Runtime = runtimes.get(name)
        self._towers: dict[str, Tower] = {}

    def answer(self, asked: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Return what was asked for, as a message and arrays."""
        match asked["do"]:
            case "sidecars":
                found = self._runtime.sidecars(Path(asked["path"]))
                return {"paths": [str(path) for path in found]}, {}
            case "look":
                return self._runtime.look(Path(asked["path"])).to_plain(), {}
            case "open":
                ports = TowerPorts(**asked["ports"], reference=lambda: self._reference)
                opened = self._runtime.open(Path(asked["path"]), ports, self._session)
                self._towers[ports.kind] = opened
                return asdict(opened.facts), {}
            case _:
                tower, started = self._towers[asked["tower"]], perf_counter()
                features = tower.run(arrays)
                return {"seconds": perf_counter() - started}, {"features": _numbers(features)}

    @cached_property
    def _reference(self) -> nn.Module:
        """The FP32 model, for artifacts that code makes of it."""
        import torch

        from clipq.models import ModelSource, load_model

        torch.set_num_threads(self._session.threads)
        source = ModelSource.parse(self._model["source"], base_dir=self._root)
        return load_model(source, expected_sha256=self._model["sha256"]).model


def _numbers(features: Any) -> np.ndarray:
    """Return features as numbers that another process can read.

    Raises:
        ArtifactError: they are no numbers, or more than any batch of features has.
    """
    found = np.asarray(features)
    if found.dtype.kind not in "biuf":
        try:
            if found.dtype.kind != "V":  # numbers that numpy lacks, bfloat16 for one
                raise TypeError
            found = found.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"it returned {type(features).__name__} of type {found.dtype}, not numbers",
                hint="Tower.run returns features (B, D) of one batch as an array of floats",
            ) from error
    if found.nbytes > _MOST_BYTES:
        raise ArtifactError(
            f"it returned an array {found.shape} of {found.nbytes:,} bytes",
            hint="Tower.run returns features (B, D) of one batch: an inner layer was named",
        )
    return found


def serve(connection: Connection) -> None:
    """Answer until the other side is gone.

    Its first message says what to serve; each later one is answered by ``{"said": ...}`` with
    arrays, or by ``{"problem": ..., "fix": ...}``.
    """
    server: _Server | None = None
    while True:
        try:
            asked, arrays = receive(connection)
        except EOFError:
            return
        try:
            said: dict[str, Any] = {}
            found: Arrays = {}
            if server is None:
                server = _Server(asked)
            else:
                said, found = server.answer(asked, arrays)
            message = packed({"said": said}, found)
        except ClipqError as error:
            message = packed({"problem": error.problem, "fix": error.hint})
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
            message = packed({"problem": problem, "fix": ""})
        send_packed(connection, message)


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent is gone, where it knows how.

    Args:
        parent: whose main thread started this process; 0 where another thread did, with which the
            kernel would end it.
    """
    import ctypes

    if not parent:
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # gone before the kernel was told
        sys.exit(1)


if __name__ == "__main__":
    _end_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is interrupted, and lets go
    answers = Connection(int(sys.argv[1]))
    os.set_inheritable(answers.fileno(), False)
    with suppress(BrokenPipeError, ConnectionResetError, ArtifactError):
        serve(answers)
