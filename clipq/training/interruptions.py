"""Ctrl-C and SIGTERM while a training is under way: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interruptions", "terminations"]


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Put off the first Ctrl-C; yield what tells whether it came. A second one is not put off.

    In a thread, and where the caller handles Ctrl-C in a way of its own, nothing is changed.

    Raises:
        KeyboardInterrupt: at the end, where it came.

    >>> with interruptions() as interrupted:
    ...     interrupted()
    False
    """
    usual = signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not usual:
        yield lambda: False
        return
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        raise KeyboardInterrupt


@contextmanager
def terminations() -> Iterator[Callable[[], bool]]:
    """Take SIGTERM, by which schedulers end jobs, for Ctrl-C; yield what tells whether it came.

    In a thread, and where the caller handles SIGTERM in a way of its own, nothing is changed; nor
    in one of several processes that train together, which torchrun ends where another has failed.

    >>> with terminations() as terminated:
    ...     terminated()
    False
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) < 2
    main = threading.current_thread() is threading.main_thread()
    if not (alone and main) or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: False
        return
    came = False

    def pass_on(*_: object) -> None:
        nonlocal came
        came = True
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
