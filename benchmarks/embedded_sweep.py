"""A large sweep of this repository's models: what a metric cell costs, and the study from it.

    python benchmarks/embedded_sweep.py --prepare     # settings and FP32's baselines, once
    python benchmarks/embedded_sweep.py [--quick]     # benchmarks/embedded_study.toml
    python benchmarks/embedded_sweep.py --plan benchmarks/embedded_sweep.toml --budget 3600
    python benchmarks/embedded_sweep.py --costs       # of what there is; runs nothing

Both plans share one folder, .clipq/embedded-sweep: a unit of both is done once, and a run goes on
where an earlier one ended. Then:

    clipq study page --sweep .clipq/embedded-sweep/units --output study.html

The settings are clipq.toml's, without attacks and artifacts, and with four probes of noise alone
and blur alone, mild (severities 1 to 3) and severe (4 and 5).

Goals: no unit failed; a cell costs the same in the first units as in 10 and 100 times as many,
within 10 %: each unit's processor time is set against the mean of its like (model, method, towers,
trained or not), so that the order of the plan does not matter.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from unittest import mock

from benchmark import Goals, Script, quiet
from embedded import REPOSITORY

from clipq.evaluation.evaluator import Evaluator
from clipq.files import write_atomically
from clipq.gating.approve import approve_first, measure
from clipq.gating.baseline import json_path, save_baseline
from clipq.settings import load_settings
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_query import query

FOLDER = REPOSITORY / ".clipq/embedded-sweep"
KINDS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
}
SEVERITIES = {"": [1, 2, 3], "-severe": [4, 5]}
TIMES = (1, 10, 100)
FIRST = 5
"""Units of the smallest of the sweeps that are compared."""
DRIFT = 0.10


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="two hours of two cores")
    script.add_argument(
        "--plan", type=Path, default=REPOSITORY / "benchmarks/embedded_study.toml", metavar="FILE"
    )
    script.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    script.add_argument("--budget", type=float, metavar="S", help="as of `clipq sweep run`")
    script.add_argument("--prepare", action="store_true", help="write settings and baselines alone")
    script.add_argument("--costs", action="store_true", help="tell costs alone")
    options = script.options(arguments)
    if options.quick:
        with TemporaryDirectory() as folder:
            return quickly(Path(folder))
    if not options.costs:
        prepare(FOLDER)
    if options.prepare:
        return 0
    code = 0
    if not options.costs:
        code = run(options.plan, FOLDER / "units", options.processes, options.budget)
    return costs(FOLDER / "units", Goals(quick=False)) or code


def quickly(folder: Path) -> int:
    """Do two units of one model on two small probes."""
    prepare(folder, models=("vit-clean",), probes=("id", "calibration", "textures"), samples=256)
    plan = folder / "plan.toml"
    plan.write_text(
        'schema = "clipq-sweep/1"\nsettings = "clipq.toml"\nmetrics = ["top1", "auroc-mcm"]\n'
        '[[sweep]]\nmethods = ["rtn"]\nformats = ["w8", "w4"]\ntowers = ["vision"]\n'
    )
    code = run(plan, folder / "units", 1, None)
    return costs(folder / "units", Goals(quick=True)) or code


def prepare(
    folder: Path,
    *,
    models: Sequence[str] = (),
    probes: Sequence[str] = (),
    samples: int = 0,
) -> None:
    """Write the settings and margins of the sweep, and FP32's baselines that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    own = REPOSITORY / "baselines/margins.toml"
    margins, _, _ = own.read_text(encoding="utf-8").partition("[[expected-failure]]")
    write_atomically(folder / "margins.toml", margins.encode())
    write_atomically(folder / "clipq.toml", settings_text(models, probes, samples).encode())
    settings = load_settings(folder / "clipq.toml")
    for model in settings.models:
        if json_path(settings.baselines, model.name).exists():
            continue
        print(f"FP32's baseline of {model.name}", flush=True)
        # FP32's noise over batch sizes and threads matters to verdicts: a study takes none.
        with quiet(), mock.patch("clipq.gating.approve._variants", return_value={}):
            measured = measure(Evaluator(settings), model.name)
            # Always the same day: a baseline's file is a part of what identifies a unit.
            save_baseline(settings.baselines, approve_first(measured, date="2026-01-01"))


