"""What a sweep will take: time, money and disk, from what a unit took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from clipq.errors import SweepError

__all__ = ["SweepEstimate", "estimate"]


@dataclass(frozen=True, slots=True)
class SweepEstimate:
    """What units will take, as far as it can be told.

    Args:
        processor_seconds: of all of them.
        seconds: from the first to the last.
        cost: in whatever unit an hour's price was given in; None where none was.
        disk: bytes of their parts; None where no part was measured.
        basis: what it rests on, in words.
    """

    processor_seconds: float
    seconds: float
    cost: float | None
    disk: int | None
    basis: str


def estimate(
    units: int,
    seconds: Sequence[float],
    *,
    processes: int = 1,
    price: float | None = None,
    sizes: Sequence[int] = (),
    said: bool = False,
) -> SweepEstimate | None:
    """Return what units will take; None where nothing is known of any.

    Args:
        units: how many.
        seconds: processor seconds that some took.
        processes: that work at once, each on a unit.
        price: of an hour of one process.
        sizes: bytes of some parts.
        said: whether `seconds` is what somebody says, and not measured.

    Raises:
        SweepError: a time or a number of processes that cannot be.

    >>> found = estimate(1000, [7.0, 9.0], processes=2, price=0.05)
    >>> found.processor_seconds, found.seconds, round(found.cost, 3)
    (8000.0, 4000.0, 0.111)
    >>> found.basis, found.disk, estimate(1000, []) is None
    ('2 units that were measured', None, True)
    """
    if processes < 1 or (price is not None and price < 0) or any(s <= 0 for s in seconds):
        raise SweepError(
            f"{processes} processes at {price}, {min(seconds, default=0)} seconds a unit",
            hint="give one process or more, a price of 0 or more, and seconds above 0",
        )
    if not seconds:
        return None
    total = units * fmean(seconds)
    many = "unit that was" if len(seconds) == 1 else "units that were"
    return SweepEstimate(
        processor_seconds=total,
        seconds=total / min(processes, max(units, 1)),
        cost=None if price is None else total / 3600.0 * price,
        disk=round(units * fmean(sizes)) if sizes else None,
        basis="seconds per unit as given" if said else f"{len(seconds):,} {many} measured",
    )
