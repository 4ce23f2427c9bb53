"""What asks a run of a sweep to end: SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "ended_by_signals"]


class Ended(BaseException):
    """A signal asked for the end. No `Exception`: nothing on the way takes it for a failure.

    Args:
        name: of the signal.

    >>> Ended("SIGTERM").name
    'SIGTERM'
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@contextmanager
def ended_by_signals() -> Iterator[Callable[[], None]]:
    """Make the first SIGINT or SIGTERM an end; ignore more of them while things are put away.

    What a handler raises within a library's callback is swallowed, and the signal would be lost.
    What is yielded raises it again, and is to be called now and then.

    In a thread, nothing is changed.

    Raises:
        Ended: where one came.

    >>> with ended_by_signals() as check:
    ...     check()
    """
    told = ""

    def check() -> None:
        if told:
            raise Ended(told)

    if threading.current_thread() is not threading.main_thread():
        yield check
        return

    def end(number: int, _: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = signal.Signals(number).name
            raise Ended(told)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
