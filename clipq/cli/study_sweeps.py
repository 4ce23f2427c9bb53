"""The sweeps that `clipq study` is asked of: their units, what these took, and where they lie."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cli.sweep_folders import default_folder, no_such_sweep, planned_sweep
from clipq.errors import SweepError
from clipq.terminal import say

if TYPE_CHECKING:
    from clipq.study import MeasuredUnit
    from clipq.sweep.part_store import PartStore

__all__ = ["StudiedSweep"]


class StudiedSweep:
    """A sweep by its plan, whose units alone count then; or by its folder, of which all count.

    Args:
        given: a plan's file, a folder, or an address of an object store.

    Raises:
        SweepError: it is neither of them.
    """

    def __init__(self, given: str) -> None:
        self.given = given
        path = Path(given)
        self.plan = path if path.is_file() else None
        if self.plan is not None:
            self.place: Path | str = default_folder(path)
        elif "://" in given:
            self.place = given
        elif path.is_dir():
            self.place = path
        else:
            raise self._nowhere()
        self.contexts: set[str] = set()
        self.found = 0
        self.missing = 0

    def units(self, metrics: Collection[str] = ()) -> Iterator[MeasuredUnit]:
        """Yield what is measured of its units, one by one; say which are not there yet.

        Args:
            metrics: that are wanted; all by default.

        Raises:
            SweepError: no unit is there, or a part is damaged.
        """
        from clipq.study import MeasuredUnit

        wanted = None if self.plan is None else self._planned(self.plan)
        for part in self._store().everything():
            if wanted is not None and part.unit.id not in wanted:
                continue
            self.found += 1
            self.contexts.add(part.unit.context)
            yield MeasuredUnit(
                part.unit.id,
                tuple(one for one in part.results if not metrics or one.metric in metrics),
                part.evidence,
                part.unit.calibration.samples,
                part.unit.calibration.seed,
            )
        if not self.found:
            raise self._empty()
        if wanted is not None and self.found < len(wanted):
            self.missing = len(wanted) - self.found
            told = f"{self.missing:,} of {len(wanted):,} units are not there yet"
            say(f"clipq: {self.given}: {told}", error=True)
        if count := self._dropped():
            told = (
                f"{count:,} unit{' was' if count == 1 else 's were'} dropped by the plan's "
                "[thrift]: what was kept was chosen by"
            )
            say(f"clipq: {self.given}: {told} its first seeds, and looks better for it", error=True)

    def seconds(self) -> dict[str, float]:
        """Return the processor seconds of the units that are done, as far as they were kept."""
        from clipq.sweep.attempts import Attempts

        if not isinstance(self.place, Path):
            return {}
        attempts = Attempts(self.place / "attempts").read()
        return {attempt.unit_id: attempt.seconds for attempt in attempts if attempt.done}

    def described(self) -> dict[str, Any]:
        """Return where its units come from, once they were read."""
        return {
            "sweep": self.given,
            "units": self.found,
            "missing": self.missing,
            "dropped_by_thrift": self._dropped(),
            "contexts": sorted(self.contexts),
        }

    def _empty(self) -> SweepError:
        folder = self.place
        if self.plan is None and isinstance(folder, Path) and not (folder / "sweep.json").exists():
            return self._nowhere()
        return SweepError(
            f"no unit of {self.given} is done yet in {self.place}",
            hint="`clipq sweep run` does the units; code or data may have changed since it did",
        )

    def _nowhere(self) -> SweepError:
        return no_such_sweep(f"there is no sweep {self.given}", Path(self.given))

    def _dropped(self) -> int:
        from clipq.sweep.thrifty_run import read_dropped

        return len(read_dropped(self.place)) if isinstance(self.place, Path) else 0

    def _store(self) -> PartStore:
        from clipq.sweep.part_store import PartStore

        return PartStore(self.place)

    def _planned(self, plan: Path) -> set[str]:
        """Return the ids of a plan's units, as its project is now."""
        return {unit.id for unit in planned_sweep(plan).units()}
