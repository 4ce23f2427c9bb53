"""What runs in a process of the local engine: units come by a pipe, what became of them goes back.

Only texts and numbers are sent back, so that no error is too odd to be told of.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import threading
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tqdm import tqdm

from clipq.sweep.unit_attempt import UnitAttempts, processor_seconds, reason_of
from clipq.sweep.units import Unit

__all__ = ["serve"]

_LONGEST_WATCH = 30 * 24 * 3600.0
_FIRST_TO_GO = "800"


def serve(pipe: Connection, work: bytes, time_limit: float, memory_limit: int | None) -> None:
    """Do units until the pipe ends.

    Sends (reason, processor seconds, whether it goes on) once it has begun and after each unit.

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
        attempted = UnitAttempts(work)  # `SystemExit` is a failure, too
    except Exception as error:  # of any import that it needs
        pipe.send((reason_of(error), processor_seconds(), False))
        return
    pipe.send(("", processor_seconds(), True))
    with open(os.devnull, "wb") as nowhere:
        while True:
            try:
                unit: Unit = pipe.recv()
            except EOFError:
                return
            if time_limit < _LONGEST_WATCH:
                # In C: it works where a unit hangs without letting another thread run.
                faulthandler.dump_traceback_later(time_limit * 1.5 + 30, exit=True, file=nowhere)
            reason, seconds, stays = attempted(unit)
            faulthandler.cancel_dump_traceback_later()
            pipe.send((reason, seconds, stays))
            if not stays:
                return


def _offer_to_the_killer() -> None:
    """Let the kernel end this process, and not who started it, where memory runs out."""
    with suppress(OSError):  # of Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(os.getpid(), signal.SIGKILL)
