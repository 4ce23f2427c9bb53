"""How long the trend site takes to build and to open, and how large it is.

    python benchmarks/trend_site.py [--quick] [--store URL] [--keep DIR]

Builds from tables of three kinds. ``typical``: equal code gives equal results, one run in fifteen
brings a change of some cases, a few cases jitter. ``constant``: nothing ever changes. ``noise``:
every value of every run differs, the worst there is. Then opens each site in Chromium, where it is
installed. With --store, a store is filled with the typical history first, and the whole command is
timed: reading, finding steps, writing (goal: at most 20 s for 500 runs of 5,000 cases).
"""

from __future__ import annotations

import datetime
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmark import Goals, Script
from made_results import altered
from synthetic_runs import MODELS, QUANTIZERS, synthetic_run

from clipq.history.model import RunInfo, TrendTable
from clipq.history.site import write_site
from clipq.history.steps import find_steps
from clipq.verdicts import POLICIES, Verdict

GOAL_SECONDS = 20.0
MARGIN = 0.02
VERDICTS = list(Verdict)


def synthetic_table(
    runs: int = 500, cases: int = 5000, *, kind: str = "typical", seed: int = 0
) -> TrendTable:
    """Return a table of `runs` runs of about `cases` cases.

    Args:
        runs: at least 1.
        cases: rounded to what the matrix of `synthetic_run` gives.
        kind: ``typical``, ``constant`` or ``noise``.
        seed: of everything drawn.
    """
    rng = np.random.default_rng(seed)
    found = synthetic_run(cases, seed=seed).cases
    found = tuple(sorted(found, key=lambda case: case.id))
    shape = (len(found), runs)
    level = rng.normal(0.1, 0.25, shape[0])
    level += np.array([1.4 if "w4a4" in case.quantizer else 0.0 for case in found])
    loss = np.repeat(level[:, None], runs, axis=1)
    if kind == "noise":
        loss += rng.normal(0, 0.3, shape)
    if kind == "typical":
        _change(loss, rng)
    loss *= MARGIN
    error = np.repeat(rng.uniform(0.05, 0.4, shape[0])[:, None] * MARGIN, runs, axis=1)
    if kind == "noise":
        error *= rng.uniform(0.9, 1.1, shape)
    verdicts = _verdicts(loss, error, found)
    baseline = np.repeat(rng.uniform(0.3, 0.9, shape[0])[:, None], runs, axis=1)
    sign = np.array([-1.0 if case.direction == "higher" else 1.0 for case in found])
    if kind == "typical":
        gone = rng.uniform(size=shape) < 0.0005
        verdicts[gone] = VERDICTS.index(Verdict.ERROR)
        loss[gone] = error[gone] = np.nan
    return TrendTable(
        runs=tuple(_run(index, verdicts[:, index]) for index in range(runs)),
        cases=tuple(case.id for case in found),
        units=tuple(case.unit for case in found),
        directions=tuple(case.direction for case in found),
        margins=np.full(shape[0], MARGIN),
        observed=baseline + sign[:, None] * loss,
        baseline=baseline,
        loss=loss,
        error=error,
        verdicts=verdicts,
    )


def _change(loss: np.ndarray, rng: np.random.Generator) -> None:
    """Let some commits move some cases, some cases jitter, some runs be odd (in margins)."""
    cases, runs = loss.shape
    for index in np.flatnonzero(rng.uniform(size=runs) < 1 / 15):
        moved = rng.uniform(size=cases) < rng.choice([0.002, 0.01, 0.05])
        loss[moved, index:] += rng.normal(0, 0.6, (int(moved.sum()), 1))
        if rng.uniform() < 0.4:  # and is mended later
            loss[moved, index + int(rng.integers(5, 40)) :] = loss[moved, :1]
    jitters = rng.uniform(size=cases) < 0.05
    loss[jitters] += rng.normal(0, 0.1, (int(jitters.sum()), runs))
    loss[:, rng.uniform(size=runs) < 0.004] += rng.normal(0, 0.8)


def _verdicts(loss: np.ndarray, error: np.ndarray, cases: tuple) -> np.ndarray:
    low, high = loss - 1.96 * error, loss + 1.96 * error
    code = {verdict: VERDICTS.index(verdict) for verdict in Verdict}
    found = np.full(loss.shape, code[Verdict.PASS], np.int8)
    found[high >= MARGIN] = code[Verdict.INCONCLUSIVE]
    found[high < -MARGIN] = code[Verdict.IMPROVED]
    fails = low > MARGIN
    waived = np.array(["w4a4" in case.quantizer for case in cases])[:, None]
    found[fails & waived] = code[Verdict.WAIVED]
    found[fails & ~waived] = code[Verdict.FAIL]
    return found


