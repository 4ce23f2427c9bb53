"""SIGINT, SIGTERM, SIGHUP on the controlling process: the run ends, what was measured is reported.

Python raises `KeyboardInterrupt` for SIGINT alone and dies of SIGTERM, by which CI systems cancel
jobs, and of SIGHUP, by which a terminal or a connection that is closed does. Here all raise, once:
a terminal sends a signal to all of its processes, and whoever started this one may pass it on, so
that the same signal again within a second is the same one. A second SIGTERM or SIGHUP ends the
process at once; a second Ctrl-C raises again, as ever.

Python drops what a handler raises while a finalizer or another callback runs, and a quantizer may
catch it. The first it reports, and the signal is sent again; after the second no other test starts.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

__all__ = ["Interrupts", "Stopped", "Terminated"]

_ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end; Windows has no SIGHUP."""
_SAID = {signal.SIGINT: "interrupted"} | {
    signum: {"SIGTERM": "terminated", "SIGHUP": "hung up"}[signum.name] for signum in _ENDINGS
}
_SAME_SECONDS = 1.0
_AGAIN_SECONDS = 0.05  # until the callback is over in which it was dropped


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived."""


class Stopped(KeyboardInterrupt):
    """A watchdog ends the run."""


class Interrupts:
    """What asked the run to end.

    A plugin of pytest, on the controlling process.

    Args:
        end_workers: called when the run ends early: nobody waits for what workers are at.

    >>> interrupts = Interrupts()
    >>> interrupts.exit_code, interrupts.said  # nothing did
    (0, '')
    """

    def __init__(self, end_workers: Callable[[], None] = lambda: None) -> None:
        self._end_workers = end_workers
        self._first: float | None = None
        self._signal = 0
        self._why = ""
        self._heard = False
        self._pressing = False
        self._terminations = 0
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    @property
    def exit_code(self) -> int:
        """What the process exits with: 130, 143, 129 (or 1, of a watchdog); 0: nothing arrived."""
        return 1 if self._why else 128 + self._signal if self._signal else 0

    @property
    def said(self) -> str:
        """What a conclusion says of it."""
        return self._why or (_SAID[signal.Signals(self._signal)] if self._signal else "")

    def install(self) -> None:
        """Take over the signals that have Python's own handlers; nobody else's."""
        if threading.current_thread() is not threading.main_thread():
            return
        usual: dict[signal.Signals, Any] = dict.fromkeys(_ENDINGS, signal.SIG_DFL)
        usual[signal.SIGINT] = signal.default_int_handler
        for signum, handler in usual.items():
            if signal.getsignal(signum) == handler:
                self._before[signum] = signal.signal(signum, self._arrived)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped

    def remove(self) -> None:
        """Put back the handlers that were there before; nothing is raised any more."""
        self._heard = True
        if sys.unraisablehook == self._dropped:
            sys.unraisablehook = self._hook
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        self.install()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        if (self._first is not None or self._why) and not self._heard:
            raise self._error()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._heard = True
        if type(excinfo.value) is KeyboardInterrupt and not self._why:  # who raised it ever
            self._signal = self._signal or signal.SIGINT

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._heard = True
        if self.exit_code:
            self._end_workers()  # xdist would wait ten seconds for what they are at

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.remove()

    def stop(self, why: str) -> None:
        """End the run from another thread, for a reason that the conclusion gives."""
        if not self._why and self._first is None:
            self._why = why
            self._press()

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        if self._pressing or (self._why and self._first is None):
            self._pressing = False
            self._first = self._first or time.monotonic()
            if not self._heard:
                raise self._error()
            return
        now = time.monotonic()
        again = self._first is not None
        if again and now - (self._first or 0.0) < _SAME_SECONDS:
            return
        self._terminations += signum in _ENDINGS
        if self._terminations > 1:
            self._end_workers()
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        if again and signum in _ENDINGS:
            return  # the run is ending already, and a second one will not be waited for
        self._first, self._signal = now, self._signal or signum
        raise self._error()

    def _error(self) -> KeyboardInterrupt:
        if self._why:
            return Stopped(self._why)
        if self._signal in _ENDINGS:
            return Terminated(signal.Signals(self._signal).name)
        return KeyboardInterrupt()

    def _dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Python could not raise something: an interrupt is sent again, all else is passed on."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt) and self._first is not None:
            # Not threading.Thread, whose locks the main thread may hold right now.
            _thread.start_new_thread(self._press_soon, ())
        else:
            self._hook(unraisable)

    def _press_soon(self) -> None:
        time.sleep(_AGAIN_SECONDS)
        if not self._heard:
            self._press()

    def _press(self) -> None:
        if signal.SIGINT not in self._before:
            _thread.interrupt_main()
            return
        self._pressing = True
        # To the main thread itself: it may wait in a system call.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
