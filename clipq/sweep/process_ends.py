"""How a process ended, and whether it was ended from outside, as far as the system tells."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

__all__ = ["ProcessEnd", "ended_for_memory", "how_it_ended"]

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
"""Signals that somebody sends; a crash of a process's own has others."""


class ProcessEnd(NamedTuple):
    """An end.

    Args:
        reason: in words.
        outside: whether nothing says that what ran in the process had a part in it.

    >>> ProcessEnd("its process was ended by SIGTERM", outside=True).outside
    True
    """

    reason: str
    outside: bool


def ended_for_memory(counters: Path = Path("/proc/vmstat")) -> int | None:
    """Return how many processes this machine's kernel has ended for want of memory since its start.

    Args:
        counters: of the kernel.

    Returns:
        None where it does not say: it is not Linux, or one older than 4.13.

    >>> ended_for_memory(Path("/nowhere")) is None
    True
    """
    try:
        lines = counters.read_bytes().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(b"oom_kill ")]
    return int(found[0]) if found and found[0].isdigit() else None


def how_it_ended(code: int | None, before: int | None, after: int | None) -> ProcessEnd:
    """Tell an end.

    Args:
        code: exit code; minus a signal's number where one ended it.
        before: `ended_for_memory` when what ran was begun.
        after: the same, now.

    >>> how_it_ended(3, 0, 0), how_it_ended(-11, 0, 0).outside
    (ProcessEnd(reason='its process ended with code 3', outside=False), False)
    >>> how_it_ended(-9, 0, 0)
    ProcessEnd(reason='its process was ended by SIGKILL from outside', outside=True)
    >>> how_it_ended(-9, 0, 1).reason
    'its process was ended by SIGKILL, and the kernel ended processes for want of memory meanwhile'
    >>> how_it_ended(-9, None, None)
    ProcessEnd(reason='its process was ended by SIGKILL, as where memory runs out', outside=False)
    """
    if code is None or code >= 0:
        return ProcessEnd(f"its process ended with code {code}", outside=False)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    said = f"its process was ended by {name}"
    if -code not in _FROM_OUTSIDE:
        return ProcessEnd(said, outside=False)
    if -code == signal.SIGKILL:
        if before is None or after is None:
            return ProcessEnd(f"{said}, as where memory runs out", outside=False)
        if after != before:
            why = "and the kernel ended processes for want of memory meanwhile"
            return ProcessEnd(f"{said}, {why}", outside=False)
    return ProcessEnd(f"{said} from outside", outside=True)
