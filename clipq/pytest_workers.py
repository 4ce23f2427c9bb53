"""The worker processes of a run: ended with it, and missed where they end without a word.

pytest-xdist learns from a worker's channel that it died. Where that fails (a worker killed while it
starts), pytest waits for ever, or stops with an error of its own. A thread of the controlling
process looks at the processes themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

__all__ = ["WorkerWatch"]

_TICK_SECONDS = 0.5
_ENDING_SECONDS = 2.0
"""How long a process whose connection is closed may take to end."""
_UNNOTICED_SECONDS = 30.0
"""How long xdist may take to notice that a worker ended."""
_IDLE_START_SECONDS = 600.0
"""How long nothing may happen before the first test: no worker starts, none collects."""


class WorkerWatch:
    """Looks after the workers that xdist starts on this machine.

    Args:
        stop: called, from a thread, with why the run cannot go on.
        unnoticed: seconds that xdist may take to notice that a worker ended.
        idle: seconds without any event before the first test.
    """

    def __init__(
        self,
        stop: Callable[[str], None],
        *,
        unnoticed: float = _UNNOTICED_SECONDS,
        idle: float = _IDLE_START_SECONDS,
    ) -> None:
        self._stop, self._unnoticed, self._idle = stop, unnoticed, idle
        self._nodes: dict[str, Any] = {}
        self._ready: set[str] = set()
        self._over: dict[str, float] = {}  # when a process was first seen to have ended
        self._down: set[str] = set()
        self._crashed: list[str] = []
        self._started = self._begun = False
        self._event = time.monotonic()
        self._ended = threading.Event()
        self.lost = ""

    # -- what xdist tells -------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self) -> None:
        self._started, self._event = True, time.monotonic()
        threading.Thread(target=self._watch, name="clipq-workers", daemon=True).start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_newgateway(self) -> None:
        self._event = time.monotonic()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        self._nodes[node.gateway.id] = node
        self._event = time.monotonic()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        self._ready.add(node.gateway.id)
        self._event = time.monotonic()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        self._event = time.monotonic()

    def pytest_runtest_logstart(self) -> None:
        self._begun = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self._down.add(node.gateway.id)
        process = _process_of(node)
        if error is None or process is None:
            return
        with suppress(subprocess.TimeoutExpired):  # its connection closed: it may live on
            process.wait(timeout=_ENDING_SECONDS)
        self._crashed.append(self._name(node.gateway.id))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say how workers ended: pytest-xdist tells which test ran, and not what ended it."""
        for who in self._crashed:
            terminalreporter.write_line(f"clipq: {who} ended in the middle of its tests")

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Name the worker whose end pytest-xdist could not handle, if there is one."""
        dead = [self._name(at) for at in self._nodes if self._process_ended(at)]
        # What execnet raises of a process that it has started and not yet handed to xdist.
        starting = self._started and not self._begun and excinfo.errisinstance((EOFError, OSError))
        if dead or starting:
            who = dead[0] if dead else "a worker process"
            when = "" if self._begun else " while workers were starting"
            self.lost = f"{who} ended{when}, and pytest-xdist could not go on"

    def pytest_sessionfinish(self) -> None:
        self._ended.set()

    # -- looking and ending -----------------------------------------------------------------

    def end(self) -> None:
        """End all workers: a run that was interrupted does not wait for what they are at."""
        for node in self._nodes.values():
            process = _process_of(node)
            if process is not None and process.poll() is None:
                with suppress(OSError):
                    os.kill(process.pid, signal.SIGTERM)

    def _watch(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            why = self.trouble(time.monotonic())
            if why:
                self.lost = why
                self._stop(why)
                return

    def trouble(self, now: float) -> str:
        """Return why the run cannot go on; "" while it can."""
        for at in list(self._nodes):
            if at in self._down or not self._process_ended(at):
                continue
            if now - self._over.setdefault(at, now) > self._unnoticed:
                return f"{self._name(at)} ended, and pytest-xdist goes on waiting for it"
        if not self._begun and now - self._event > self._idle:
            missing = sorted(self._nodes.keys() - self._ready) or ["collection"]
            return (
                f"no test began within {self._idle:.0f} s of the last that was heard of workers; "
                f"still starting: {', '.join(missing)}"
            )
        return ""

    def _process_ended(self, at: str) -> bool:
        process = _process_of(self._nodes[at])
        return process is not None and process.poll() is not None

    def _name(self, at: str) -> str:
        process = _process_of(self._nodes[at])
        code = process.returncode if process is not None else None
        how = f" (signal {-code})" if code is not None and code < 0 else f" (exit code {code})"
        return f"worker {at}{how}"


def _process_of(node: Any) -> subprocess.Popen[bytes] | None:
    """Return a worker's process; None for one that was not started here."""
    found = getattr(getattr(node.gateway, "_io", None), "popen", None)
    return found if isinstance(found, subprocess.Popen) else None
