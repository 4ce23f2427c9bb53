"""Sweeps by processes that are killed, hang and run out: the data are those of a quiet run."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sweep_works import FakeWork, FolderStore

from clipq.errors import SweepError
from clipq.sweep import local_engine
from clipq.sweep.attempts import Attempts
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.executor import Coming, Outcome
from clipq.sweep.local_engine import LocalExecutor
from clipq.sweep.spending import Spending
from clipq.sweep.sweep_folder import claimed
from clipq.sweep.unit_attempt import UnitAttempts
from clipq.sweep.units import Unit

IDENTITY = {"plan": "0a", "rtn: method": "1b"}


class Inline:
    """An engine without processes, whose outcomes may be made up."""

    def __init__(self, made_up=None, *, outside=False):
        self.made_up = made_up or {}
        self.outside = outside
        self.seen = []

    def run(self, units, work, *, time_limit):
        for unit in units:
            self.seen.append(unit.quantizer)
            reason = self.made_up.get(unit.quantizer)
            if reason is None:
                work(unit)
            yield Outcome(unit, reason or "", seconds=1.0, outside=self.outside and bool(reason))


def units(*quantizers: str, models=("vit",)) -> list[Unit]:
    return [Unit(model, text, context="0f") for model in models for text in quantizers]


def many(count: int) -> list[Unit]:
    return units(*(f"rtn:w{bits}" for bits in range(count // 2)), models=("vit", "resnet"))


def sweep(folder: Path, given, *, executor=None, seconds=0.0, **options):
    store = FolderStore(folder / "parts")
    work = FakeWork(folder / "parts", seconds=seconds, log=options.pop("log", None))
    options = {"identity": IDENTITY, "time_limit": math.inf, "folder": folder} | options
    executor = executor or Inline()
    return run_sweep(given, work, store=store, executor=executor, **options)


def parts(folder: Path) -> dict[str, str]:
    return FolderStore(folder / "parts").content()


def quiet(folder: Path, given) -> dict[str, str]:
    sweep(folder, given)
    return parts(folder)


def test_one_and_two_processes_in_any_order_leave_the_same_parts(tmp_path):
    given = many(24)
    expected = quiet(tmp_path / "inline", given)
    log = tmp_path / "log"
    for name, processes in (("one", 1), ("two", 2)):
        shuffled = random.Random(processes).sample(given, len(given))
        log.unlink(missing_ok=True)
        summary = sweep(tmp_path / name, shuffled, executor=LocalExecutor(processes), log=log)
        assert summary.done == 24
        assert summary.exit_code == 0
        assert parts(tmp_path / name) == expected
        by_process: dict[str, list[str]] = {}
        for line in log.read_text().splitlines():
            process, model, _ = line.split()
            by_process.setdefault(process, []).append(model)
        assert len(by_process) <= processes
        switches = [sum(a != b for a, b in itertools.pairwise(m)) for m in by_process.values()]
        assert max(switches) <= 2, "units of a model that is loaded come first"


def test_what_goes_wrong_is_an_outcome_with_its_reason_and_the_rest_goes_on(tmp_path):
    wrong = {
        "hang:w4": "longer than 2 s",
        "memory:w4": "MemoryError",
        "raise:w4": "ValueError: no such layer",
        "odd:w4": "OddError: its message cannot be shown",
        "exit:w4": "SystemExit: 0",
        "die:w4": "ended with code 3",
        "full:w4": "OSError: [Errno 28] No space left on device",
    }
    given = units("rtn:w8", *wrong, "once:w4", "late:w4", "rtn:w4")
    executor = LocalExecutor(2, memory_limit=1 << 33)
    summary = sweep(tmp_path, given, executor=executor, time_limit=2.0, tries=2)
    reasons = {each.name.removeprefix("vit/"): each.reason for each in summary.failed}
    assert reasons.keys() == wrong.keys()
    assert all(wrong[name] in reason for name, reason in reasons.items()), reasons
    ended = {each.name for each in summary.failed if each.ended}
    assert ended == {"vit/hang:w4", "vit/die:w4"}
    # "once" died before its commit and was tried again; "late" after it, which is no failure.
    assert (summary.done, summary.attempts, summary.exit_code) == (4, 2 * len(wrong) + 5, 1)
    assert len(parts(tmp_path)) == 4
    told = list(Attempts(tmp_path / "attempts").read())
    assert len(told) == summary.attempts
    assert all(each.seconds >= 0.0 for each in told)

    again = sweep(tmp_path, given, executor=LocalExecutor(1), tries=2)
    assert (again.found, len(again.failed)) == (4, len(wrong)), "set aside"
    assert again.attempts == 2, "once there is space, what wanted for it is tried again"


def test_processes_killed_at_random_lose_and_double_nothing(tmp_path):
    given = many(120)
    expected = quiet(tmp_path / "quiet", given)
    log, kills, over = tmp_path / "log", [], threading.Event()

    def kill():
        chance = random.Random(7)
        while not over.wait(chance.uniform(0.01, 0.05)) and len(kills) < 30:
            lines = log.read_text().splitlines() if log.exists() else []
            alive = [p for p in {int(line.split()[0]) for line in lines[-4:]} if p not in kills]
            if alive:
                kills.append(chance.choice(sorted(alive)))
                os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        engine = LocalExecutor(3)
        summary = sweep(tmp_path, given, executor=engine, seconds=0.05, log=log)
    finally:
        over.set()
        killer.join()
    assert len(kills) == 30
    assert parts(tmp_path) == expected
    assert summary.done == 120
    assert not summary.failed
    done = [each.unit_id for each in Attempts(tmp_path / "attempts").read() if each.done]
    assert len(done) == len(set(done)) == 120


def test_a_killed_coordinator_takes_its_processes_along_and_its_lock_is_free(tmp_path):
    log = tmp_path / "log"
    code = textwrap.dedent(f"""
        import math, sys
        sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parents[3])]!r}
        from pathlib import Path
        from sweep_works import FakeWork, FolderStore
        from clipq.sweep.coordinator import run_sweep
        from clipq.sweep.local_engine import LocalExecutor
        from clipq.sweep.units import Unit
        if __name__ == "__main__":
            folder = Path({str(tmp_path)!r})
            given = [Unit("vit", f"rtn:w{{bits}}", context="0f") for bits in range(40)]
            work = FakeWork(folder / "parts", seconds=0.2, log=folder / "log")
            summary = run_sweep(given, work, store=FolderStore(folder / "parts"), folder=folder,
                executor=LocalExecutor(2), identity={IDENTITY!r}, time_limit=math.inf)
            print(summary)
            sys.exit(summary.exit_code)
    """)
    script = tmp_path / "coordinate.py"
    script.write_text(code)
    given = units(*(f"rtn:w{bits}" for bits in range(40)))

    def started(at_least: int):
        process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while len(log.read_text().splitlines() if log.exists() else ()) < at_least:
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        return process

    first = started(3)
    with pytest.raises(SweepError, match=f"being run already, by process {first.pid} on "):
        sweep(tmp_path, given)
    first.kill()
    first.communicate()
    workers = {int(line.split()[0]) for line in log.read_text().splitlines()}
    until = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until, "a worker outlived its coordinator"
        time.sleep(0.02)

    before = len(log.read_text().splitlines())
    second = started(before + 3)
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 143
    assert "ended by SIGTERM" in said

    summary = sweep(tmp_path, given)
    assert summary.found >= 1  # of those that were begun, some ended with their process
    assert summary.done + summary.found == 40
    assert parts(tmp_path) == quiet(tmp_path / "quiet", given)


def test_another_plan_or_other_code_is_refused_with_the_difference(tmp_path):
    given = units("rtn:w8", "rtn:w4")
    sweep(tmp_path, given[:1])
    other = IDENTITY | {"rtn: method": "2c", "awq: method": "3d"}
    with pytest.raises(SweepError, match=r"changed: rtn: method; new: awq: method"):
        sweep(tmp_path, given, identity=other)
    summary = sweep(tmp_path, given, identity=other, another=True)
    assert (summary.found, summary.done) == (1, 1)
    with pytest.raises(SweepError, match="no longer there: awq: method") as caught:
        sweep(tmp_path, given)
    assert "--another" in str(caught.value)
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(SweepError, match="does not say which sweep this is"):
        sweep(tmp_path, given)


def test_no_unit_is_begun_once_the_budget_is_spent(tmp_path):
    engine = Inline()
    summary = sweep(tmp_path, many(10), executor=engine, seconds=0.1, budget_seconds=0.25)
    assert 0 < summary.done < 10
    assert summary.done + summary.left == 10
    assert (summary.ended_by, summary.exit_code) == ("budget", 1)
    assert "ended by budget" in str(summary)
    assert sweep(tmp_path, many(10), budget_seconds=60.0).exit_code == 0
    again = sweep(tmp_path, many(10), budget_seconds=1e-9)  # nothing is left to go on with
    assert (again.found, again.exit_code, "ended by" in str(again)) == (10, 0, False)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Spending(cpu_hours=4 / 3600), "budget of processor hours"),
        (Spending(cost=4.0, price=3600.0), "budget of cost"),
    ],
)
def test_what_earlier_runs_spent_counts_and_failed_attempts_too(tmp_path, limits, named):
    given = many(10)
    first = sweep(tmp_path, given[:3], executor=Inline({"rtn:w1": "no memory"}), tries=2)
    assert first.attempts == 4  # of one second each: two units, and one that failed twice
    engine = Inline()
    second = sweep(tmp_path, given, executor=engine, tries=2, spending=limits)
    assert (engine.seen, second.ended_by, second.exit_code) == ([], named, 1)
    assert (second.found, second.left) == (2, 7)
    assert sweep(tmp_path, given, tries=2, spending=Spending(cpu_hours=1.0)).done == 7


def test_only_units_under_way_go_beyond_what_may_be_spent(tmp_path):
    summary = sweep(tmp_path, many(10), spending=Spending(cpu_hours=3 / 3600))
    assert (summary.done, summary.left, summary.seconds) == (3, 7, 3.0)


@pytest.mark.parametrize(
    "wrong", [{"cpu_hours": 0.0}, {"gpu_hours": math.nan}, {"price": -1.0}, {"cost": 1.0}]
)
def test_limits_that_mean_nothing_are_refused(wrong):
    with pytest.raises(SweepError):
        Spending(**wrong)


def test_a_signal_that_a_library_swallows_is_not_lost(tmp_path):
    class Swallowing:
        def run(self, units, work, *, time_limit):
            next(iter(units))
            with suppress(BaseException):  # as a callback of compiled code does
                signal.raise_signal(signal.SIGTERM)
            for _ in range(3):
                assert not units.over()
            yield from ()

    summary = sweep(tmp_path, units("rtn:w8", "rtn:w4"), executor=Swallowing())
    assert (summary.ended_by, summary.done, summary.exit_code) == ("SIGTERM", 0, 143)


def test_a_unit_said_to_be_done_without_a_part_is_a_failure(tmp_path):
    summary = sweep(tmp_path, units("rtn:w8"), executor=Inline({"rtn:w8": ""}), tries=1)
    assert "not in the store" in summary.failed[0].reason


def test_failures_are_set_aside_over_runs_and_tried_again_with_more_tries(tmp_path):
    given, engine = units("bad:w4", "rtn:w8"), Inline({"bad:w4": "no\nmore of it"})
    summary = sweep(tmp_path, given, executor=engine)
    assert engine.seen == ["bad:w4", "rtn:w8", "bad:w4", "bad:w4"]
    assert "  vit/bad:w4: no" in str(summary).splitlines()
    told = []
    engine = Inline({})
    summary = sweep(tmp_path, given, executor=engine, tries=4, planned=given,
                    progress=lambda *what: told.append(what))  # fmt: skip
    assert (engine.seen, summary.exit_code) == (["bad:w4"], 0)
    assert told == [("units", 1, 1)]


def test_progress_of_a_run_that_goes_on_is_of_what_it_does(tmp_path):
    first, second = units("rtn:w8", "rtn:w6", "bad:w4"), units("rtn:w4", "rtn:w3")
    sweep(tmp_path, first, executor=Inline({"bad:w4": "no"}), tries=1)
    told = []
    both = [*first, *second]
    sweep(tmp_path, both, executor=Inline({}), tries=1, planned=both, another=True,
          progress=lambda *what: told.append(what))  # fmt: skip
    assert told == [("units", 1, 2), ("units", 2, 2)]


def test_what_is_ended_from_outside_counts_a_fifth_and_comes_last_in_the_next_run(tmp_path):
    given = units("rtn:w8", "hit:w4", "rtn:w4")
    engine = Inline({"hit:w4": "killed"}, outside=True)
    summary = sweep(tmp_path, given, executor=engine, tries=2)
    assert engine.seen.count("hit:w4") == 10
    assert [each.reason for each in summary.failed] == ["killed"]
    attempts = Attempts(tmp_path / "attempts")
    (unit_id,) = attempts.reasons
    assert (attempts.failures[unit_id], attempts.tries(unit_id)) == (10, 2)

    engine = Inline({"hit:w4": "its own fault"})
    summary = sweep(tmp_path, [*given, *units("rtn:w2")], executor=engine, tries=3)
    assert engine.seen == ["rtn:w2", "hit:w4"], "what failed before does not hold up the rest"
    assert summary.failed[0].reason == "its own fault"
    assert sweep(tmp_path, given, executor=Inline(), tries=4).exit_code == 0
    assert not Attempts(tmp_path / "attempts").reasons


def test_a_full_disk_ends_the_run_and_is_no_units_fault(tmp_path):
    given = many(40)
    full = {unit.quantizer: "OSError: [Errno 28] No space left on device" for unit in given}
    engine = Inline(full)
    summary = sweep(tmp_path, given, executor=engine, tries=2)
    assert (len(engine.seen), summary.left, summary.exit_code) == (8, 40, 1)
    assert "ended by no space to write to: OSError: [Errno 28] No space left" in str(summary)
    for _ in range(6):  # however often that happens
        sweep(tmp_path, given, executor=Inline(full), tries=2)
    summary = sweep(tmp_path, given, executor=Inline(), tries=2)
    assert (summary.done, summary.exit_code) == (40, 0)
    alone = sweep(tmp_path / "few", given[:2], executor=Inline(full), tries=2)
    assert len(alone.failed) == 2, "of a few, each is tried as often as any other"


def test_units_that_were_read_ahead_are_called_back(tmp_path):
    log = tmp_path / "log"
    work = FakeWork(tmp_path / "parts", seconds=0.1, log=log)
    begun = lambda: len(log.read_text().splitlines()) if log.exists() else 0  # noqa: E731
    coming = Coming(iter(many(40)), over=lambda: begun() >= 3)
    outcomes = list(LocalExecutor(2).run(coming, work, time_limit=60.0))
    assert 3 <= len(outcomes) == begun() <= 6, "32 are read ahead"


@pytest.mark.parametrize(
    ("number", "before", "after", "outside"),
    [
        (signal.SIGKILL, 4, 4, True),
        (signal.SIGTERM, None, None, True),
        (signal.SIGKILL, 4, 5, False),
        (signal.SIGKILL, None, None, False),
        (signal.SIGSEGV, 4, 4, False),
    ],
)
def test_a_death_is_a_units_own_unless_it_came_from_outside(
    tmp_path, monkeypatch, number, before, after, outside
):
    counted = iter([before, after])
    monkeypatch.setattr(local_engine, "ended_for_memory", lambda: next(counted))
    work = KillsItself(number)
    (outcome,) = LocalExecutor(1).run(units("rtn:w8"), work, time_limit=60.0)
    assert (outcome.ended, outcome.outside) == (True, outside)
    assert f"was ended by {number.name}" in outcome.reason


def test_after_a_failure_the_work_begins_anew():
    given = units("first:w4", "second:w4", "fails:w4", "third:w4")
    outcomes = list(LocalExecutor(1).run(given, Remembers(), time_limit=60.0))
    assert [outcome.reason for outcome in outcomes] == [
        "", "", "ValueError: first:w4 second:w4 fails:w4", ""
    ]  # fmt: skip
    given = units("first:w4", "fails:w4", "third:w4", "fails:w2")
    outcomes = list(LocalExecutor(1).run(given, Remembers(), time_limit=60.0))
    assert outcomes[-1].reason == "ValueError: third:w4 fails:w2"


def _failing_work(loaded=[]):  # noqa: B006 - it counts in this process
    loaded.append(1)
    if len(loaded) > 1:
        raise MemoryError("held by the unit that failed")
    return len  # of no unit


class LoadsOnce:
    def __reduce__(self):
        return _failing_work, ()


def test_a_work_that_cannot_begin_anew_ends_its_process_and_keeps_the_units_reason():
    attempts = UnitAttempts(pickle.dumps(LoadsOnce()))
    reason, _, stays = attempts(Unit("vit", "rtn:w4"))
    assert (reason, stays) == ("TypeError: object of type 'Unit' has no len()", False)


def test_attempts_wait_for_a_disk_that_takes_them_and_forgive_a_line_cut_off(tmp_path):
    folder = tmp_path / "attempts"
    folder.write_text("a file where the folder should be")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "glob", lambda *_: iter(()))
        attempts = Attempts(folder)
        attempts.add(Outcome(Unit("vit", "rtn:w4"), "no memory", seconds=2.0))
    assert len(attempts.unwritten) == 1
    folder.unlink()
    attempts.add(Outcome(Unit("vit", "rtn:w8"), seconds=1.5))
    assert not attempts.unwritten
    (written,) = folder.iterdir()
    written.write_text(written.read_text() + '{"unit_id": "0f", "na')
    again = Attempts(folder)
    assert (again.seconds, len(list(again.read())), len(again.reasons)) == (3.5, 2, 1)
    written.write_text(json.dumps({"odd": 1}) + "\n")
    with pytest.raises(SweepError, match=r"000001.jsonl:1 is no attempt"):
        Attempts(folder)


def test_a_work_that_no_process_can_do_is_one_error(tmp_path):
    engine = LocalExecutor(1)
    with pytest.raises(SweepError, match="cannot be sent to a process"):
        list(engine.run(units("rtn:w8"), lambda unit: None, time_limit=1.0))
    with pytest.raises(SweepError, match=r"no process can do the work: .*not here"):
        list(engine.run(units("rtn:w8"), NotHere(), time_limit=60.0))


def test_closing_the_outcomes_ends_the_processes(tmp_path):
    work = FakeWork(tmp_path / "parts", log=tmp_path / "log")
    with closing(LocalExecutor(2).run(many(40), work, time_limit=60.0)) as outcomes:
        next(outcomes)
    pids = {line.split()[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_killed_process_leaves_no_lock_of_a_progress_bar_behind():
    program = (
        "import math, os\n"
        "from clipq.sweep.local_engine import LocalExecutor\n"
        "from clipq.sweep.units import Unit\n"
        "class Bar:\n"
        "    def __call__(self, unit):\n"
        "        from tqdm import tqdm\n"
        "        list(tqdm(range(1), file=open(os.devnull, 'w')))\n"
        "if __name__ == '__main__':\n"
        "    done = LocalExecutor(1).run([Unit('vit', 'rtn:w8')], Bar(), time_limit=math.inf)\n"
        "    print([outcome.reason for outcome in done])\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(program)
        script.flush()
        done = subprocess.run(
            [sys.executable, script.name], capture_output=True, text=True, check=True
        )
    assert (done.stdout, done.stderr) == ("['']\n", "")


def test_a_folder_is_claimed_by_one(tmp_path):
    with claimed(tmp_path), pytest.raises(SweepError, match="being run already"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass
    with pytest.raises(SweepError, match="tries = 0"):
        sweep(tmp_path, (), tries=0)


@dataclass
class KillsItself:
    number: int

    def __call__(self, unit: Unit) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(10)


@dataclass
class Remembers:
    """Fails, and says which units it has seen."""

    seen: list[str] = field(default_factory=list)

    def __call__(self, unit: Unit) -> None:
        self.seen.append(unit.quantizer)
        if unit.quantizer.startswith("fails"):
            raise ValueError(" ".join(self.seen))


class NotHere:
    def __call__(self, unit: Unit) -> None: ...

    def __reduce__(self):
        return _rebuilt, ()


def _rebuilt():
    raise ImportError("not here")
