"""A candidate of which nothing gets done is given up: a quantizer that hangs ends, named."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from clipq.cases import Candidate

__all__ = ["StallWatch"]

_TICK_SECONDS = 1.0
_GRACE_SECONDS = 60.0


class StallWatch:
    """Watches one process measure; a thread of it looks on.

    Args:
        seconds: without any progress, after which a candidate is given up.
        give_up: called from the thread, with the candidate and why. It ends the process, or has it
            ended.

    Native code that holds Python's lock keeps the thread from looking: then the process is ended
    from outside of Python, a minute later and without a word.

    >>> told = []
    >>> watch = StallWatch(0.05, lambda candidate, why: told.append(f"{candidate}: {why}"))
    >>> with watch.measuring(Candidate.parse("vit/rtn:w4")):
    ...     time.sleep(0.2)
    ...     watch.look()
    >>> told
    ['vit/rtn:w4: nothing of it got done for 0.05 s (stalled_seconds in [limits])']
    """

    def __init__(self, seconds: float, give_up: Callable[[Candidate, str], None]) -> None:
        self._seconds, self._give_up = seconds, give_up
        self._candidate: Candidate | None = None
        self._since = self._armed = 0.0
        self._thread: threading.Thread | None = None

    @contextmanager
    def measuring(self, candidate: Candidate) -> Iterator[None]:
        """Watch while a case of a candidate is measured."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="clipq-stall", daemon=True)
            self._thread.start()
        self._candidate = candidate
        self._armed = 0.0
        self.progressed()
        try:
            yield
        finally:
            self._candidate = None
            faulthandler.cancel_dump_traceback_later()

    def progressed(self, *_: object) -> None:
        """Something got done; takes what a progress callback is given."""
        self._since = time.monotonic()
        if self._candidate is None:
            return  # nothing is watched now, and nothing is to end the process later
        if self._since - self._armed < _TICK_SECONDS:
            return  # a thread ends and another begins each time, and images are many
        self._armed = self._since
        with suppress(RuntimeError, ValueError, OSError):  # no standard error to write to
            faulthandler.dump_traceback_later(self._seconds + _GRACE_SECONDS, exit=True)

    def look(self) -> None:
        """Give the candidate up if it stalled."""
        candidate = self._candidate
        if candidate is not None and time.monotonic() - self._since > self._seconds:
            self._candidate = None  # once
            limit = f"{self._seconds:g} s (stalled_seconds in [limits])"
            self._give_up(candidate, f"nothing of it got done for {limit}")

    def _watch(self) -> None:
        while True:
            time.sleep(min(_TICK_SECONDS, self._seconds / 4))
            self.look()
