"""What runs on a node of a Ray cluster: units are called for, what became of them is returned.

Only texts and numbers go back: an exception that cannot be pickled would say nothing there.
"""

from __future__ import annotations

import math
import os
import time

from clipq.sweep.executor import Work
from clipq.sweep.local_worker import reason_of
from clipq.sweep.ray_cluster import versions
from clipq.sweep.units import Unit

__all__ = ["UnitActor"]


class UnitActor:
    """Holds the work, and through it the model that it loaded.

    Args:
        work: what is done with each unit.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def versions(self) -> dict[str, str]:
        """Return those of this process; that it answers says that it has started."""
        return versions()

    def measure(self, unit: Unit) -> tuple[str, float, float, bool]:
        """Do a unit.

        Returns:
            Why it failed ("" where it did not), its seconds of processor and of the clock, and
            whether this process can go on: what was held when memory ran out may still be held.
        """
        processor, clock = _processor_seconds(), time.monotonic()
        reason, stays = "", True
        try:
            self._work(unit)
        except Exception as error:  # a `SystemExit` may be Ray's, which ends this process
            reason, stays = reason_of(error), not isinstance(error, MemoryError)
        return reason, _processor_seconds() - processor, time.monotonic() - clock, stays


def _processor_seconds() -> float:
    """Return those of this process and of those that it waited for."""
    return math.fsum(os.times()[:4])
