"""That an exit code 0 of `clipq gate` means a run: complete, measured, concluded.

pytest exits 0 for much else: ``--collect-only``, ``--fixtures``, ``--help`` and their like, which
an environment variable may add. And a process may end without pytest: by a quantizer that calls
``os._exit(0)``. So the gate believes neither exit code: pytest's part is a plugin that looks for
the conclusion, and where the command line started the gate, its process waits for a child that does
the work and says that it got to the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

from clipq.pytest_collector import NO_RUN, RunCollector
from clipq.pytest_conclusion import Conclusion
from clipq.terminal import say

__all__ = ["GateProof", "Gatekeeper"]

_NOTHING_RUN = 2
_PR_SET_PDEATHSIG = 1


class GateProof:
    """A plugin of pytest that knows whether the gate took place."""

    def __init__(self) -> None:
        self._config: pytest.Config | None = None
        self._conclusion: Conclusion | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        self._config = config
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        for plugin in config.pluginmanager.get_plugins():
            if isinstance(plugin, RunCollector):
                plugin.expects_matrix = True
            if isinstance(plugin, Conclusion):
                self._conclusion = plugin

    def checked(self, code: int) -> int:
        """Return the exit code of the gate, given pytest's; say why where pytest's was untrue."""
        conclusion = self._conclusion
        if conclusion is not None and conclusion.concluded and (code != 0 or conclusion.passed):
            return code
        if code in (0, 5):  # 5: no test was left
            asked = [name for key, name in NO_RUN.items() if self._option(key)]
            why = f"pytest was asked for {', '.join(asked)}" if asked else "pytest ran no case"
            added = os.environ.get("PYTEST_ADDOPTS", "")
            hint = f" (PYTEST_ADDOPTS is {added!r})" if added else ""
            say(f"RELIABILITY GATE FAILED: nothing was measured: {why}{hint}", error=True)
        return code or _NOTHING_RUN

    def _option(self, name: str) -> bool:
        return bool(getattr(getattr(self._config, "option", None), name, False))


class Gatekeeper:
    """A process between the gate and whoever reads its exit code.

    The caller goes on in a child of its own; `done` says that it got to the end.
    """

    def __init__(self) -> None:
        self._proof = -1

    def watch(self) -> None:
        """Go on in a child; the parent exits with its exit code, if that was meant.

        Does nothing where there are threads, or no forks.
        """
        if not hasattr(os, "fork") or threading.active_count() > 1:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        proof, self._proof = os.pipe()
        os.set_blocking(proof, False)  # a process that the child left behind may hold the other end
        parent, child = os.getpid(), os.fork()
        if child:
            os.close(self._proof)
            sys.exit(_outcome(child, proof))
        os.close(proof)
        _end_with(parent)

    def done(self, code: int) -> int:
        """Vouch for an exit code, and return it: no signal comes between it and the exit."""
        if self._proof >= 0:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            os.write(self._proof, str(code).encode())
            os.close(self._proof)
            self._proof = -1
        return code


def _outcome(child: int, proof: int) -> int:
    """Wait for the child, passing signals on; return what to exit with."""

    def pass_on(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, pass_on)
    _, status = os.waitpid(child, 0)
    said = b""
    with contextlib.suppress(BlockingIOError):
        said = os.read(proof, 64)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        name = signal.Signals(-code).name
        say(f"RELIABILITY GATE FAILED: the gate's process was ended by {name}", error=True)
        return 128 - code
    if said:
        return code or int(said)
    say(
        f"RELIABILITY GATE FAILED: the gate's process exited {code} before the run was over: "
        f"something in it called os._exit({code}), a quantizer for instance",
        error=True,
    )
    return code or _NOTHING_RUN


def _end_with(parent: int) -> None:
    """Have this process end as by SIGTERM when its parent is killed; where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
