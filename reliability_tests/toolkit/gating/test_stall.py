"""A candidate of which nothing gets done is given up; what moves is not."""

from __future__ import annotations

import time
from pathlib import Path

from clipq.cases import Candidate, Cell
from clipq.gating.board import CellBoard
from clipq.gating.stall import StallWatch

CANDIDATE = Candidate.parse("vit/rtn:w4")


class Told:
    def __init__(self) -> None:
        self.whys: list[str] = []

    def __call__(self, candidate: Candidate, why: str) -> None:
        self.whys.append(f"{candidate}: {why}")


def wait_for(done, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_thread_looks_and_tells_once():
    told = Told()
    watch = StallWatch(0.05, told)
    with watch.measuring(CANDIDATE):
        wait_for(lambda: told.whys)
        time.sleep(0.2)
    assert told.whys == [
        "vit/rtn:w4: nothing of it got done for 0.05 s (stalled_seconds in [limits])"
    ]


def test_progress_and_the_end_of_measuring_are_no_stall():
    told = Told()
    watch = StallWatch(1000.0, told)
    with watch.measuring(CANDIDATE):
        watch._since -= 999.0
        watch.progressed("id", 1, 2)
        watch._since -= 999.0
        watch.look()
    watch._since -= 9999.0
    watch.look()
    assert told.whys == []


def test_progress_of_what_nobody_watches_ends_nothing(monkeypatch):
    armed = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *a, **k: armed.append(a))
    watch = StallWatch(1000.0, Told())
    watch.progressed("decoding", 1, 2)
    assert not armed
    with watch.measuring(CANDIDATE):
        assert armed == [(1060.0,)]


def test_no_process_measures_another_cell_of_a_candidate_that_was_given_up(tmp_path: Path):
    cells = [Cell("vit", "rtn:w4", "id"), Cell("vit", "rtn:w8", "id")]
    measured, lost = [], []

    def measure(cell):
        measured.append(cell)
        return ()

    def give(cell, why):
        lost.append((str(cell), why))
        return ()

    CellBoard(tmp_path).give_up(CANDIDATE, "it hangs")
    CellBoard(tmp_path).results(cells, measure, give)
    assert measured == cells[1:]
    assert lost == [("vit/rtn:w4/id", "it hangs")]
