"""What was tried, when, at what cost: beside the parts, which know nothing of it.

Every sitting of a coordinator writes a file of its own, one JSON object a line, so that a line that
a kill cut off is the last of its file.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from clipq.errors import SweepError
from clipq.sweep.executor import Outcome

__all__ = ["OUTSIDE_IN_A_TRY", "Attempt", "Attempts"]

OUTSIDE_IN_A_TRY = 5
"""Attempts that are ended from outside and count as one try of their unit."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a unit, as it is kept.

    Args:
        unit_id: of the unit.
        name: the unit, as people read it.
        reason: why it failed; "" where its part is in the store.
        ended: whether its process ended over it.
        seconds: processor seconds.
        gpu_seconds: seconds that it held a GPU for.
        finished: seconds since 1970.
        outside: whether what ended it came from outside, so that it says little of the unit.

    >>> Attempt("0f", "vit/rtn:w4", "no memory").done
    False
    """

    unit_id: str
    name: str
    reason: str = ""
    ended: bool = False
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    finished: float = 0.0
    outside: bool = False

    @property
    def done(self) -> bool:
        """Whether its part is in the store."""
        return not self.reason


class Attempts:
    """The attempts of a sweep: those of earlier sittings, and this one's.

    Where nothing can be written, as on a full disk, lines are held back until something can.

    Args:
        folder: where they are kept; made with the first line.

    >>> from tempfile import TemporaryDirectory
    >>> from clipq.sweep.units import Unit
    >>> with TemporaryDirectory() as folder:
    ...     attempts = Attempts(Path(folder))
    ...     attempts.add(Outcome(Unit("vit", "rtn:w4"), "no memory", seconds=2.0))
    ...     [(each.name, each.reason) for each in Attempts(Path(folder)).read()]
    [('vit/rtn:w4', 'no memory')]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self.reasons: dict[str, Attempt] = {}
        self.seconds = 0.0
        self.gpu_seconds = 0.0
        self.unwritten: list[str] = []
        self._path: Path | None = None
        for attempt in self.read():
            self._count(attempt)

    def tries(self, unit_id: str) -> Fraction:
        """Return how many of its tries a unit has had.

        Attempts that were ended from outside count less, but they do: nobody can tell for sure that
        the unit had no part in it.
        """
        outside = self.outside[unit_id]
        return self.failures[unit_id] - outside + Fraction(outside, OUTSIDE_IN_A_TRY)

    def read(self) -> Iterator[Attempt]:
        """Yield every attempt that is written, sitting by sitting.

        Raises:
            SweepError: a file cannot be read, or holds what is no attempt.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError as error:
                raise SweepError(f"{path} cannot be read: {error}") from error
            for number, line in enumerate(lines[:-1], 1):  # what follows the last line is cut off
                try:
                    yield Attempt(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise SweepError(
                        f"{path}:{number} is no attempt: {error}",
                        hint="it tells costs and failures only: delete the line, or the file",
                    ) from error

    def add(self, outcome: Outcome) -> None:
        """Keep what became of an attempt."""
        unit = outcome.unit
        attempt = Attempt(
            unit.id,
            str(unit),
            outcome.reason,
            outcome.ended,
            round(outcome.seconds, 3),
            round(outcome.gpu_seconds, 3),
            round(time.time(), 3),
            outcome.outside,
        )
        self._count(attempt)
        plain: dict[str, Any] = {name: getattr(attempt, name) for name in Attempt.__slots__}
        self.unwritten.append(json.dumps(plain, ensure_ascii=True) + "\n")
        self.write()

    def write(self) -> None:
        """Write what is held back, where that is possible now."""
        if not self.unwritten:
            return
        content = "".join(self.unwritten).encode()
        try:
            if self._path is None:
                self._path = self._sitting()
            size = self._path.stat().st_size
            try:
                with self._path.open("ab") as file:
                    file.write(content)
            except OSError:
                os.truncate(self._path, size)  # of a half-written line nothing is left
                raise
        except OSError:
            return
        self.unwritten.clear()

    def _sitting(self) -> Path:
        """Make the file of this sitting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(p.stem) for p in self.folder.glob("*.jsonl") if p.stem.isdigit()),
                         default=0)  # fmt: skip
        path = self.folder / f"{number:06d}.jsonl"
        path.touch(exist_ok=False)
        return path

    def _count(self, attempt: Attempt) -> None:
        self.seconds += attempt.seconds
        self.gpu_seconds += attempt.gpu_seconds
        if attempt.done:
            for found in (self.failures, self.outside, self.reasons):
                found.pop(attempt.unit_id, None)
        else:
            self.failures[attempt.unit_id] += 1
            self.outside[attempt.unit_id] += attempt.outside
            self.reasons[attempt.unit_id] = attempt
