"""Processes killed and runs terminated at random: is the gate after them the gate without them?

    python benchmarks/soak.py [--quick]

A gate runs undisturbed, in a cache of its own. Then gates share another cache: of each, one process
(the command, pytest's controller or a worker) is killed with SIGKILL at a random time, or the
command gets SIGTERM. Every fifth begins with an empty cache. A last gate runs undisturbed in what
they left.

Goals: no gate hangs, none leaves a process, none passes that was not whole, every SIGTERM ends with
143 (or the run had ended), and the last record is that of the undisturbed gate.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import Goals, Script, lacking
from embedded import REPOSITORY

_BY_SIGNAL = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
_OF_THE_RUN = ("id", "started", "timings")
_HANGS_SECONDS = 900
_LINGERS_SECONDS = 60


@dataclass(frozen=True)
class Gate:
    """A gate to start again and again."""

    cache: Path
    report: Path
    arguments: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        places = [f"--cache={self.cache}", f"--report={self.report}"]
        return [sys.executable, "-m", "clipq", "gate", "--quiet", *places, *self.arguments]

    def record(self) -> dict[str, Any] | None:
        """Return what the last run left, without what every run has of its own."""
        path = self.report / "report.json"
        if not path.is_file():
            return None
        record = json.loads(path.read_text())
        return {key: value for key, value in record.items() if key not in _OF_THE_RUN}


def main(arguments: Sequence[str] | None = None) -> int:
    script = Script(__doc__, takes="an hour or two on 2 cores")
    script.size("--kills", full=50, quick=1, help="gates of which a process is killed")
    script.size("--terminations", full=20, quick=0, help="gates that get SIGTERM")
    script.size("--workers", full="2", quick="0", help="processes, pytest's -n")
    script.size("--seed", full=20261126, quick=1, help="of times and victims")
    for kind, narrow, quick in (
        ("model", "vit-clean", "vit-clean"),
        ("quantizer", "rtn:w8*", "rtn:w8"),
        ("probe", "*", "digits"),
    ):
        script.size(f"--{kind}", full=narrow, quick=quick, help="cases of these alone, a glob")
    options = script.options(arguments)
    if not Path("/proc/self/stat").exists():
        lacking("processes are found in /proc, which this system has not")
    narrowed = tuple(
        f"--{kind}={getattr(options, kind)}" for kind in ("model", "quantizer", "probe")
    )
    common = (f"-n{options.workers}", "-p", "no:cacheprovider", *narrowed)
    goals, chance = Goals(quick=options.quick), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone = Gate(Path(folder, "cache"), Path(folder, "alone"), common)
        seconds, code = run(alone)
        undisturbed = alone.record()
        cases = len((undisturbed or {"cases": ()})["cases"])
        print(f"undisturbed: {cases} cases in {seconds:.0f} s, exit {code}", flush=True)
        shaken = Gate(Path(folder, "shaken-cache"), Path(folder, "shaken"), common)
        kinds = ["kill"] * options.kills + ["terminate"] * options.terminations
        chance.shuffle(kinds)
        ends: dict[str, Counter[str]] = {"kill": Counter(), "terminate": Counter()}
        for number, kind in enumerate(kinds):
            if number % 5 == 0:
                shutil.rmtree(shaken.cache, ignore_errors=True)
            shutil.rmtree(shaken.report, ignore_errors=True)
            said = disturb(shaken, kind, chance, seconds)
            fault = judge(shaken, kind, said, undisturbed)
            goals.exact(not fault)
            ends[kind][said["end"]] += 1
            print(f"{number + 1} {kind}: {said['what']}, {said['end']}{fault}", flush=True)
        for kind, counted in ends.items():
            print(f"{kind}: {counted.total()} gates, " + ", ".join(
                f"{count} x {end}" for end, count in counted.most_common()
            ))  # fmt: skip
        _, last = run(shaken)
        same = shaken.record() == undisturbed
        print(f"the last gate: exit {last}, record {'identical' if same else 'DIFFERS'}")
        goals.exact(same and last == code)
    return goals.code


def run(gate: Gate) -> tuple[float, int]:
    """Return (seconds, exit code) of a gate that nobody disturbs."""
    started = time.perf_counter()
    done = subprocess.run(
        gate.command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - started, done.returncode


def disturb(gate: Gate, kind: str, chance: random.Random, seconds: float) -> dict[str, Any]:
    """Run a gate and end one of its processes; return how it ended."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            gate.command,
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        after = chance.uniform(0.0, seconds)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            members = group(process.pid)
            victim = process.pid if kind == "terminate" else chance.choice(sorted(members))
            place = sorted(members).index(victim) if victim in members else 0
            os.kill(victim, signal.SIGTERM if kind == "terminate" else signal.SIGKILL)
            what = f"process {place + 1} of {len(members)} after {after:.1f} s"
        else:
            what = f"had ended before {after:.1f} s"
        try:
            code: int | None = process.wait(_HANGS_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        deadline = time.monotonic() + _LINGERS_SECONDS
        while group(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = group(process.pid)
        for member in left:
            os.kill(member, signal.SIGKILL)
        output.seek(0)
        text = output.read().decode(errors="replace")
    end = "hung" if code is None else f"exit {code}"
    return {"what": what, "end": end, "code": code, "left": len(left), "output": text}


def judge(gate: Gate, kind: str, said: dict[str, Any], undisturbed: Any) -> str:
    """Return what is wrong with how a gate ended; "" if nothing is."""
    faults, code, record = [], said["code"], gate.record()
    if code is None:
        faults.append("it hung")
    if said["left"]:
        faults.append(f"{said['left']} processes were left")
    if code == 0 and record != undisturbed:
        faults.append("it passed with another record")
    if code == 0 and "GATE PASSED" not in said["output"]:
        faults.append("exit 0 without a word")
    over = record == undisturbed and code in _BY_SIGNAL  # ended after it had concluded
    if code not in (0, None) and not over and "GATE PASSED" in said["output"]:
        faults.append("PASSED beside a failure")
    if kind == "terminate" and code not in (0, 143, -signal.SIGTERM):
        faults.append("no 143")
    if record is not None and record["passed"] and record != undisturbed:
        faults.append("its report passed and is another")
    return f" FAULT: {'; '.join(faults)}\n{said['output'][-2000:]}" if faults else ""


def group(leader: int) -> set[int]:
    """Return the living processes of a process group."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(number) == leader and state != "Z":
            found.add(int(path.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
