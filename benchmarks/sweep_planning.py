"""Planning a sweep: time and memory of a coordinator that expands a plan and knows every unit's id.

    python benchmarks/sweep_planning.py [--quick]

The embedded models and probes; a method that draws, so that every seed counts. For each size a
process of its own reads the plan, walks it once to count and to refuse what is wrong, then makes
every unit and keeps its id, as one does that holds a plan against what a store has. Goals: the
largest size in at most 10 s, and at most 300 MiB more memory at its peak than the smallest takes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmark import Goals, Script
from embedded import REPOSITORY

from clipq.settings import load_settings
from clipq.sweep.sweep_plan import read_plan

GOAL_S, GOAL_MIB = 10.0, 300.0
SEEDS, TOWERS = 5, ("vision", "text", "both")
PLAN = """\
schema = "clipq-sweep/1"
settings = "{settings}"
[[sweep]]
methods = ["quarot"]
formats = {formats}
towers = {towers}
seeds = {seeds}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="half a minute")
    script.size("--cells", full=(10_000, 1_000_000), quick=(10_000,), help="metric cells to plan")
    script.add_argument("--one", type=int, metavar="CELLS", help="plan in this process and say")
    options = script.options(arguments)
    if options.one:
        plan(options.one)
        return 0
    goals = Goals(quick=options.quick)
    peaks = []
    for cells in options.cells:
        command = [sys.executable, __file__, "--one", str(cells)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        units, found, seconds, peak = int(said[0]), int(said[1]), float(said[2]), float(said[3])
        peaks.append(peak)
        print(f"{found:,} metric cells, {units:,} units: {seconds:.2f} s, peak {peak:.0f} MiB")
        goals.exact(found >= cells)
    growth = peaks[-1] - peaks[0]
    print(f"last: {seconds:.2f} s (goal {GOAL_S:g} s), {growth:.0f} MiB more (goal {GOAL_MIB:g})")
    goals.measured(seconds <= GOAL_S)
    goals.measured(growth <= GOAL_MIB)
    return goals.code


def plan(cells: int) -> None:
    """Print units, cells, seconds, and this process's peak memory in MiB."""
    settings = load_settings(REPOSITORY / "clipq.toml")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.toml"
        each = read_plan(written(path, 1)).survey(settings)
        count = -(-cells // each.cells)
        started = time.perf_counter()
        read = read_plan(written(path, count))
        survey = read.survey(settings, most=None)
        ids = {unit.id for unit in read.units(settings, lambda model, method: f"{model} {method}")}
        seconds = time.perf_counter() - started
    if len(ids) != survey.units:
        raise SystemExit(f"{len(ids)} ids of {survey.units} units")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(survey.units, survey.cells, seconds, peak)


def written(path: Path, count: int) -> Path:
    """Return a plan of `count` formats."""
    weights = (f"w{bits}{how}" for bits in range(2, 9) for how in ("", "t", "z", "p", "g32", "g16"))
    inputs = ("a8d", "a4d", "a8", "a4", "a6", "a6d", "a5", "a5d", "a7", "a7d", "a3d", "a2d", "")
    formats = [f"{weight}{own}" for own, weight in product(inputs, list(weights))][:count]
    if len(formats) < count:
        raise SystemExit(f"there are {len(formats)} formats, and {count} are needed")
    lists = {"formats": formats, "towers": TOWERS}
    shown = {name: str(list(values)).replace("'", '"') for name, values in lists.items()}
    text = PLAN.format(settings=REPOSITORY / "clipq.toml", seeds=SEEDS, **shown)
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
