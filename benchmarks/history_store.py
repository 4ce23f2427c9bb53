"""The history store at 2.5 million rows, on SQLite and on a private PostgreSQL server.

    python benchmarks/history_store.py [--quick]           # both, in temporary folders
    python benchmarks/history_store.py --runs 50 --only sqlite

Goals: 95 % of runs recorded within 2 s each, every query within 1 s, the table of everything 5 s.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmark import Goals, Script, lacking
from made_results import altered
from private_postgresql import private_server, server_programs
from synthetic_runs import synthetic_run

from clipq.history.store import Store, open_store
from clipq.records import RunRecord

DATABASES = ("sqlite", "postgresql")


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about a quarter of an hour")
    script.size("--runs", full=500, quick=2, help="recorded one after another")
    script.size("--cases", full=5000, quick=100, help="of each run")
    script.add_argument("--only", choices=DATABASES)
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    for name in [options.only] if options.only else DATABASES:
        with database(name) as url, open_store(url, root=Path.cwd()) as store:
            measure(name, store, options.runs, options.cases, goals)
    return goals.code


@contextlib.contextmanager
def database(name: str) -> Iterator[str]:
    """Yield the URL of an empty store; on PostgreSQL, commits wait for the disk."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/history.db"
        return
    programs = server_programs()
    if programs is None:
        lacking("PostgreSQL's server programs (initdb, postgres) are not installed")
    with private_server(programs, fsync=True) as server:
        yield server.new_database()


def later(record: RunRecord, index: int, rng: np.random.Generator) -> RunRecord:
    """Return the record of another day: every case has a new value."""
    noise = rng.normal(0.0, 0.002, len(record.cases)).tolist()
    cases = tuple(
        altered(
            case,
            observed=(case.observed or 0.0) + change,
            loss=(case.estimate.loss or 0.0) + change,
        )
        for case, change in zip(record.cases, noise, strict=True)
    )
    day = f"{2024 + index // 336}-{index // 28 % 12 + 1:02}-{index % 28 + 1:02}T12:00:00Z"
    commit = {**record.commit, "sha": f"{index:040x}", "subject": f"change {index}"}
    return replace(record, cases=cases, started=day, commit=commit)


def measure(name: str, store: Store, runs: int, cases: int, goals: Goals) -> None:
    """Fill the store through its own interface; print what that and the queries took."""
    rng = np.random.default_rng(1)
    first = synthetic_run(cases, seed=1)
    count = len(first.cases)
    seconds = []
    for index in range(runs):
        record = later(first, index, rng)
        start = time.perf_counter()
        store.record(record)
        seconds.append(time.perf_counter() - start)
        if sys.stderr.isatty():
            print(f"\r{name}: {index + 1} of {runs} runs", end="", file=sys.stderr)
    print(f"\n{name}: {runs} runs x {count:,} cases = {runs * count:,} rows", flush=True)
    middle, last = statistics.median(seconds), statistics.median(seconds[-20:])
    most = statistics.quantiles(seconds, n=20)[-1]
    note = (
        f"95 % of runs; median {middle:.2f}, of the last 20 {last:.2f}, slowest {max(seconds):.2f}"
    )
    report(f"record one run of {count:,} cases", most, 2.0, note, goals)
    case = first.cases[count // 2].id
    latest = store.find("latest")
    newest, shown = store.runs(limit=20), store.trend(case)[-40:]
    some = store.trend_table(cases=("vit-b-32/rtn:w8/*",), runs=40)
    asked: tuple[tuple[str, float, Callable[[], object]], ...] = (
        ("one case's trend", 1.0, lambda: store.trend(case)),
        ("the list of runs", 1.0, store.runs),
        ("verdict counts of a run", 1.0, lambda: store.find("latest").counts),
        ("worst cases of the latest run", 1.0, lambda: worst_cases(store)),
        ("the latest run's whole record, verified", 1.0, lambda: store.load(latest)),
        ("20 runs, verified", 1.0, lambda: store.verify(newest)),
        ("one case over 40 runs, verified", 2.0, lambda: store.verify(shown)),
        ("100 cases over 40 runs, verified", 2.0, lambda: store.verify(some)),
        ("trend table of 100 cases", 1.0, lambda: store.trend_table(cases=("vit-b-32/rtn:w8/*",))),
        ("trend table of everything", 5.0, store.trend_table),
    )
    for what, goal, query in asked:
        taken, busy = [], time.process_time()
        for _ in range(3):
            start = time.perf_counter()
            query()
            taken.append(time.perf_counter() - start)
        busy = (time.process_time() - busy) / 3
        note = f"slowest of 3; first {taken[0]:.3f}, our CPU {busy:.3f}"
        report(what, max(taken), goal, note, goals)


def worst_cases(store: Store) -> object:
    found = store.results(store.find("latest"))
    return sorted(found, key=lambda result: -result.severity)[:10]


def report(what: str, seconds: float, goal: float, note: str, goals: Goals) -> None:
    mark = "ok" if goals.measured(seconds <= goal) else "MISSED"
    print(f"  {what:42} {seconds:7.3f} s   goal {goal:.0f} s   {mark:6}  ({note})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