def _run(index: int, verdicts: np.ndarray) -> RunInfo:
    counted = np.bincount(verdicts[verdicts >= 0], minlength=len(VERDICTS))
    counts = {VERDICTS[i].value: int(n) for i, n in enumerate(counted) if n}
    started = datetime.datetime(2025, 1, 1, 3, tzinfo=datetime.UTC) + datetime.timedelta(days=index)
    sha = f"{(index * 2654435761 + 97) % 2**32:08x}" * 5
    blocked = any(POLICIES["ci"].blocks(VERDICTS[i]) for i in np.flatnonzero(counted))
    return RunInfo(
        id=f"{index:064x}",
        number=index + 1,
        started=started.isoformat().replace("+00:00", "Z"),
        commit={
            "sha": sha,
            "date": started.isoformat(),
            "subject": f"Tune range estimators, part {index}",
            "branch": "main",
            "dirty": index % 97 == 96,
        },
        policy="ci",
        passed=not blocked,
        cases=int(counted.sum()),
        counts=counts,
        environment={"torch": "2.14.0" if index < 300 else "2.15.0", "device": "cpu"},
    )


def opening_seconds(index: Path, pages: Mapping[str, str], rounds: int) -> list[float]:
    """Return the median times from starting to load each page until it is drawn.

    Args:
        index: the site's only HTML file.
        pages: what is drawn last of each, a selector, by the page's address within the site.
        rounds: of each page.
    """
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for address, drawn in pages.items():
            times = []
            for _ in range(rounds):
                page = browser.new_page()
                started = time.perf_counter()
                page.goto(f"{index.as_uri()}#{address}")
                page.wait_for_selector(drawn)
                times.append(time.perf_counter() - started)
                page.close()
            found.append(statistics.median(times))
        browser.close()
    return found


def build(table: TrendTable, folder: Path, kind: str, *, rounds: int) -> None:
    busy = time.process_time()
    find_steps(table)
    finding = time.process_time() - busy
    started, busy = time.perf_counter(), time.process_time()
    facts = write_site(table, folder)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    print(
        f"{kind:9s} {facts.runs} runs x {facts.cases:,} cases: {seconds:.1f} s, {busy:.1f} s of "
        f"one core (finding steps {finding:.1f} s), {facts.bytes / 2**20:.2f} MiB in {facts.files} "
        f"files, {facts.steps:,} steps"
    )
    if shutil.which("chromium"):
        pages = {"/": "main a.cell", f"/case/{table.cases[0]}": ".place svg.chart"}
        index, chart = opening_seconds(facts.index, pages, rounds)
        print(f"          Chromium: overview {index:.2f} s, case {chart:.2f} s")


def end_to_end(url: str, folder: Path, runs: int, cases: int) -> float:
    """Fill a store; return the seconds that the command takes."""
    from clipq.cli import main as command
    from clipq.history.store import open_store

    table = synthetic_table(runs, cases)
    with open_store(url, root=Path.cwd()) as store:
        present = len(store.runs())
        for index in range(present, runs):
            store.record(_record(table, index))
    started = time.perf_counter()
    command(["site", "--store", url, "--output", str(folder)])
    seconds = time.perf_counter() - started
    print(f"store: {seconds:.1f} s from the store to the site (goal <= {GOAL_SECONDS:g} s)")
    return seconds


def _record(table: TrendTable, index: int):
    from dataclasses import replace

    from clipq.estimate import number
    from clipq.records import sort_cases

    record = synthetic_run(len(table.cases), index=index)
    known = {case.id: case for case in record.cases}
    found = [
        altered(
            known[case],
            verdict=VERDICTS[table.verdicts[row, index]],
            loss=number(table.loss[row, index]),
            observed=number(table.observed[row, index]),
            baseline=number(table.baseline[row, index]),
            standard_error=number(table.error[row, index]),
        )
        for row, case in enumerate(table.cases)
    ]
    return replace(record, cases=sort_cases(found), commit=dict(table.runs[index].commit))


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="about a minute; with --store, minutes to fill it")
    script.size("--runs", full=500, quick=10, help="runs of the history")
    script.size("--cases", full=5000, quick=100, help="of each run")
    script.size("--rounds", full=5, quick=1, help="of opening a page; medians are shown")
    script.add_argument("--store", help="fill this store first; time the whole command")
    script.add_argument("--keep", type=Path, help="keep the sites in this folder")
    options = script.options(arguments)
    goals = Goals(quick=options.quick)
    print(f"{len(MODELS)} models, {len(QUANTIZERS)} quantizers")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        if options.store:
            seconds = end_to_end(options.store, folder / "store", options.runs, options.cases)
            goals.measured(seconds <= GOAL_SECONDS)
            return goals.code
        for kind in ("typical", "constant", "noise"):
            table = synthetic_table(options.runs, options.cases, kind=kind)
            build(table, folder / kind, kind, rounds=options.rounds)
    return goals.code


if __name__ == "__main__":
    sys.exit(main())
