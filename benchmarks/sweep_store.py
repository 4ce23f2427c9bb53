"""A sweep's store: commits that contend, and size and questions before and after compaction.

    python benchmarks/sweep_store.py [--quick]

Parts are those of the embedded models' shape: 106 cases a unit, five seeds, evidence of every unit.
Values are drawn: what of real ones repeats, and compresses, does not here, but for FP32's values,
margins, counts and shares of samples. First several processes commit the same units at once: each
must be stored by exactly one of them. Then a store is filled, asked, resumed from, compacted, and
asked again; both must say the same to the digit. Goals: 700,000 rows take at most 35 MB, and a
group-by of them at most 0.23 s. Seconds are of a processor; "wall" are of the clock.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from benchmark import Goals, Script, lacking

from clipq.cases import Cell
from clipq.estimate import Estimate
from clipq.records import CaseResult
from clipq.sweep.compaction import compact
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_query import export, query
from clipq.sweep.units import Unit
from clipq.verdicts import Verdict

CELLS, SEEDS = 106, 5
MODELS = ("vit-clean", "vit-robust", "convnet", "siglip")
PROBES = ("id", "shifted", "digits", "textures", "corruptions", "backgrounds", "captions")
METHODS = ("rtn", "smoothquant", "quarot", "gptq", "awq", "hqq")
GROUP_BY = (
    "SELECT method, number_format, avg(loss) AS loss, max(high) AS high, count(*) AS cells "
    "FROM cells WHERE metric LIKE 'ece%' GROUP BY ALL ORDER BY ALL"
)
GOAL_MB, GOAL_S, GOAL_ROWS = 35.0, 0.23, 700_000
_Found = TypeVar("_Found")


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="5 to 15 minutes")
    script.size("--units", full=6604, quick=30, help=f"parts of {CELLS} rows")
    script.size("--contended", full=700, quick=10, help="units that all processes commit")
    script.size("--processes", full=2, quick=2, help="that commit at once")
    options = script.options(arguments)
    try:
        import duckdb  # noqa: F401 - what is asked needs it
        import pyarrow  # noqa: F401
    except ImportError as error:
        lacking(f"{error.name}: pip install 'pytest-clipq[sweep]'")
    goals = Goals(quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        contended(Path(folder) / "contended", options.contended, options.processes, goals)
        filled(Path(folder) / "filled", options.units, options.processes, goals)
    return goals.code


def contended(folder: Path, count: int, processes: int, goals: Goals) -> None:
    """Print how often processes won that all commit the same units."""
    given = [(folder, count, 0, 1)] * processes
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        start = time.perf_counter()
        won = pool.starmap(commit, given)
        seconds = time.perf_counter() - start
    stored = PartStore(folder).ids()
    print(
        f"{processes} processes x {count:,} units, the same: {processes * count:,} commits, "
        f"{sum(won):,} won ({' + '.join(map(str, won))}), {len(stored):,} parts; wall "
        f"{seconds:.1f} s",
        flush=True,
    )
    goals.exact(sum(won) == len(stored) == count)


def filled(folder: Path, count: int, processes: int, goals: Goals) -> None:
    """Print what a store of so many units takes, as parts and compacted."""
    given = [(folder, count, first, processes) for first in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        spent = pool.starmap(seconds_of_commits, given)
    rows = count * CELLS
    print(f"{count:,} units, {rows:,} rows: {sum(spent) / count * 1e3:.1f} ms a commit", flush=True)
    held, before = measured("parts", folder, rows)
    told, seconds, wall = timed(lambda: compact(PartStore(folder)))
    print(f"compact: {seconds:.1f} s, wall {wall:.1f} s; {told}", flush=True)
    again, after = measured("compacted", folder, rows)
    goals.exact(held == again)
    goals.exact(told.units == count)
    share = rows / GOAL_ROWS
    print(
        f"compacted: {after[0]:.1f} MB (goal {GOAL_MB * share:.1f}), {after[0] / before[0]:.2f} x; "
        f"group-by {after[1]:.3f} s (goal {GOAL_S:g}), {after[1] / before[1]:.2f} x"
    )
    goals.measured(after[0] <= GOAL_MB * share)
    goals.measured(after[1] <= GOAL_S)


def measured(name: str, folder: Path, rows: int) -> tuple[object, tuple[float, float]]:
    """Print what a store takes; return what it says, and its MB and the seconds of a group-by."""
    files = [path for path in folder.rglob("*.parquet") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{name}: {len(files):,} files, {size:.1f} MB, {size * 1e6 / rows:.0f} bytes a row")
    asked = [timed(lambda: query(PartStore(folder), GROUP_BY)) for _ in range(3)]
    answer = asked[0][0]
    seconds, wall = (sorted(each[at] for each in asked)[1] for at in (1, 2))
    print(f"{name}: group-by {seconds:.3f} s, wall {wall:.3f} s (median of 3), all files checked")
    bare, again, wall = timed(lambda: query(PartStore(folder), "SELECT count(*) FROM units"))
    print(f"{name}: {bare.rows[0][0]:,} units counted in {again:.3f} s, wall {wall:.3f} s")
    ids, again, wall = timed(lambda: PartStore(folder).ids())
    print(f"{name}: what a resume asks, {len(ids):,} units: {again:.3f} s, wall {wall:.3f} s")
    with tempfile.TemporaryDirectory() as other:
        path = Path(other) / "all.parquet"
        written, again, wall = timed(lambda: export(PartStore(folder), path))
        print(
            f"{name}: export, {path.stat().st_size / 1e6:.1f} MB: {again:.2f} s, wall {wall:.2f} s"
        )
    parts, again, wall = timed(lambda: sum(len(p.results) for p in PartStore(folder).everything()))
    print(f"{name}: all {parts:,} results read: {again:.1f} s, wall {wall:.1f} s", flush=True)
    return (answer, ids, written, parts), (size, seconds)


def timed(work: Callable[[], _Found]) -> tuple[_Found, float, float]:
    """Return what work gives, its processor seconds and those of the clock."""
    start, wall = time.process_time(), time.perf_counter()
    return work(), time.process_time() - start, time.perf_counter() - wall


def commit(folder: Path, count: int, first: int, step: int) -> int:
    """Commit every `step`-th unit from `first` on; return how often this process was first."""
    store = PartStore(folder)
    won = 0
    for number in range(first, count, step):
        unit, results, evidence = made(number)
        won += store.commit(unit, results, evidence=evidence)
    return won


def seconds_of_commits(folder: Path, count: int, first: int, step: int) -> float:
    """Commit as `commit` does; return the processor seconds of the store's share of it."""
    store = PartStore(folder)
    spent = 0.0
    for number in range(first, count, step):
        unit, results, evidence = made(number)
        start = time.process_time()
        store.commit(unit, results, evidence=evidence)
        spent += time.process_time() - start
    return spent


