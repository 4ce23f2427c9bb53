"""What runs on a node of a Ray cluster: units are called for, what became of them is returned.

Only texts and numbers go back: an exception that cannot be pickled would say nothing there.
"""

from __future__ import annotations

import time

from clipq.sweep.ray_cluster import versions
from clipq.sweep.unit_attempt import UnitAttempts
from clipq.sweep.units import Unit

__all__ = ["UnitActor"]


class UnitActor:
    """Holds the work, and through it the model that it loaded.

    Args:
        work: what is done with each unit, pickled.
    """

    def __init__(self, work: bytes) -> None:
        # A `SystemExit` may be Ray's, which ends this process.
        self._attempted = UnitAttempts(work, Exception)

    def versions(self) -> dict[str, str]:
        """Return those of this process; that it answers says that it has started."""
        return versions()

    def measure(self, unit: Unit) -> tuple[str, float, float, bool]:
        """Do a unit.

        Returns:
            Why it failed ("" where it did not), its seconds of processor and of the clock, and
            whether this process can go on: what was held when memory ran out may still be held.
        """
        clock = time.monotonic()
        reason, seconds, stays = self._attempted(unit)
        return reason, seconds, time.monotonic() - clock, stays
