"""The interface of engines: units in, one outcome each out, in whatever order they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from clipq.sweep.units import Unit

__all__ = ["Coming", "Executor", "Outcome", "Work"]


class Coming:
    """Units to come, which an engine may read ahead of those that it begins.

    Args:
        units: in order.
        over: whether no further one is to be begun: those that were read ahead are dropped, and
            have no outcome.

    >>> coming = Coming(iter([Unit("vit", "rtn:w8a8")]), over=lambda: False)
    >>> [str(unit) for unit in coming], coming.over()
    (['vit/rtn:w8a8'], False)
    """

    def __init__(self, units: Iterator[Unit], over: Callable[[], bool]) -> None:
        self._units = units
        self.over = over

    def __iter__(self) -> Iterator[Unit]:
        return self

    def __next__(self) -> Unit:
        return next(self._units)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt at a unit.

    Args:
        unit: which.
        reason: why it failed; "" where its part is in the store.
        ended: whether the process that was at it ended (killed, out of memory, over its time), so
            that it says nothing of it itself.
        seconds: processor seconds that the attempt took.
        gpu_seconds: seconds that it held a GPU for.
        outside: whether what ended it came from outside, as far as is known: its process was killed
            and memory was not short, or its machine was lost.

    >>> Outcome(Unit("vit", "rtn:w8a8")).done, Outcome(Unit("vit", "rtn:w4"), "no memory").done
    (True, False)
    """

    unit: Unit
    reason: str = ""
    ended: bool = False
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    outside: bool = False

    @property
    def done(self) -> bool:
        """Whether its part is in the store."""
        return not self.reason


class Work(Protocol):
    """What is done with a unit, in a process of its own that does many: picklable.

    It keeps what units of a model share (the loaded model, decoded images) from one to the next,
    commits the unit's part to the store itself, and raises for what failed.
    """

    def __call__(self, unit: Unit) -> None: ...


class Executor(Protocol):
    """An engine: it runs units somewhere, several at once.

    Units of one model come together, and an engine gives them to the same processes as far as it
    can. A unit whose process ends, or that takes longer than `time_limit` seconds, is an outcome
    with a reason; the others go on. Whether a unit is tried again is the coordinator's matter.
    One that reads ahead of what it begins asks `Coming`, where it is given one, whether it is over.
    """

    def run(self, units: Iterable[Unit], work: Work, *, time_limit: float) -> Iterator[Outcome]:
        """Yield one outcome per unit, as they end; closing the iterator ends the processes."""
        ...
