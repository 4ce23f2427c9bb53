"""One attempt at a unit within a process of an engine, told in texts and numbers.

Nothing else is sent to whoever asked, so that no error is too odd to be told of.
"""

from __future__ import annotations

import math
import os
import pickle

from clipq.errors import ClipqError
from clipq.sweep.executor import Work
from clipq.sweep.units import Unit

__all__ = ["UnitAttempts", "attempted", "processor_seconds", "reason_of"]

_NO_MEMORY = ("MemoryError", "can't allocate memory", "Cannot allocate memory", "out of memory")
"""How Python, torch on a CPU, the system, and torch on a GPU say that there is too little."""


class UnitAttempts:
    """Attempts at units, one after the other, in one process.

    After a failure nothing is kept of the work: what the unit left behind is no other unit's.

    Args:
        work: pickled; what is done with each unit.
        failures: as of `attempted`.

    >>> UnitAttempts(pickle.dumps(len))(Unit("vit", "rtn:w4"))[0]
    "TypeError: object of type 'Unit' has no len()"
    """

    def __init__(self, work: bytes, failures: type[BaseException] = BaseException) -> None:
        self._pickled, self._failures = work, failures
        self._work: Work = pickle.loads(work)

    def __call__(self, unit: Unit) -> tuple[str, float, bool]:
        """Do a unit; return what `attempted` does."""
        reason, seconds, stays = attempted(self._work, unit, self._failures)
        if reason and stays:
            try:
                self._work = pickle.loads(self._pickled)
            except Exception:  # of memory that the failed unit still holds, for example
                return reason, seconds, False
        return reason, seconds, stays


def attempted(
    work: Work, unit: Unit, failures: type[BaseException] = BaseException
) -> tuple[str, float, bool]:
    """Do a unit.

    Args:
        work: what is done with it.
        unit: which.
        failures: what is a failure of the unit when it is raised; anything else, and
            `KeyboardInterrupt`, is let through.

    Returns:
        Why it failed ("" where it did not), its processor seconds, and whether this process can go
        on: what was held when memory ran out may still be held.

    >>> def short(unit):
    ...     raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    >>> reason, _, stays = attempted(short, Unit("vit", "rtn:w4"))
    >>> reason, stays
    ("RuntimeError: DefaultCPUAllocator: can't allocate memory", False)
    """
    start = processor_seconds()
    try:
        work(unit)
    except KeyboardInterrupt:
        raise
    except failures as error:
        reason = reason_of(error)
        short = isinstance(error, MemoryError) or any(said in reason for said in _NO_MEMORY)
        return reason, processor_seconds() - start, not short
    return "", processor_seconds() - start, True


def processor_seconds() -> float:
    """Return those of this process and of the ones that it waited for.

    >>> processor_seconds() > 0
    True
    """
    return math.fsum(os.times()[:4])


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
