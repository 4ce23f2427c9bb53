"""What runs in a process of the local engine: units come by a pipe, what became of them goes back.

Only texts and numbers are sent back, so that no error is too odd to be told of.
"""

from __future__ import annotations

import faulthandler
import math
import os
import pickle
import resource
import signal
import threading
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tqdm import tqdm

from clipq.errors import ClipqError
from clipq.sweep.executor import Work
from clipq.sweep.units import Unit

__all__ = ["reason_of", "serve"]

_LONGEST_WATCH = 30 * 24 * 3600.0
_FIRST_TO_GO = "800"
_NO_MEMORY = ("MemoryError", "can't allocate memory", "Cannot allocate memory", "out of memory")
"""How Python, torch on a CPU, the system, and torch on a GPU say that there is too little."""


def serve(pipe: Connection, work: bytes, time_limit: float, memory_limit: int | None) -> None:
    """Do units until the pipe ends.

    Sends (reason, processor seconds, whether it goes on) once it has begun and after each unit.
    After a failure nothing is kept of the work: what the unit left behind is no other unit's.

    Args:
        pipe: where units come from.
        work: the pickled `Work`.
        time_limit: seconds of a unit. Whoever started this process ends it then; a while later it
            ends by itself, for the other may be gone.
        memory_limit: bytes; None for no limit.
    """
    os.setsid()  # what a unit starts ends with it, and a terminal's Ctrl-C is the coordinator's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Its lock is else one between processes, which stays behind where this one is killed.
    tqdm.set_lock(threading.RLock())
    _offer_to_the_killer()
    if memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    try:
        task: Work | None = pickle.loads(work)
    except Exception as error:  # of any import that it needs
        pipe.send((reason_of(error), _seconds(), False))
        return
    pipe.send(("", _seconds(), True))
    with open(os.devnull, "wb") as nowhere:
        while task is not None:
            try:
                unit: Unit = pipe.recv()
            except EOFError:
                return
            if time_limit < _LONGEST_WATCH:
                # In C: it works where a unit hangs without letting another thread run.
                faulthandler.dump_traceback_later(time_limit * 1.5 + 30, exit=True, file=nowhere)
            reason, seconds, stays = _attempted(task, unit)
            if reason and stays:
                stays = (task := _anew(work)) is not None
            faulthandler.cancel_dump_traceback_later()
            pipe.send((reason, seconds, stays))
            if not stays:
                return


def _anew(work: bytes) -> Work | None:
    """Return the work as it was at first; None where that is not possible any more."""
    try:
        made: Work = pickle.loads(work)
    except Exception:  # of memory that the failed unit still holds, for example
        return None
    return made


def _attempted(work: Work, unit: Unit) -> tuple[str, float, bool]:
    """Return why a unit failed, "" where it did not; its processor seconds; whether to go on."""
    start = _seconds()
    try:
        work(unit)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a quantizer raises, `SystemExit` too
        reason = reason_of(error)
        # What it held may still be held.
        short = isinstance(error, MemoryError) or any(said in reason for said in _NO_MEMORY)
        return reason, _seconds() - start, not short
    return "", _seconds() - start, True


def _offer_to_the_killer() -> None:
    """Let the kernel end this process, and not who started it, where memory runs out."""
    with suppress(OSError):  # of Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def reason_of(error: BaseException) -> str:
    """Return an error in a sentence that is never empty.

    >>> reason_of(MemoryError()), reason_of(ValueError("no such layer"))
    ('MemoryError', 'ValueError: no such layer')
    """
    name = type(error).__name__
    try:
        said = str(error)
    except Exception:  # a message that cannot be made is no reason to lose the outcome
        said = "its message cannot be shown"
    if isinstance(error, ClipqError) and said:
        return said
    return f"{name}: {said}" if said else name


def _seconds() -> float:
    """Return processor seconds of this process and of those that it waited for."""
    return math.fsum(os.times()[:4])


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(os.getpid(), signal.SIGKILL)