def settings_text(models: Sequence[str], probes: Sequence[str], samples: int) -> str:
    """Return clipq.toml for a sweep in a folder of its own."""
    tables = (REPOSITORY / "clipq.toml").read_text(encoding="utf-8").split("\n[[")
    matrix = '[matrix]\nquantizers = ["rtn:w8a8"]\nmetrics = ["*"]\n'
    kept = [tables[0].partition("[matrix]")[0] + matrix]
    for table in tables[1:]:
        kind, _, name = table.partition(']]\nname = "')
        name = name.partition('"')[0]
        chosen = {"models": models, "probes": probes}.get(kind)
        if chosen is None or "attack = " in table or name == "all-corruptions":
            continue
        if not chosen or name in chosen:
            few = f"samples = {samples}\n" if samples and kind == "probes" else ""
            kept.append(f"[[{table.rstrip()}\n{few}")
    text = "\n".join(kept)
    for place in ("local-dir:", "webdataset:", "made:"):
        text = text.replace(f'"{place}fixtures/', f'"{place}{REPOSITORY}/fixtures/')
    for what, where in {
        "baselines": "baselines",
        "margins": "margins.toml",
        "cache": f"{REPOSITORY}/.clipq/cache",
        "trained": "trained",
        "report": "report",
    }.items():
        before = next(line for line in text.splitlines() if line.startswith(f"{what} = "))
        text = text.replace(before, f'{what} = "{where}"')
    if probes:
        return text
    for name, kinds in KINDS.items():
        for suffix, severities in SEVERITIES.items():
            text += (
                f'\n[[probes]]\nname = "{name}{suffix}"\nrole = "corruption"\n'
                f'source = "webdataset:{REPOSITORY}/fixtures/data/shapes"\nsamples = 512\n'
                f"corruptions = {list(kinds)}\nseverities = {severities}\ndraws = 1\n"
                'metrics = ["top1", "ece"]\n'
            )
    return text


def run(plan: Path, folder: Path, processes: int, budget: float | None) -> int:
    """Run `clipq sweep`; return its exit code."""
    command = [sys.executable, "-m", "clipq", "sweep", "run", str(plan), "--folder", str(folder)]
    command += ["--processes", str(processes), "--another"]
    command += ["--budget", str(budget)] if budget is not None else []
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.run(command, check=False).returncode
    return 130


def costs(folder: Path, goals: Goals) -> int:
    """Print what cells cost as their number grows; return the exit code."""
    rows = query(
        PartStore(folder),
        "SELECT a.seconds, c.cells, a.model, a.method, c.towers, a.name LIKE '%steps=%', a.reason"
        " FROM attempts a LEFT JOIN (SELECT unit_id, any_value(towers) AS towers, count(*) AS cells"
        " FROM cells GROUP BY unit_id) c USING (unit_id) ORDER BY a.finished, a.unit_id",
        attempts=folder / "attempts",
    ).rows
    failed = [row for row in rows if row[-1]]
    done = [row for row in rows if not row[-1]]
    for row in failed[:3]:
        print(f"failed: {row[2]}/{row[3]}: {row[-1]}")
    goals.exact(not failed)
    like: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for seconds, cells, *kind, _ in done:
        like[tuple(kind)].append(seconds / cells)
    usual = {kind: fmean(found) for kind, found in like.items()}
    for kind, mean in sorted(usual.items()):
        print(f"  {kind[0]:<10} {kind[1]:<12} {kind[2]:<7} {len(like[kind]):5} units, "
              f"{1000 * mean:5.1f} ms a cell")  # fmt: skip
    for times in TIMES:
        first = done[: FIRST * times]
        if len(first) < FIRST * times:
            break
        cells = sum(row[1] for row in first)
        spent = sum(row[0] for row in first)
        expected = sum(usual[tuple(row[2:6])] * row[1] for row in first)
        ratio = spent / expected
        print(
            f"{len(first):,} units, {cells:,} cells: {1000 * spent / cells:.1f} ms of processor "
            f"time a cell, {ratio:.3f} x the mean of their like (goal within {DRIFT:.0%})"
        )
        if times > 1:  # the first five load a model and evaluate FP32
            goals.measured(abs(ratio - 1.0) <= DRIFT)
    total, spent = sum(row[1] for row in done), sum(row[0] for row in done)
    hours = 700_000 * spent / total / 2 / 3600
    print(f"{len(done):,} units, {total:,} cells: {1000 * spent / total:.1f} ms a cell; "
          f"700,000 cells take {hours:.2f} h of two cores (goal 5)")  # fmt: skip
    goals.measured(hours <= 5.0)
    return goals.code


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
