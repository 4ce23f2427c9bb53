"""Time and size of an artifact beside those of FP32 in torch, measured in turn.

One call of the artifact's session, one of torch's, and again: what slows a machine down slows down
both, and the ratio of neighbours is steadier than either. The artifact's process times itself, so
that what it costs to hand over images is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Speed", "side_by_side"]

_ROUNDS = 7
_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds per batch of an artifact and of FP32 in torch, round by round.

    Args:
        tower: which tower ran.
        batch: samples per call.
        threads: of either.
        artifact: seconds of the session's calls.
        fp32: seconds of torch's calls, each made right after.

    >>> speed = Speed("image", 64, 1, (0.01, 0.03, 0.01), (0.02, 0.06, 0.04))
    >>> speed.ratio, speed.spread, speed.milliseconds, speed.fp32_milliseconds
    (0.5, (0.25, 0.5), 0.15625, 0.3125)
    """

    tower: str
    batch: int
    threads: int
    artifact: tuple[float, ...]
    fp32: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Time of the artifact over that of FP32 in the median round; below 1 is faster."""
        own, fp32 = self._rounds[self._middle]
        return own / fp32

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio of a round."""
        (least, of_least), (most, of_most) = self._rounds[0], self._rounds[-1]
        return least / of_least, most / of_most

    @property
    def milliseconds(self) -> float:
        """Of the artifact, per sample, in the median round."""
        return 1e3 * self._rounds[self._middle][0] / self.batch

    @property
    def fp32_milliseconds(self) -> float:
        """Of FP32 in torch, per sample, in the median round."""
        return 1e3 * self._rounds[self._middle][1] / self.batch

    @property
    def _rounds(self) -> list[tuple[float, float]]:
        """Both times, round by round, ordered by their ratio."""
        both = zip(self.artifact, self.fp32, strict=True)
        return sorted(both, key=lambda times: times[0] / times[1])

    @property
    def _middle(self) -> int:
        return (len(self.fp32) - 1) // 2

    def to_plain(self) -> dict[str, Any]:
        """Return it as strict-JSON values."""
        return asdict(self) | {
            "ratio": self.ratio,
            "spread": list(self.spread),
            "milliseconds": self.milliseconds,
            "fp32_milliseconds": self.fp32_milliseconds,
        }


def side_by_side(
    artifact: Callable[[], float],
    fp32: Callable[[], float],
    *,
    rounds: int = _ROUNDS,
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the seconds of both, call by call in turn; a first round of each is left out.

    Args:
        artifact: runs once, and returns the seconds that it took.
        fp32: likewise.
        rounds: at most.
        seconds: after so many no further round starts; there are two at least.
        clock: seconds, counted up.

    >>> side_by_side(lambda: 1.0, lambda: 2.0, rounds=2)
    ((1.0, 1.0), (2.0, 2.0))
    """
    artifact(), fp32()
    until = clock() + seconds
    found: list[tuple[float, float]] = []
    while len(found) < rounds and (len(found) < 2 or clock() < until):
        found.append((artifact(), fp32()))
    first, second = zip(*found, strict=True)
    return _floats(first), _floats(second)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))
