"""What the processes of one run have measured, cell by cell, each cell once.

All cases of a candidate are judged together, and tests of one candidate may run in several
processes. Each of them takes a cell that nobody works on, leaves the result in a folder that all
share, and reads the others' results there; it waits only for cells that others are at work on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from clipq.cases import Candidate, Cell
from clipq.records import CaseResult

__all__ = ["CellBoard"]

_MOST_DEATHS = 2
"""So many processes may end in a cell before it is given up."""

_ENDED = "the processes that measured it ended before they had"

Results = tuple[CaseResult, ...]
Lost = Callable[[Cell, str], Results]


class CellBoard:
    """Results of cells, measured once over all processes that share a folder.

    Args:
        folder: of this run; None where one process runs it alone.

    >>> import tempfile
    >>> from clipq.verdicts import Verdict
    >>> cell, measured = Cell.parse("vit/rtn:w4/id"), []
    >>> def measure(cell):
    ...     measured.append(cell)
    ...     return (CaseResult(cell.case("ece"), Verdict.PASS),)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     boards = [CellBoard(Path(folder)) for _ in range(2)]
    ...     found = [board.results([cell], measure, None) for board in boards]
    >>> found[0] == found[1], len(measured)
    (True, 1)
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[Cell, Results] = {}

    def results(
        self,
        cells: Sequence[Cell],
        measure: Callable[[Cell], Results],
        lost: Lost,
    ) -> Results:
        """Return the results of cells, in their order.

        Args:
            cells: distinct ones.
            measure: returns a cell's results; called here only where no other process did.
            lost: returns them, and is told why, for a cell in which processes ended, killed or
                crashed, before they had measured it, or whose candidate was given up.
        """
        waiting = [cell for cell in cells if cell not in self._known]
        while waiting:
            before = len(waiting)
            waiting = [cell for cell in waiting if not self._take(cell, measure, lost, wait=0.0)]
            if len(waiting) == before:  # others are at work on all of them
                self._take(waiting[0], measure, lost, wait=-1.0)
        return tuple(result for cell in cells for result in self._known[cell])

    def give_up(self, candidate: Candidate, why: str) -> None:
        """Have no process measure another cell of a candidate."""
        if self.folder is not None:
            self._note(candidate).write_text(why, "utf-8")

    def given_up(self, candidate: Candidate) -> str:
        """Return why a candidate was given up; "" where it was not."""
        if self.folder is None:
            return ""
        note = self._note(candidate)
        return note.read_text("utf-8") if note.is_file() else ""

    def _note(self, candidate: Candidate) -> Path:
        return Path(self.folder or "", f"{_name(candidate)}.given-up")

    def _take(
        self,
        cell: Cell,
        measure: Callable[[Cell], Results],
        lost: Lost,
        *,
        wait: float,
    ) -> bool:
        """Read or measure a cell; return False where another process is measuring it."""
        if cell in self._known:
            return True
        if self.folder is None:
            self._known[cell] = measure(cell)
            return True
        name = _name(cell)
        path = self.folder / f"{name}.json"
        if not path.is_file():
            try:
                with FileLock(self.folder / f"{name}.lock", timeout=wait):
                    if not path.is_file():
                        _write(path, self._measured(cell, self.folder / name, measure, lost))
            except Timeout:
                return False
        self._known[cell] = tuple(map(CaseResult.from_json, json.loads(path.read_text("ascii"))))
        return True

    def _measured(
        self,
        cell: Cell,
        attempts: Path,
        measure: Callable[[Cell], Results],
        lost: Lost,
    ) -> Results:
        with attempts.open("ab") as stream:  # a byte for each process that began
            began = stream.tell()
            stream.write(b".")
        why = self.given_up(cell.candidate) or (_ENDED if began >= _MOST_DEATHS else "")
        if why:
            return lost(cell, why)
        try:
            return measure(cell)
        except BaseException:  # this process lives, and says itself what went wrong
            os.truncate(attempts, began)
            raise


def _name(what: Candidate | Cell) -> str:
    return hashlib.sha256(str(what).encode("utf-8", "surrogatepass")).hexdigest()


def _write(path: Path, results: Results) -> None:
    # Renamed into place, for others read without the lock; not synced, for it ends with the run.
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps([result.to_json() for result in results]), "ascii")
    unfinished.replace(path)
