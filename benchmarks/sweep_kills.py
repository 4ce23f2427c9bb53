"""A sweep whose processes are killed at random: its data are those of an undisturbed one.

    python benchmarks/sweep_kills.py [--quick] [--kills 50] [--seed 7] [--units 60]

Two runs of one plan. The first is left alone. During the second, `kill -9` meets its workers and
its coordinator at random, while units are measured, while processes start, one after the other and
two at once; a coordinator that was killed is followed by `clipq sweep resume`. Most kills wait for
the next part, so that the sweep ends. Then every file of parts is compared: the same units, the
same bytes, nothing twice, and no process left behind.

In full, these are real units of an embedded model (quantize, encode, judge) and the commands as
users give them. With --quick the units are made up, each a row and a while of sleep, and stored by
the same store: more kills in seconds. Goal: identical, after as many kills as were asked for.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import Goals, Script

from clipq.cases import Case
from clipq.records import CaseResult
from clipq.sweep.attempts import Attempts
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.local_engine import LocalExecutor
from clipq.sweep.part_store import PartStore
from clipq.sweep.units import Unit
from clipq.verdicts import Verdict

REPOSITORY = Path(__file__).parents[1]  # `embedded` has it, and imports seconds' worth of more
SETTINGS = """\
[clipq]
baselines = "{repository}/baselines"
margins = "{repository}/baselines/margins.toml"
[matrix]
quantizers = ["rtn:w8"]
[[models]]
name = "vit-clean"
source = "local-dir:{repository}/fixtures/models/vit-clean"
[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:{repository}/fixtures/data/shapes"
group = "colour"
[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:{repository}/fixtures/data/shapes"
split = "calibration"
"""
PLAN = """\
schema = "clipq-sweep/1"
settings = "clipq.toml"
probes = ["id"]
metrics = ["top1"]
[[sweep]]
models = ["vit-clean"]
methods = ["rtn"]
formats = {formats}
towers = ["vision", "text", "both"]
"""
FORMATS = [
    *("w8", "w7", "w6", "w5", "w4", "w3", "w2", "w8g32", "w6g32", "w4g32", "w3g32", "w2g32"),
    *("w8a8d", "w6a8d", "w5a8d", "w4a8d", "w6a6d", "w4a4d", "w3a8d", "w8a6d"),
]
PATIENCE_S = 300.0
"""Without a new part for so long, the sweep is taken to be stuck."""


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="a quarter of an hour")
    script.size("--kills", full=50, quick=10, help="processes that are killed")
    script.size("--units", full=60, quick=40, help="units of the plan")
    script.add_argument("--seed", type=int, default=7, help="of when what is killed (7)")
    script.add_argument("--processes", type=int, default=2, help="of the sweep (2)")
    script.add_argument("--coordinate", type=Path, help="run made-up units into this folder")
    options = script.options(arguments)
    if options.coordinate:
        return coordinate(options.coordinate, options.units, options.processes)
    with tempfile.TemporaryDirectory() as folder:
        return compare(Path(folder), options)


def compare(folder: Path, options) -> int:
    """Run both sweeps and print what they come to."""
    goals = Goals(quick=options.quick)
    begin = made_up_commands if options.quick else real_commands
    commands = begin(folder, options)
    start = time.perf_counter()
    subprocess.check_call(commands("quiet", 0), stdout=subprocess.DEVNULL)
    quiet_s = time.perf_counter() - start
    killer = Killer(folder / "disturbed", random.Random(options.seed), options.kills, options.units)
    start = time.perf_counter()
    sittings = killer.sweep(commands)
    disturbed_s = time.perf_counter() - start
    quiet, disturbed = files(folder / "quiet"), files(folder / "disturbed")
    done = Counter(
        one.unit_id for one in Attempts(folder / "disturbed/attempts").read() if one.done
    )
    left = [path for path in (folder / "disturbed/parts").rglob("*") if path.name[0] == "."]
    print(f"undisturbed: {len(quiet)} parts in {quiet_s:.0f} s")
    print(
        f"disturbed: {len(disturbed)} parts in {disturbed_s:.0f} s; {killer.workers} workers and "
        f"{killer.coordinators} coordinators killed, {sittings} sittings, seed {options.seed}"
    )
    same = sum(quiet.get(name) == content for name, content in disturbed.items())
    identical = goals.exact(len(quiet) == options.units and quiet == disturbed)
    single = goals.exact(max(done.values()) == 1)
    enough = goals.exact(killer.workers + killer.coordinators >= options.kills)
    alive = goals.exact(not killer.leftovers())
    print(f"part files that a kill left half-written, which nothing reads: {len(left)}")
    print(
        f"last: {same} of {len(quiet)} parts byte for byte the same, "
        f"{'none' if identical else 'NOT none'} lost, {'none' if single else 'NOT none'} doubled, "
        f"{'enough' if enough else 'TOO FEW'} kills, {'no' if alive else 'A'} process left behind"
    )
    return goals.code


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every part that is stored, by its path in the store."""
    store = PartStore(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in store.paths()}


def real_commands(folder: Path, options):
    """Write a project of the embedded model and return what runs its sweep."""
    (folder / "clipq.toml").write_text(SETTINGS.format(repository=REPOSITORY))
    formats = FORMATS[: math.ceil(options.units / 3)]
    (folder / "plan.toml").write_text(PLAN.format(formats=formats))
    options.units = 3 * len(formats)

    def command(name: str, sitting: int) -> list[str]:
        action = "resume" if sitting else "run"
        given = [str(folder / "plan.toml"), "--folder", str(folder / name), "--quiet"]
        workers = ["--processes", str(options.processes)]
        return [sys.executable, "-m", "clipq", "sweep", action, *given, *workers]

    return command


def made_up_commands(folder: Path, options):
    """Return what runs a sweep of made-up units."""

    def command(name: str, sitting: int) -> list[str]:
        given = ["--coordinate", str(folder / name), "--units", str(options.units)]
        return [sys.executable, __file__, *given, "--processes", str(options.processes)]

    return command


@dataclass
class MadeUp:
    """Commits a few rows that follow from the unit, before and after a while."""

    folder: str

    def __call__(self, unit: Unit) -> None:
        chance = random.Random(unit.id)
        time.sleep(chance.uniform(0.0, 0.1))
        case = Case.parse(f"{unit.candidate}/id.top1")
        rows = [CaseResult(case, Verdict.PASS, observed=chance.random())]
        PartStore(self.folder).commit(unit, rows)
        time.sleep(chance.uniform(0.0, 0.05))  # killed here, it is done and nobody was told


def coordinate(folder: Path, units: int, processes: int) -> int:
    """Run the sweep of made-up units."""
    summary = run_sweep(
        (Unit("vit", f"rtn:w8,seed={at}", context="0f") for at in range(units)),
        MadeUp(str(folder)),
        store=PartStore(folder),
        executor=LocalExecutor(processes),
        folder=folder,
        identity={"plan": str(units)},
        time_limit=60.0,
    )
    print(summary)
    return summary.exit_code


@dataclass
class Killer:
    """Kills processes of a sweep at random until there were so many."""

    folder: Path
    chance: random.Random
    most: int
    units: int
    workers: int = 0
    coordinators: int = 0
    seen: set[int] = field(default_factory=set)

    def sweep(self, commands) -> int:
        """Run the sweep over as many sittings as it takes; return their number."""
        sitting = 0
        while True:
            process = subprocess.Popen(
                commands(self.folder.name, min(sitting, 1) if self._began() else 0),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            sitting += 1
            self._disturb(process)
            _, said = process.communicate()
            if process.returncode == 0:
                return sitting
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"the sweep ended with {process.returncode}: {said}")

    def _began(self) -> bool:
        return (self.folder / "sweep.json").exists()

    def _disturb(self, process: subprocess.Popen[str]) -> None:
        """Kill until this coordinator has ended."""
        while process.poll() is None and self.workers + self.coordinators < self.most:
            if self.chance.random() < 0.75:  # else at once, whatever it is at: it may be starting
                self._await_part(process)
            late = self._late()
            pause = 0.0 if late else self.chance.uniform(0.0, 0.3)
            try:
                process.wait(pause)
                return
            except subprocess.TimeoutExpired:
                pass
            if self.chance.random() < 0.3:
                self._kill(process.pid)
                self.coordinators += 1
                process.wait()
                return
            found = workers_of(process.pid)
            self.seen.update(found)
            count = len(found) if late else min(len(found), self.chance.choice((1, 1, 2)))
            for victim in self.chance.sample(found, count):
                self.workers += self._kill(victim)
        process.wait()

    def _late(self) -> bool:
        """Whether units may be done before there were kills enough."""
        kills = self.most - self.workers - self.coordinators
        return self.units - len(PartStore(self.folder).ids()) < 3 * kills

    def _await_part(self, process: subprocess.Popen[str]) -> None:
        """Wait for the next part: every kill but a few has progress before it."""
        store = PartStore(self.folder)
        before, until = len(store.ids()), time.monotonic() + PATIENCE_S
        while process.poll() is None and len(store.ids()) == before:
            self.seen.update(workers_of(process.pid))
            if time.monotonic() > until:
                raise SystemExit(f"no part for {PATIENCE_S:.0f} s")
            time.sleep(0.02)

    def _kill(self, pid: int) -> bool:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def leftovers(self) -> list[int]:
        """Return the workers that live on, a while after the last coordinator ended."""
        until = time.monotonic() + 10.0
        while time.monotonic() < until:
            alive = [pid for pid in self.seen if is_worker(pid)]
            if not alive:
                return []
            time.sleep(0.1)
        return alive


def workers_of(coordinator: int) -> list[int]:
    """Return the processes that a coordinator has spawned to do units, sorted."""
    found = []
    for task in Path(f"/proc/{coordinator}/task").glob("*/children"):
        try:
            found += [int(pid) for pid in task.read_text().split()]
        except OSError:  # it ended meanwhile
            continue
    return sorted(pid for pid in found if is_worker(pid))


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