def made(number: int) -> tuple[Unit, list[CaseResult], dict[str, object]]:
    """Return a unit, its results and its evidence, all functions of its number."""
    kind, seed = divmod(number, SEEDS)
    model, method = MODELS[kind % len(MODELS)], METHODS[kind % len(METHODS)]
    quantizer = (
        f"{method}:w{2 + kind // 7 % 7}a{4 + kind // 49 % 5}g{16 << kind // 245},seed={seed}"
    )
    unit = Unit(model, quantizer, context=f"{hash_of(model):064x}")
    rng = np.random.default_rng(number)
    results = [_result(unit, cell, rng) for cell in range(CELLS)]
    return unit, results, _evidence(unit, rng)


def hash_of(text: str) -> int:
    """Return a number that is the text's in every process."""
    return int.from_bytes(text.encode(), "big") % 10**18


def _result(unit: Unit, cell: int, rng: np.random.Generator) -> CaseResult:
    probe = PROBES[cell % len(PROBES)]
    shared = np.random.default_rng((hash_of(unit.model), cell))  # what FP32 and margins decide
    samples, margin = (2048, 640, 768)[cell % 3], 0.01 * (1 + cell % 7)
    baseline = float(shared.uniform(0.1, 0.9))
    loss = float(rng.normal(margin / 2, margin))
    if cell % 3 == 0:  # a share of samples
        baseline, loss = round(baseline * samples) / samples, round(loss * samples) / samples
    error = float(rng.uniform(0.05, 0.4)) * margin
    p_value = float(rng.uniform())
    estimate = Estimate(
        loss=loss,
        low=loss - float(rng.uniform(1.8, 2.1)) * error,
        high=loss + float(rng.uniform(1.8, 2.1)) * error,
        p_value=p_value,
        adjusted_p=min(1.0, p_value * CELLS),
        standard_error=error,
        margin=margin,
        samples_needed=int(rng.integers(500, 20_000)) if cell % 5 == 0 else None,
    )
    name = ("ece", "top1", "auroc", "nll", "brier", "fpr95")[cell % 6]
    return CaseResult(
        Cell(unit.model, unit.quantizer, probe).case(f"{name}-{cell}"),
        Verdict.PASS if loss <= margin else Verdict.INCONCLUSIVE,
        reason="" if loss <= margin else "under-powered",
        unit="fraction",
        direction="lower",
        metric_version=1,
        samples=samples,
        baseline=baseline,
        observed=baseline + loss,
        estimate=estimate,
        noise=margin * 1.2 if cell % 11 == 0 else None,
    )


def _evidence(unit: Unit, rng: np.random.Generator) -> dict[str, object]:
    def digest() -> str:
        return rng.bytes(32).hex()

    fixed = np.random.default_rng(hash_of(unit.model))
    return {
        "models": {
            unit.model: {"source": f"models/{unit.model}", "weights": fixed.bytes(32).hex()}
        },
        "probes": {
            probe: {"role": "ood", "samples": 2048, "fingerprint": fixed.bytes(32).hex()}
            for probe in PROBES
        },
        "baselines": {unit.model: {"columns": fixed.bytes(32).hex(), "approved": "2026-11-01"}},
        "quantizers": {
            str(unit.candidate): {
                "method_version": 1,
                "code": fixed.bytes(32).hex(),
                "packages": {"torch": "2.15.0", "numpy": "2.4.0"},
                "calibration": digest(),
                "weights": digest(),
                "share": float(rng.uniform()),
                "bytes": int(rng.integers(10**6, 10**9)),
            }
        },
    }


if __name__ == "__main__":
    sys.exit(main())
