"""What asks a run of a sweep to end: SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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
def ended_by_signals() -> Iterator[None]:
    """Make the first SIGINT or SIGTERM an end; ignore more of them while things are put away.

    In a thread, nothing is changed.

    Raises:
        Ended: where one came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def end(number: int, _: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            raise Ended(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
