"""An artifact's runtime, in a process of its own.

What a library reads from its environment at its start, does to its process or dies of stays there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np

from clipq.artifact_settings import ArtifactSettings
from clipq.errors import ArtifactError
from clipq.runtimes import Finding, Look, Port, TowerFacts, TowerPorts
from clipq.runtimes.channel import receive, send
from clipq.settings import Settings

__all__ = ["TowerProcess"]

_KEPT = 2000  # bytes of what it wrote to its standard output and error
_TICK_SECONDS = 1.0
_GRACE_SECONDS = 2.0


class TowerProcess:
    """One process that looks at an artifact's files, opens its towers and runs them.

    Args:
        artifact: what it runs.
        settings: threads, plug-ins and the FP32 model that an artifact may be made of.

    Raises:
        ArtifactError: of every method: the runtime refuses what it is given, or its process died.
    """

    def __init__(self, artifact: ArtifactSettings, settings: Settings) -> None:
        self._artifact = artifact
        threads = artifact.session.threads or settings.threads
        session = replace(artifact.session, threads=threads)
        self._patience = settings.limits.stalled_seconds
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        with theirs, ours:
            self._process = _started(
                artifact,
                descriptor=theirs.fileno(),
                environment={**os.environ, **_threads(threads), **artifact.session.env},
                errors=self._errors,
            )
            self._connection = Connection(ours.detach())
        ended = self._process, self._connection, self._errors
        self._end = weakref.finalize(self, _ended, *ended)
        self._why = ""
        model = settings.model(artifact.model)
        begun = {
            "runtime": artifact.runtime,
            "session": asdict(session),
            "plugins": list(settings.plugins),
            "root": str(settings.root),
            "model": {"source": model.source, "sha256": model.sha256},
        }
        self._ask(begun, {}, f"starting runtime {artifact.runtime!r}")

    def sidecars(self, path: Path) -> tuple[Path, ...]:
        """Return the files that belong to one."""
        said, _ = self._ask({"do": "sidecars", "path": str(path)}, {}, f"reading {path}")
        return tuple(map(Path, said["paths"]))

    def look(self, path: Path) -> Look:
        """Return what a file says of itself, without running it."""
        said, _ = self._ask({"do": "look", "path": str(path)}, {}, f"looking at {path}")
        findings = tuple(Finding(**each) for each in said.pop("findings"))
        inputs, outputs = (_ports(said.pop(name)) for name in ("inputs", "outputs"))
        return Look(**said, inputs=inputs, outputs=outputs, findings=findings)

    def open(self, path: Path, ports: TowerPorts) -> TowerFacts:
        """Open a tower, and return what the runtime says of it."""
        given = {name: getattr(ports, name) for name in ("kind", "input", "mask", "output")}
        given["function"] = ports.function
        asked = {"do": "open", "path": str(path), "ports": given}
        said, _ = self._ask(asked, {}, f"opening the {ports.kind} tower {path}")
        inputs, outputs = (_ports(said.pop(name)) for name in ("inputs", "outputs"))
        return TowerFacts(**said, inputs=inputs, outputs=outputs)

    def run(self, tower: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return features (B, D) of one batch."""
        return self.timed(tower, inputs)[0]

    def timed(self, tower: str, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
        """Return features (B, D) of one batch, and the seconds that the runtime took for them."""
        asked = {"do": "run", "tower": tower}
        said, found = self._ask(asked, inputs, f"running the {tower} tower")
        return found["features"], float(said["seconds"])

    def close(self) -> None:
        """End the process."""
        self._end()

    def _ask(
        self, asked: Mapping[str, Any], arrays: Mapping[str, np.ndarray], doing: str
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        if self._why:  # a second time it would not answer either
            raise self._gone(self._why)
        try:
            send(self._connection, asked, arrays)
            self._await(doing)
            answer, found = receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._died(doing) from error
        except BaseException:  # interrupted: the answer that comes is to no later question
            self._let_go(f"was interrupted while {doing}")
            raise
        if "problem" in answer:
            raise ArtifactError(
                f"artifact {self._artifact.name!r}: {answer['problem']}",
                hint=answer["fix"]
                or f"it happened while {doing}; `clipq artifact check` says more",
            )
        return answer["said"], found

    def _await(self, doing: str) -> None:
        """Return when there is an answer.

        Raises:
            EOFError: there will be none: something that the process started, and that outlived it,
                may still hold its end of the connection.
            ArtifactError: there was none for too long.
        """
        until = time.monotonic() + self._patience
        while not self._connection.poll(min(_TICK_SECONDS, self._patience)):
            if self._process.poll() is not None and not self._connection.poll(0):
                raise EOFError
            if time.monotonic() > until:
                self._let_go(
                    f"did not answer for {self._patience:g} s (stalled_seconds in [limits]) while "
                    f"{doing}"
                )
                raise self._gone(self._why)

    def _died(self, doing: str) -> ArtifactError:
        self._connection.close()
        try:
            code = self._process.wait(_GRACE_SECONDS)
            how = f"died of exit status {code}"
            if code < 0:
                how = f"died of signal {-code}{_signal(-code)}"
        except subprocess.TimeoutExpired:  # alive, but it has closed its end
            how = "closed its connection"
        said = _last_words(self._errors)
        self._let_go(f"{how} while {doing}{said}")
        return self._gone(self._why)

    def _gone(self, why: str) -> ArtifactError:
        return ArtifactError(
            f"artifact {self._artifact.name!r}: the process of runtime {self._artifact.runtime!r} "
            f"{why}",
            hint="run the file alone with the runtime's own tools; other candidates go on",
        )

    def _let_go(self, why: str) -> None:
        """Remember why nothing is to be asked any more, and end the process at once."""
        self._why = why
        self._process.kill()
        self._end()


def _started(
    artifact: ArtifactSettings,
    *,
    descriptor: int,
    environment: Mapping[str, str],
    errors: IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start the process; modules are not looked for where it is started, but where they belong."""
    # The kernel ends it with the thread that started it, which is to live as long as this process.
    lasting = threading.current_thread() is threading.main_thread()
    command = [sys.executable, "-P", "-u", "-m", "clipq.evaluation.tower_server"]
    try:
        return subprocess.Popen(
            [*command, str(descriptor), str(os.getpid() if lasting else 0)],
            env=environment,
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    except (OSError, ValueError) as error:
        errors.close()
        raise ArtifactError(
            f"artifact {artifact.name!r}: the process of runtime {artifact.runtime!r} cannot be "
            f"started: {error}",
            hint="are names and values of session.env such as an environment takes? else too much "
            "runs on this machine",
        ) from error


def _signal(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:  # a real-time one
        return ""


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _KEPT))
    said = errors.read().decode(errors="replace").strip()
    return f"; its last words: {said.splitlines()[-1]}" if said else ""


def _threads(count: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(count))


def _ports(found: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(one["name"], one["dtype"], tuple(one["shape"])) for one in found)


def _ended(process: subprocess.Popen[bytes], connection: Connection, errors: IO[bytes]) -> None:
    connection.close()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    errors.close()
