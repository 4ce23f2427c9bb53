"""Ctrl-C and SIGTERM while a training is under way: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

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
    put_back = partial(signal.signal, signal.SIGINT, usual)
    with _noted(signal.SIGINT, usual, put_back) as came:
        yield came
    if came():
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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield lambda: False
        return
    pass_on = partial(signal.raise_signal, signal.SIGINT)
    with _noted(signal.SIGTERM, signal.SIG_DFL, pass_on) as came:
        yield came


@contextmanager
def _noted(
    number: signal.Signals, usual: Any, then: Callable[[], object]
) -> Iterator[Callable[[], bool]]:
    """Note a signal and call `then`; in a thread, and where another handler is set, change nothing.

    Args:
        number: of the signal.
        usual: its handler where nobody has set one; is set again at the end.
        then: what the signal does.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(number) is not usual:
        yield lambda: False
        return
    told = False

    def note(*_: object) -> None:
        nonlocal told
        told = True
        then()

    signal.signal(number, note)
    try:
        yield lambda: told
    finally:
        signal.signal(number, usual)
