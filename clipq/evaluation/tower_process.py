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
import weakref
from collections.abc import Mapping
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from clipq.artifact_settings import ArtifactSettings
from clipq.errors import ArtifactError
from clipq.runtimes import Finding, Look, Port, TowerFacts, TowerPorts
from clipq.runtimes.channel import receive, send
from clipq.settings import Settings

__all__ = ["TowerProcess"]

_KEPT = 2000  # characters of what it wrote to its standard error


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
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clipq.evaluation.tower_server", str(theirs.fileno())],
                env={**os.environ, **_threads(threads), **artifact.session.env},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
            )
        self._connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _ended, self._process, self._connection)
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
        try:
            send(self._connection, asked, arrays)
            answer, found = receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._died(doing) from error
        if "problem" in answer:
            name = str(self._artifact.name)
            raise ArtifactError(
                f"artifact {name!r}: {answer['problem']}",
                hint=answer["fix"]
                or f"it happened while {doing}; `clipq artifact check` says more",
            )
        return answer["said"], found

    def _died(self, doing: str) -> ArtifactError:
        self._connection.close()
        code = self._process.wait()
        how = f"exit status {code}"
        if code < 0:
            how = f"signal {-code} ({signal.Signals(-code).name})"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")[-_KEPT:].strip()
        last = f"; its last words: {said.splitlines()[-1]}" if said else ""
        return ArtifactError(
            f"artifact {self._artifact.name!r}: the process of runtime {self._artifact.runtime!r} "
            f"died of {how} while {doing}{last}",
            hint="run the file alone with the runtime's own tools; other candidates go on",
        )


def _threads(count: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(count))


def _ports(found: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(one["name"], one["dtype"], tuple(one["shape"])) for one in found)


def _ended(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
